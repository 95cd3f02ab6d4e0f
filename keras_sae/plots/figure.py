"""Figure class and colors shared by all plots."""

import io

from matplotlib import figure

ACCENT, BASE, INK = "#c2410c", "#3b6ea5", "#1f2933"
COLORS = [BASE, ACCENT, "#4d7c3a", "#7a4fa3", "#a16207", "#0f766e"]
COLORS += ["#be185d", "#64748b", "#84cc16", "#06b6d4", "#111827", "#f472b6"]


class Figure(figure.Figure):
    """A matplotlib figure that notebooks show without pyplot.

    Args:
        width: Width in inches.
        height: Height in inches.
    """

    def __init__(self, width: float, height: float) -> None:
        super().__init__(figsize=(width, height), layout="constrained", dpi=120)

    def _repr_png_(self) -> bytes:
        """Return the figure as PNG for display in notebooks."""
        png = io.BytesIO()
        self.savefig(png, format="png")
        return png.getvalue()
