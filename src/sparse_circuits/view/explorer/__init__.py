"""The explorer: one HTML page per circuit, which needs no network and no server; see ``docs/explorer.md``."""

from __future__ import annotations

from sparse_circuits.view.explorer.page import Page, explore

__all__ = ["Page", "explore"]
