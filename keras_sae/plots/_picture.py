"""The figure that every function of the room returns; needs matplotlib at once."""

import io

from matplotlib.figure import Figure


class Picture(Figure):
    """A matplotlib figure that a notebook shows without pyplot and its magic."""

    def _repr_png_(self) -> bytes:
        """Returns the figure as PNG, which is what a notebook asks an object for."""
        png = io.BytesIO()
        self.savefig(png, format="png")
        return png.getvalue()
