"""What can go wrong, as one small tree: catch :class:`SparseCircuitsError` to catch everything the library raises."""

__all__ = ["FileFormatError", "InputError", "SparseCircuitsError", "UnsupportedModelError"]


class SparseCircuitsError(Exception):
    """Base of every error that the library raises on purpose."""


class InputError(SparseCircuitsError, ValueError):
    """An argument that cannot be used: the message says what was expected, what arrived and what to change."""


class UnsupportedModelError(SparseCircuitsError):
    """A model that the library cannot be right about: the message names the attribute that it cannot explain."""


class FileFormatError(SparseCircuitsError):
    """A file that is damaged, or of another kind than the one asked for."""
