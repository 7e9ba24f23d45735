"""Plots of results: a description of what is drawn, drawn by matplotlib as a picture and by plotly as part of a page."""

from sparse_circuits.view.plots.interactive import plot_script
from sparse_circuits.view.plots.interventions import plot_interventions
from sparse_circuits.view.plots.others import plot_similar
from sparse_circuits.view.plots.plot import Plot

__all__ = ["Plot", "plot_interventions", "plot_script", "plot_similar"]
