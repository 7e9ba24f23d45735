"""Backward rules: the same model, with some of its nonlinearities treated as linear when gradients are taken."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, get_args

from sparse_circuits.errors import InputError
from sparse_circuits.model.anatomy import Anatomy, Block

BackwardRule = Literal["plain", "frozen", "relp"]
RULES: tuple[str, ...] = get_args(BackwardRule)


def with_rule(anatomy: Anatomy, rule: str) -> Anatomy:
    """The model with a backward rule; its values stay what they are, and only gradients change.

    - ``"plain"``: the derivative.
    - ``"frozen"``: the scale of every norm and every attention pattern is a constant, so that no gradient reaches
      queries and keys (the linearised model of Marks et al. 2024, arXiv:2403.19647, and others).
    - ``"relp"``: besides, the ratio act(x) / x of every activation is a constant, and each factor of a product of two
      activations gets half of the product's derivative (Jafari et al. 2025, RelP, arXiv:2508.21258).

    Raises:
        InputError: for an unknown rule.
    """
    check_rule(rule)
    if rule == "plain":
        return anatomy
    relevance = rule == "relp"
    blocks = tuple(_frozen(block, relevance) for block in anatomy.blocks)
    return replace(anatomy, blocks=blocks, final_norm=replace(anatomy.final_norm, frozen=True))


def check_rule(rule: str) -> None:
    """
    Raises:
        InputError: for an unknown rule.
    """
    if rule not in RULES:
        raise InputError(f"Unknown backward rule {rule!r}; expected one of {', '.join(RULES)}.")


def _frozen(block: Block, relevance: bool) -> Block:
    post, mlp, mlp_norm = block.attn_post_norm, block.mlp, block.mlp_norm
    if mlp is not None:
        mlp_post = mlp.post_norm
        mlp = replace(mlp, relevance=relevance, post_norm=None if mlp_post is None else replace(mlp_post, frozen=True))
    return replace(
        block,
        attn_norm=replace(block.attn_norm, frozen=True),
        attention=replace(block.attention, frozen=True),
        mlp_norm=None if mlp_norm is None else replace(mlp_norm, frozen=True),
        mlp=mlp,
        attn_post_norm=None if post is None else replace(post, frozen=True),
    )
