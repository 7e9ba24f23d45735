"""The report: one page on a circuit for somebody who did not find it."""

from sparse_circuits.view.report.page import report

__all__ = ["report"]
