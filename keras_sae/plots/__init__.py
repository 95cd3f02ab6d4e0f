"""Pictures of models, codes and tables, drawn with matplotlib.

Each function returns a matplotlib figure and changes no state of pyplot. Notebooks show
the returned figure; `figure.savefig(path)` writes it to a file.
"""

from keras_sae.plots.curves import activations as activations
from keras_sae.plots.curves import history as history
from keras_sae.plots.curves import pareto as pareto
from keras_sae.plots.images import filters as filters
from keras_sae.plots.images import latent_plane as latent_plane
from keras_sae.plots.images import reconstructions as reconstructions
from keras_sae.plots.images import samples as samples

__all__ = [
    "activations",
    "filters",
    "history",
    "latent_plane",
    "pareto",
    "reconstructions",
    "samples",
]
