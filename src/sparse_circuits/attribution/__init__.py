"""Scoring edges: one method per file, and the loop that they share."""

from sparse_circuits.attribution.ablation import Ablation
from sparse_circuits.attribution.acdc import ACDC
from sparse_circuits.attribution.atp_star import AtPStar
from sparse_circuits.attribution.attribute import attribute
from sparse_circuits.attribution.clean_corrupted import CleanCorrupted
from sparse_circuits.attribution.contributions import Contributions, contributions
from sparse_circuits.attribution.eap import EAP
from sparse_circuits.attribution.eap_ig import EAPIG
from sparse_circuits.attribution.edge_pruning import EdgePruning
from sparse_circuits.attribution.exact import Exact
from sparse_circuits.attribution.information_flow import InformationFlowRoutes
from sparse_circuits.attribution.method import Method
from sparse_circuits.attribution.relp import RelP

__all__ = [
    "ACDC",
    "EAP",
    "EAPIG",
    "METHODS",
    "Ablation",
    "AtPStar",
    "CleanCorrupted",
    "Contributions",
    "EdgePruning",
    "Exact",
    "InformationFlowRoutes",
    "Method",
    "RelP",
    "attribute",
    "contributions",
]

METHODS: dict[str, type[Method]] = {
    "eap": EAP,
    "eap-ig": EAPIG,
    "clean-corrupted": CleanCorrupted,
    "relp": RelP,
    "atp-star": AtPStar,
    "information-flow-routes": InformationFlowRoutes,
    "exact": Exact,
    "acdc": ACDC,
    "edge-pruning": EdgePruning,
}
"""Methods by their name on the command line."""
