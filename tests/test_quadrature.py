"""Quadrature rules as data."""

from __future__ import annotations

import pytest

import sparse_circuits as sc
from sparse_circuits.attribution.quadrature import QUADRATURES, points


@pytest.mark.parametrize("rule", QUADRATURES)
@pytest.mark.parametrize("n", [2, 3, 5, 10])
def test_weights_sum_to_one_and_nodes_lie_inside(rule: str, n: int) -> None:
    nodes, weights = zip(*points(rule, n), strict=True)
    assert sum(weights) == pytest.approx(1)
    assert list(nodes) == sorted(set(nodes))
    assert len(nodes) == n
    assert all(0 <= t <= 1 for t in nodes)


@pytest.mark.parametrize(
    ("rule", "degree"), [("left", 0), ("right", 0), ("midpoint", 1), ("trapezoid", 1), ("gauss-legendre", 9)]
)
def test_exact_up_to_its_degree(rule: str, degree: int) -> None:
    for power in range(degree + 2):
        integral = sum(w * t**power for t, w in points(rule, 5))
        if power <= degree:
            assert integral == pytest.approx(1 / (power + 1))
        else:
            assert integral != pytest.approx(1 / (power + 1), abs=1e-9)


def test_by_hand() -> None:
    assert points("left", 2) == ((0.0, 0.5), (0.5, 0.5))
    assert points("right", 2) == ((0.5, 0.5), (1.0, 0.5))
    assert points("midpoint", 2) == ((0.25, 0.5), (0.75, 0.5))
    assert points("trapezoid", 3) == ((0.0, 0.25), (0.5, 0.5), (1.0, 0.25))


def test_errors() -> None:
    with pytest.raises(sc.InputError, match="Unknown quadrature 'simpson'"):
        points("simpson", 3)
    with pytest.raises(sc.InputError, match="takes 2 to 1000 points"):
        points("trapezoid", 1)
    with pytest.raises(sc.InputError, match="takes 1 to 1000 points"):
        sc.EAPIG(steps=0)
    with pytest.raises(sc.InputError, match="whole number"):
        sc.EAPIG(steps=2.5)
