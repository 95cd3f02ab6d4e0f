"""Figure class and colors shared by all plots."""

import io

from matplotlib import figure

BASE, ACCENT, INK, MUTED, GROUND = "#0072b2", "#d55e00", "#1f2933", "#b6bdc7", "#f3f4f6"
# The Okabe-Ito palette, whose colors people with color blindness can tell apart.
COLORS = [BASE, ACCENT, "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"]
MARKERS = ["o", "s", "^", "D", "v", "P", "X", "*"]


class Figure(figure.Figure):
    """A matplotlib figure that notebooks show without pyplot.

    Args:
        width: Width in inches.
        height: Height in inches.
    """

    def __init__(self, width: float, height: float) -> None:
        super().__init__(figsize=(width, height), layout="constrained", dpi=120)

    def _repr_png_(self) -> bytes:
        """Return the figure as a PNG image for display in notebooks."""
        png = io.BytesIO()
        self.savefig(png, format="png")
        return png.getvalue()
