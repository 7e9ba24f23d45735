"""What a model with dictionaries in place can do: SAELens's methods, with their faults mended."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any

from transformer_lens.hook_points import HookPoint

from sparse_circuits.dictionary.insert import Insert, widths
from sparse_circuits.dictionary.running import Running
from sparse_circuits.dictionary.splice import Place, placed
from sparse_circuits.errors import InputError

# hook points that TransformerLens passes by unless they are switched on, and their switches
_SWITCHES = (
    ("attn.hook_result", "use_attn_result"),
    ("hook_q_input", "use_split_qkv_input"),
    ("hook_k_input", "use_split_qkv_input"),
    ("hook_v_input", "use_split_qkv_input"),
    ("hook_mlp_in", "use_hook_mlp_in"),
    ("hook_attn_in", "use_attn_in"),
)
_OF_THE_STREAM = re.compile(
    r"(^|\.)(hook_(resid_pre|resid_mid|resid_post|attn_out|mlp_out|embed|pos_embed)|(attn|mlp)\.hook_(in|out)"
    r"|ln[12](_post)?\.hook_(in|out|normalized)|embed\.hook_out)$|^blocks\.\d+\.hook_(in|out)$"
)


class Spliced:
    """A model with dictionaries in place, of SAELens's class for it; :func:`~sparse_circuits.splice` makes them."""

    _model: Any
    _acts_to_saes: dict[str, Insert]  # SAELens's methods look here; by the name of the site that is written
    _extra: dict[str, tuple[Any, HookPoint]]
    _added: list[tuple[Any, Any]]
    _is_checked: bool
    _is_partial: bool
    _is_running: bool
    _has_ended: bool

    def __enter__(self) -> Any:
        self._refuse_after_the_end()
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise InputError("A spliced model cannot be copied or pickled; copy the model, and splice the copy.")

    def remove(self) -> None:
        """Take away the dictionaries and the hooks that were added through this object, for good."""
        for point, handle in self._added:
            handle.hook.remove()
            for hooks in (point.fwd_hooks, point.bwd_hooks):
                hooks[:] = [other for other in hooks if other is not handle]
        self._added.clear()
        self._acts_to_saes, self._has_ended = {}, True

    def add_sae(self, sae: Any, use_error_term: bool | None = None, exclude_special_tokens: Any = False) -> None:
        """Put a dictionary in place, instead of one that writes the same hook point, until :meth:`reset_saes`.

        Args:
            sae: as :func:`~sparse_circuits.splice` takes.
            use_error_term: whether to keep the error term; by default, as in SAELens, if the SAE says so, and few do.
            exclude_special_tokens: on a HookedTransformer, whether special tokens pass by it, or the ids of those that do.

        Raises:
            InputError: as :func:`~sparse_circuits.splice` does.
        """
        self._put(placed(sae), use_error_term, exclude_special_tokens, replace=True)

    def reset_saes(self, act_names: str | list[str] | None = None) -> None:
        """Take dictionaries away: all, or those that write (or else read) these hook points.

        Raises:
            InputError: if there is none.
        """
        left = dict(self._acts_to_saes)
        for name in [act_names] if isinstance(act_names, str) else list(left) if act_names is None else act_names:
            self._check([name])
            point = self.hook_dict[name]
            gone = [at for at, insert in left.items() if insert.point is point]
            gone = gone or [at for at, insert in left.items() if insert.read_point is point]
            if not gone:
                raise InputError(f"No dictionary is at {name!r}; there are {', '.join(self._acts_to_saes) or 'none'}.")
            for at in gone:
                del left[at]
        self._acts_to_saes = left

    @contextmanager
    def saes(
        self,
        saes: Any = (),
        reset_saes_end: bool = True,
        use_error_term: bool | None = None,
        exclude_special_tokens: Any = False,
    ) -> Iterator[Any]:
        """Other dictionaries for a while, beside those in place or instead of them; what was there comes back."""
        before = self._acts_to_saes
        self._put(placed(saes), use_error_term, exclude_special_tokens, replace=True)
        try:
            yield self
        finally:
            if reset_saes_end:
                self._acts_to_saes = before

    def get_sae_hook_name(self, sae: Any, internal: str = "hook_sae_acts_post") -> str:
        """The name under which a dictionary's activations are cached and hooked.

        Raises:
            InputError: if it is not in place.
        """
        for insert in self._acts_to_saes.values():
            if sae in (insert.sae, getattr(insert.sae, "dictionary", None)) or insert.sae is getattr(sae, "sae", None):
                return f"{insert.name}.{internal}"
        raise InputError(f"This dictionary is not in place; those at {', '.join(self._acts_to_saes) or 'no site'} are.")

    @property
    def hook_dict(self) -> dict[str, Any]:
        """All hook points by name: the model's, by all of its names for them, and those inside the dictionaries."""
        points = {**self._model.hook_dict, **{name: point for name, (_, point) in self._extra.items()}}
        for insert in self._acts_to_saes.values():
            points |= {f"{name}.{inner}": point for name in insert.names for inner, point in insert.points.items()}
        return points

    def hook_points(self) -> Any:
        """All hook points, each once."""
        return {id(point): point for point in self.hook_dict.values()}.values()

    def clear_contexts(self) -> None:
        """Empty the ``ctx`` of all hook points."""
        for point in self.hook_points():
            point.clear_context()

    def remove_all_hook_fns(
        self, direction: Any = "both", including_permanent: bool = False, level: Any = None
    ) -> None:
        """Remove hooks from all hook points, the model's and the dictionaries'."""
        for point in self.hook_points():
            point.remove_hooks(direction, including_permanent=including_permanent, level=level)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The model's own forward pass, with the dictionaries in place.

        Raises:
            InputError: after the end of the splice, or if a dictionary was passed by though all layers were to run.
        """
        with self._in_part(kwargs), self._running():
            return super().forward(*args, **kwargs)  # pyright: ignore[reportAttributeAccessIssue]

    def run_with_hooks(self, *args: Any, fwd_hooks: Any = (), bwd_hooks: Any = (), **kwargs: Any) -> Any:
        """TransformerLens's, with the dictionaries' hook points.

        Raises:
            InputError: for a name that no hook point has, or whose hook point is switched off; before anything runs.
        """
        self._check(name for name, _ in (*fwd_hooks, *bwd_hooks))
        with self._noting(not kwargs.get("reset_hooks_end", True)), self._in_part(kwargs):
            return super().run_with_hooks(  # pyright: ignore[reportAttributeAccessIssue]
                *args, fwd_hooks=list(fwd_hooks), bwd_hooks=list(bwd_hooks), **kwargs
            )

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """TransformerLens's, with the dictionaries in place for every token."""
        self._refuse_after_the_end()  # before anything of the model's is set for it
        return super().generate(*args, **kwargs)  # pyright: ignore[reportAttributeAccessIssue]

    def hooks(
        self, fwd_hooks: Any = (), bwd_hooks: Any = (), reset_hooks_end: bool = True, clear_contexts: bool = False
    ) -> Any:
        """TransformerLens's context manager, with the dictionaries' hook points; raises as :meth:`run_with_hooks` does."""
        self._check(name for name, _ in (*fwd_hooks, *bwd_hooks))
        theirs = super().hooks(  # pyright: ignore[reportAttributeAccessIssue]
            list(fwd_hooks), list(bwd_hooks), reset_hooks_end=reset_hooks_end, clear_contexts=clear_contexts
        )

        @contextmanager
        def hooked() -> Iterator[Any]:
            with self._noting(not reset_hooks_end), theirs:
                yield self

        return hooked()

    def run_with_cache(self, *args: Any, names_filter: Any = None, **kwargs: Any) -> Any:
        """TransformerLens's, with the dictionaries' activations; raises as :meth:`run_with_hooks` does."""
        if isinstance(names_filter, (list, tuple, set)):
            names_filter = list(names_filter)
        self._check([] if names_filter is None else names_filter if isinstance(names_filter, list) else [names_filter])
        # Caching all hook points takes in those that are switched off, where it harms nothing.
        noting = self._noting(not kwargs.get("reset_hooks_end", True))
        with noting, self._in_part(kwargs), self._meanwhile("_is_checked", True):
            return super().run_with_cache(  # pyright: ignore[reportAttributeAccessIssue]
                *args, names_filter=names_filter, **kwargs
            )

    def add_hook(self, name: Any, hook: Any, dir: Any = "fwd", is_permanent: bool = False, **options: Any) -> None:
        """Add a hook to all hook points of a name, or that ``name(hook_name)`` picks; it goes with the splice."""
        self._check([name])
        points = self.hook_dict
        if callable(name):
            chosen = {id(p): p for at, p in points.items() if name(at) and self._switch(at) is None}.values()
        else:
            chosen = [points[name]]
        with self._noting(True):
            for point in chosen:
                point.add_hook(hook, dir=dir, is_permanent=is_permanent, **options)

    def add_perma_hook(self, name: Any, hook: Any, dir: Any = "fwd") -> None:
        """Add a hook that :meth:`reset_hooks` leaves; it goes with the splice."""
        self.add_hook(name, hook, dir, is_permanent=True)

    def _put(
        self,
        places: list[Place],
        use_error_term: bool | None,
        exclude_special_tokens: Any = False,
        replace: bool = False,
    ) -> None:
        """Put dictionaries in place: all, or none if one is refused."""
        if exclude_special_tokens and not hasattr(self, "_token_masks"):
            raise InputError("exclude_special_tokens is for HookedTransformer only; SAELens has it on no bridge.")
        known = self.hook_dict  # a bridge puts it together anew every time
        new = [self._insert(place, known, use_error_term) for place in places]
        for insert in new:
            insert.exclude_special_tokens = exclude_special_tokens
        inserts = dict(self._acts_to_saes)
        if replace:
            points = [insert.point for insert in new]
            inserts = {at: old for at, old in inserts.items() if not any(old.point is point for point in points)}
        for insert in new:
            for at, other in inserts.items():
                if other.point is insert.point:
                    raise InputError(
                        f"Two dictionaries write the same hook point, {at!r} and {insert.name!r}; leave one out."
                    )
            inserts[insert.name] = insert
        self._acts_to_saes = inserts

    def _insert(self, place: Place, known: dict[str, Any], use_error_term: bool | None) -> Insert:
        for name, width in zip((place.reads, place.writes), widths(place.sae), strict=True):
            self._check([name], known)
            expected = self._widths(name)
            if expected and width not in expected:
                raise InputError(
                    f"The dictionary at {place.writes!r} is {width} wide, but {name!r} has {expected[0]} in this model; it "
                    "belongs to another site or another model."
                )
        if use_error_term is None:
            use_error_term = bool(getattr(place.sae, "use_error_term", False))
        point = known[place.writes]
        insert = Insert(place.sae, place.writes, point, place.reads, known[place.reads], use_error_term)
        insert.names = (place.writes, *(at for at, p in known.items() if p is point and at != place.writes))
        insert.beside = self._beside(place.writes, known)
        return insert

    def _beside(self, name: str, known: dict[str, Any]) -> Any:
        """The stream's own hook point, where the one of this name is a copy of the stream."""
        return None

    def _widths(self, name: str) -> tuple[int, ...]:
        """How wide the activation at a hook point is, in the shapes that a dictionary may have; empty where not known."""
        cfg: Any = self._model.cfg
        if _OF_THE_STREAM.search(name):
            return (cfg.d_model,)
        if name.endswith(("attn.hook_z", "attn.o.hook_in")):
            return (cfg.n_heads * cfg.d_head, cfg.d_head)
        if name.endswith(("mlp.hook_pre", "mlp.hook_post")) and getattr(cfg, "d_mlp", None):
            return (cfg.d_mlp,)
        return ()

    @contextmanager
    def _meanwhile(self, name: str, value: bool) -> Iterator[None]:
        before = getattr(self, name)
        setattr(self, name, value)
        try:
            yield
        finally:
            setattr(self, name, before)

    def _in_part(self, kwargs: dict[str, Any]) -> Any:
        """While the model runs some of its layers only, if that is asked for: then a dictionary may be passed by."""
        part = any(kwargs.get(name) is not None for name in ("stop_at_layer", "start_at_layer"))
        return self._meanwhile("_is_partial", self._is_partial or part)

    def _check(self, names: Any, known: dict[str, Any] | None = None) -> None:
        if self._is_checked:
            return
        known = self.hook_dict if known is None else known
        for name in names:
            if callable(name):
                continue
            if name not in known:
                site, _, inner = str(name).rpartition(".")
                if inner == "hook_sae_error" and any(site in insert.names for insert in self._acts_to_saes.values()):
                    raise InputError(
                        f"The dictionary at {site!r} is in place without its error term; splice it with errors=True."
                    )
                close = ", ".join(map(repr, get_close_matches(str(name), list(known), 3)))
                raise InputError(f"The model has no hook point {name!r}{f'; did you mean {close}?' if close else '.'}")
            switch = self._switch(name)
            if switch is not None:
                raise InputError(f"Hook point {name!r} is switched off; call model.set_{switch}(True) first.")

    def _switch(self, name: str) -> str | None:
        off = (
            switch for end, switch in _SWITCHES if name.endswith(end) and not getattr(self._model.cfg, switch, False)
        )
        return next(off, None)

    def _refuse_after_the_end(self) -> None:
        if self._has_ended:
            raise InputError("This spliced model has ended with its block; call splice(model, saes) for another.")

    @contextmanager
    def _running(self) -> Iterator[None]:
        """Dictionaries on the model's hook points for one run; afterwards each must have had its turn."""
        self._refuse_after_the_end()
        if self._is_running:
            yield
            return
        inserts = list(self._acts_to_saes.values())
        running = Running(inserts, self._extra.values())
        with self._meanwhile("_is_running", True), running():
            yield
        missed = [insert.name for insert in inserts if id(insert) not in running.done]
        if missed and not self._is_partial:
            raise InputError(
                f"Nothing passed hook point {missed[0]!r} in this run, so the dictionary there had no effect; put it at a "
                "hook point that this model uses."
            )

    @contextmanager
    def _noting(self, needed: bool) -> Iterator[None]:
        """Remember the hooks that are added meanwhile and stay, to take them away in the end."""
        if not needed:
            yield
            return
        before = {id(handle): handle for point in self.hook_points() for handle in (*point.fwd_hooks, *point.bwd_hooks)}
        try:
            yield
        finally:
            for point in self.hook_points():
                new = (handle for handle in (*point.fwd_hooks, *point.bwd_hooks) if id(handle) not in before)
                self._added.extend((point, handle) for handle in new)


class SplicedBridge(Spliced):
    """A ``TransformerBridge`` with dictionaries in place, also an ``SAETransformerBridge``."""

    def hf_generate(self, *args: Any, **kwargs: Any) -> Any:
        """TransformerLens's, with the dictionaries in place for every token."""
        with self._running():  # calls the model underneath without coming through forward
            return super().hf_generate(*args, **kwargs)  # pyright: ignore[reportAttributeAccessIssue]

    def _beside(self, name: str, known: dict[str, Any]) -> Any:
        # On a bridge hook_resid_mid is what the MLP's norm reads; the stream goes by beside it, to the block's output.
        block, _, point = name.rpartition(".")
        return known[f"{block}.hook_out"] if point == "hook_resid_mid" else None


class SplicedHooked(Spliced):
    """A ``HookedTransformer`` with dictionaries in place, also a ``HookedSAETransformer``."""

    @property
    def mod_dict(self) -> dict[str, Any]:
        """The model's modules by name, and all hook points."""
        return {**self._model.mod_dict, **self.hook_dict}

    def setup(self) -> None:
        """Nothing: SAELens's methods call it to name hook points anew."""
