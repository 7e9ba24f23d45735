"""SAEs and transcoders as splits of a site, and where they come from."""

from sparse_circuits.dictionary.dictionaries import Dictionaries
from sparse_circuits.dictionary.dictionary import Dictionary
from sparse_circuits.dictionary.edit import ablate_features
from sparse_circuits.dictionary.load import load_dictionaries
from sparse_circuits.dictionary.splice import splice

__all__ = ["Dictionaries", "Dictionary", "ablate_features", "load_dictionaries", "splice"]
