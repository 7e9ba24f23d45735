"""What a feature is: the contexts it fires on, the tokens it promotes, and what people call it."""

from sparse_circuits.features.collect import collect_contexts
from sparse_circuits.features.feature import Context, Feature
from sparse_circuits.features.heads import HeadReport, head_report
from sparse_circuits.features.labels import Labels, neuronpedia_url
from sparse_circuits.features.logits import promoted
from sparse_circuits.features.mlps import MLPReport, mlp_report
from sparse_circuits.features.neighbours import Similar, similar
from sparse_circuits.features.pages import feature_pages
from sparse_circuits.features.store import FeatureStore

__all__ = [
    "Context",
    "Feature",
    "FeatureStore",
    "HeadReport",
    "Labels",
    "MLPReport",
    "Similar",
    "collect_contexts",
    "feature_pages",
    "head_report",
    "mlp_report",
    "neuronpedia_url",
    "promoted",
    "similar",
]
