"""Figures that a person looks at. Each function returns a matplotlib `Figure`.

No global state of pyplot is touched: save with `figure.savefig(path)`; a notebook
shows the returned figure without any magic.
"""

from keras_sae.plots.curves import activations as activations
from keras_sae.plots.curves import history as history
from keras_sae.plots.images import filters as filters
from keras_sae.plots.images import reconstructions as reconstructions
from keras_sae.plots.latent import latent_plane as latent_plane
from keras_sae.plots.latent import samples as samples
from keras_sae.plots.tables import pareto as pareto

__all__ = [
    "activations",
    "filters",
    "history",
    "latent_plane",
    "pareto",
    "reconstructions",
    "samples",
]
