"""Plots of models, codes and tables, drawn with matplotlib.

Each function returns a matplotlib figure and does not change pyplot's state. Notebooks
show the returned figure. Call `figure.savefig(path)` to write it to a file.
"""

from keras_sae.plots.curves import activations, history, pareto
from keras_sae.plots.images import filters, latent_plane, reconstructions, samples

__all__ = [
    "activations",
    "filters",
    "history",
    "latent_plane",
    "pareto",
    "reconstructions",
    "samples",
]
