"""Scoring edges: one method per file, and the loop that they share."""

from sparse_circuits.attribution.ablation import Ablation
from sparse_circuits.attribution.attribute import attribute
from sparse_circuits.attribution.clean_corrupted import CleanCorrupted
from sparse_circuits.attribution.eap import EAP
from sparse_circuits.attribution.eap_ig import EAPIG
from sparse_circuits.attribution.exact import Exact
from sparse_circuits.attribution.method import Method

__all__ = ["EAP", "EAPIG", "METHODS", "Ablation", "CleanCorrupted", "Exact", "Method", "attribute"]

METHODS: dict[str, type[Method]] = {
    "eap": EAP,
    "eap-ig": EAPIG,
    "clean-corrupted": CleanCorrupted,
    "exact": Exact,
}
"""Methods by their name on the command line."""
