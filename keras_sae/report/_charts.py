"""The plots of the page, as Bokeh's JSON. The page's script fills their sources.

Until then each has one point: without any, Bokeh warns that it finds no range.
"""

from collections.abc import Iterable, Sequence
from typing import Any

PLUS, MINUS, MUTED = "#d97706", "#3b82f6", "#8a94a6"
# Told apart on white and on black, and by those who see no red or green.
_COLOURS = (
    "#3b82f6",
    "#d97706",
    "#0d9488",
    "#a855f7",
    "#dc2f6d",
    "#65a30d",
    "#0891b2",
    "#92664a",
    "#6b7280",
    "#e11d48",
)
_MARKERS = {"circle": "●", "square": "■", "triangle": "▲", "diamond": "◆"}


def script() -> str:
    """The plotting library's own script, to stand in the page."""
    from bokeh.resources import Resources

    return "\n".join(Resources(mode="inline", components=["bokeh"]).js_raw)


def histogram() -> dict[str, Any]:
    """Activations of the chosen unit; sources and ranges are filled by the page."""
    from bokeh.models import ColumnDataSource

    source = ColumnDataSource(
        {"left": [0], "right": [1], "count": [0]}, name="histogram"
    )
    figure = _figure("activation, where it is not zero", "samples", height=190)
    figure.quad(
        left="left",
        right="right",
        bottom=0,
        top="count",
        source=source,
        fill_color=MINUS,
        line_color=None,
    )
    _hover(figure, [("from", "@left{0.000}"), ("to", "@right{0.000}")], "@count")
    return _item(figure)


def activations() -> dict[str, Any]:
    """Activations of every unit for the chosen sample; a bar can be tapped."""
    from bokeh.models import ColumnDataSource, TapTool

    source = ColumnDataSource({"unit": [0], "activation": [0]}, name="activations")
    figure = _figure("unit", "activation", height=240)
    figure.vbar(
        x="unit",
        top="activation",
        width=0.9,
        source=source,
        fill_color=MINUS,
        line_color=MINUS,
        nonselection_fill_alpha=1.0,
        nonselection_line_alpha=1.0,
    )
    figure.add_tools(TapTool())
    _hover(figure, [("unit", "@unit")], "@activation{0.000}")
    return _item(figure)


def curves(panels: Sequence[str]) -> dict[str, dict[str, Any]]:
    """A plot a panel: the chosen model's line, and the other models' behind it."""
    return {panel: _curve(panel) for panel in panels}


def _curve(panel: str) -> dict[str, Any]:
    from bokeh.models import ColumnDataSource

    figure = _figure("epoch", None, height=200)
    figure.title.text = panel
    others = ColumnDataSource({"xs": [[0]], "ys": [[0]]}, name="others")
    figure.multi_line("xs", "ys", source=others, line_color=MUTED, line_alpha=0.45)
    for name, dash in (("training", "solid"), ("validation", "dashed")):
        source = ColumnDataSource({"epoch": [0], "value": [0]}, name=name)
        style = {"color": MINUS if name == "training" else PLUS}
        line = figure.line(
            "epoch", "value", source=source, line_width=2, line_dash=dash, **style
        )
        # A fit of one epoch has a point and no line.
        figure.scatter("epoch", "value", source=source, size=3, **style)
        _hover(figure, [(name, "@value{0.0000}")], None, renderers=[line])
    return _item(figure)


def pareto(table: Any, x: str, y: str) -> dict[str, Any]:
    """Rows of a table by two figures, and the front that no other row beats."""
    figure = _figure(x, y, height=360)
    rows = table.dropna(subset=[x, y]).sort_values([x, y])
    front = rows[rows[y] <= rows[y].cummin()]
    figure.step(front[x], front[y], mode="after", line_color=MUTED)
    names = rows["model"].astype(str)
    for name, colour, marker in styles(table["model"].astype(str)):
        group = rows[names == name]
        figure.scatter(
            group[x],
            group[y],
            name=name,
            size=10,
            color=colour,
            marker=marker,
        )
    _hover(figure, [("", "$name"), (x, "@x{0.00}")], "@y{0.00000}")
    return _item(figure)


def styles(names: Iterable[str]) -> list[tuple[str, str, str]]:
    """Name, colour and marker of each model, in their order."""
    markers = list(_MARKERS)
    return [
        (name, _COLOURS[i % len(_COLOURS)], markers[i // len(_COLOURS) % len(markers)])
        for i, name in enumerate(dict.fromkeys(names))
    ]


def legend(names: Iterable[str]) -> list[tuple[str, str, str]]:
    """The same, with the marker as a character."""
    return [(name, colour, _MARKERS[m]) for name, colour, m in styles(names)]


def _figure(x: str, y: str | None, height: int) -> Any:
    from bokeh.plotting import figure

    made = figure(
        height=height,
        sizing_mode="stretch_width",
        toolbar_location=None,
        tools="",
        x_axis_label=x,
        y_axis_label=y,
        min_border_right=12,
    )
    made.xgrid.grid_line_color = None
    return made


def _hover(figure: Any, tips: list, value: str | None, **kwargs: Any) -> None:
    from bokeh.models import HoverTool

    last = [] if value is None else [(str(figure.yaxis[0].axis_label), value)]
    figure.add_tools(HoverTool(tooltips=[*tips, *last], **kwargs))


def _item(figure: Any) -> dict[str, Any]:
    from bokeh.embed import json_item

    return dict(json_item(figure))
