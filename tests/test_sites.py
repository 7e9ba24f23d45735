"""Sites: their names, and that each is what the model's own hooks have there."""

from __future__ import annotations

import sys
from typing import get_args

import pytest
import torch
from conftest import FAMILIES, POST_NORM

import sparse_circuits as sc
from sparse_circuits.dictionary import Dictionary, load_dictionaries
from sparse_circuits.model import anatomy_of
from sparse_circuits.model.sites import Kind, Site

NO_MIDDLE = ("gptj", "neox", "phi", "hooked-rotary-parallel-gqa", "hooked-attn-only")


def test_names_and_hook_names_lead_back_to_their_site() -> None:
    for kind in get_args(Kind):
        if kind in ("embed", "resid_pre"):
            names = ["embed" if kind == "embed" else "resid_pre_0"]
        else:
            names = [f"{kind}_0", f"{kind}_11"]
        for name in names:
            site = Site.named(name)
            assert (site.kind, site.name) == (kind, name)
            if kind != "transcoder":
                assert Site.hooked(site.hook_name) == site


@pytest.mark.parametrize(
    ("hook", "name"),
    [
        ("hook_embed", "embed"),
        ("embed.hook_out", "embed"),
        ("blocks.0.hook_resid_pre", "resid_pre_0"),
        ("blocks.0.hook_in", "resid_pre_0"),
        ("blocks.4.hook_resid_pre", "resid_3"),
        ("blocks.4.hook_out", "resid_4"),
        ("blocks.4.attn.hook_z", "z_4"),
    ],
)
def test_hook_names(hook: str, name: str) -> None:
    assert Site.hooked(hook).name == name


def test_names_that_are_none() -> None:
    for name in ("resid", "resid_", "resid_pre_1", "head_0", "embed_0"):
        with pytest.raises(sc.InputError, match="No site is called"):
            Site.named(name)
    for hook in ("blocks.0.hook_mlp", "hook_pos_embed", "blocks.x.hook_mlp_out", "blocks.0.attn.hook_q"):
        with pytest.raises(sc.InputError, match=r"expected|no hook name"):
            Site.hooked(hook)
    for out in ("blocks.1.hook_mlp_out", "blocks.0.hook_attn_out"):
        with pytest.raises(sc.InputError, match="one block's MLP"):
            Site.hooked("blocks.0.mlp.hook_in", out)


def test_sites_are_ordered_as_a_pass_meets_them() -> None:
    names = [
        "embed",
        "resid_pre_0",
        "z_0",
        "attn_0",
        "resid_mid_0",
        "mlp_0",
        "resid_0",
        "z_1",
        "transcoder_1",
        "resid_1",
    ]
    assert [site.name for site in sorted(map(Site.named, reversed(names)), key=lambda site: site.order)] == names


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_read_at_a_site_is_what_the_hook_has(zoo, family: str) -> None:
    """Loading compares every site with the model's own hook of the same name, and refuses if they differ."""
    model = zoo(family)
    sites = ["embed", "resid_pre", "z", "attn", "resid"]
    if family != "hooked-attn-only":
        sites += ["mlp"]
    if family not in NO_MIDDLE:
        sites += ["resid_mid"]
    saes = load_dictionaries("neurons", model, sites=sites)
    assert len(saes) == 2 + (len(sites) - 2) * len(anatomy_of(model).blocks)
    assert all(dictionary.hook_name in model.hook_dict for dictionary in saes.values())
    if family in NO_MIDDLE:
        with pytest.raises(sc.InputError, match="stream between attention and MLP"):
            load_dictionaries("neurons", model, sites="resid_mid")


def identity(site: Site, hook_name: str, width: int) -> Dictionary:
    eye, zero = torch.eye(width), torch.zeros(width)
    return Dictionary(site, "identity", hook_name, site.hook_name, eye, zero, eye, zero, code=lambda x: x)


@pytest.mark.parametrize(
    "part", ["hook_resid_mid", "ln2.hook_in", "ln2.hook_normalized", "ln2.hook_out", "mlp.hook_in"]
)
@pytest.mark.parametrize("family", [f for f in FAMILIES if f != "hooked-attn-only"])
def test_what_a_transcoder_reads_is_what_the_hook_has(zoo, family: str, part: str) -> None:
    model, hook = zoo(family), f"blocks.1.{part}"
    if hook not in model.hook_dict:
        pytest.skip("this model has no such hook")
    ours = identity(Site.hooked(hook, "blocks.1.hook_mlp_out"), hook, anatomy_of(model).d_model)
    if family == "olmo2" and part.startswith("ln2"):  # the norm behind attention, not the one in front of the MLP
        with pytest.raises(sc.InputError, match="is not what the library reads at transcoder_1"):
            load_dictionaries({hook: ours}, model)
    else:
        assert load_dictionaries({hook: ours}, model)["transcoder_1"].hook_name == hook


@pytest.mark.parametrize("family", POST_NORM)
def test_an_mlp_is_read_after_its_post_norm(zoo, family: str) -> None:
    model = zoo(family)
    before = identity(Site.named("mlp_1"), "blocks.1.mlp.hook_out", 24)
    with pytest.raises(sc.InputError, match=r"what the model has at blocks\.1\.mlp\.hook_out is not what"):
        load_dictionaries({"mlp_1": before}, model)


def test_a_dictionary_of_another_width_or_depth_is_refused(zoo) -> None:
    for site, width, message in (
        ("resid_1", 25, "from 25 to 25 numbers, but the model has 24"),
        ("mlp_7", 24, "3 layers"),
    ):
        with pytest.raises(sc.InputError, match=message):
            load_dictionaries({site: identity(Site.named(site), "blocks.1.hook_resid_post", width)}, zoo("gpt2"))


def test_without_saelens_one_clear_error(zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sae_lens", None)
    for source in ("toy", "gpt2-small-res-jb", {"resid_1": object()}, [object()]):
        with pytest.raises(sc.InputError, match=r"SAELens 6 needs TransformerLens 3, and version \S+ is installed"):
            load_dictionaries(source, zoo("gpt2"))
    assert len(load_dictionaries("neurons", zoo("gpt2"))) == 9
