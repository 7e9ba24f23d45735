"""Quadrature rules on [0, 1], as data."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

from sparse_circuits.errors import InputError

Quadrature = Literal["left", "right", "midpoint", "trapezoid", "gauss-legendre"]
MOST_POINTS = 1000  # beyond this only rounding is integrated
QUADRATURES: tuple[str, ...] = get_args(Quadrature)


def points(rule: str, n: int) -> tuple[tuple[float, float], ...]:
    """``n`` nodes and weights: ``integral of f over [0, 1] ~ sum_i weight_i f(node_i)``; the weights sum to 1.

    Exact for polynomials of degree 0 (left, right), 1 (midpoint, trapezoid) and 2n - 1 (gauss-legendre).

    Raises:
        InputError: for an unknown rule, or too few points for it.
    """
    if rule not in QUADRATURES:
        raise InputError(f"Unknown quadrature {rule!r}; expected one of {', '.join(QUADRATURES)}.")
    fewest = 2 if rule == "trapezoid" else 1
    if not fewest <= n <= MOST_POINTS:
        raise InputError(f"Quadrature {rule!r} takes {fewest} to {MOST_POINTS} points, got {n}.")
    if rule == "left":
        return tuple((i / n, 1 / n) for i in range(n))
    if rule == "right":
        return tuple(((i + 1) / n, 1 / n) for i in range(n))
    if rule == "midpoint":
        return tuple(((i + 0.5) / n, 1 / n) for i in range(n))
    if rule == "trapezoid":
        return tuple((i / (n - 1), (0.5 if i in (0, n - 1) else 1.0) / (n - 1)) for i in range(n))
    nodes, weights = np.polynomial.legendre.leggauss(n)
    return tuple((float((x + 1) / 2), float(w / 2)) for x, w in zip(nodes, weights, strict=True))
