"""Interactive charts for the report page, as JSON for Bokeh.

The Pareto chart contains its data. The other charts contain one placeholder point, and
the page's scripts replace it. Bokeh would warn about a chart without any points.
"""

from collections.abc import Iterable
from typing import Any, TypeAlias

import pandas as pd
from bokeh.embed import json_item
from bokeh.models import (
    ColumnDataSource,
    HoverTool,
    LogAxis,
    NumeralTickFormatter,
    TapTool,
)
from bokeh.plotting import figure as Figure  # noqa: N812

from keras_sae import evaluation
from keras_sae.evaluation.comparison import sparsity_metric
from keras_sae.plots.logs import LOGARITHMIC, Logs, axis_limits, metric_label

Chart: TypeAlias = dict[str, Any]
LegendEntry: TypeAlias = tuple[str, str, str]

_ORANGE, _BLUE, _GRAY = "#d97706", "#3b82f6", "#8a94a6"
# These colors can be told apart on white and black backgrounds, including by people
# with color blindness.
_COLORS = [_BLUE, _ORANGE, "#0d9488", "#a855f7", "#dc2f6d"]
_COLORS += ["#65a30d", "#0891b2", "#92664a", "#6b7280", "#e11d48"]
_CURVES = ("training", _ORANGE, "dashed"), ("validation", _BLUE, "solid")
# On a short logarithmic axis, Bokeh's default ticks overlap.
_LOG_TICKS = [m * 10.0**e for e in range(-9, 10) for m in (1, 3)]
# Seven markers and ten colors give 70 different pairs.
_MARKERS = [("circle", "●"), ("square", "■"), ("triangle", "▲"), ("diamond", "◆")]
_MARKERS += [("inverted_triangle", "▼"), ("star", "★"), ("hex", "⬢")]


def activations() -> dict[str, Chart]:
    """Return the charts for the selected unit and the selected sample.

    `histogram` counts the unit's non-zero activations. `activations` has one bar per
    unit of the sample's code. Tapping a bar selects that unit.
    """
    bars = {"left": [0], "right": [1], "count": [0]}
    source = ColumnDataSource(bars, name="histogram")
    histogram = _figure("non-zero activation", "samples", height=190)
    style = {"fill_color": _BLUE, "line_color": None}
    histogram.quad("left", "right", "count", 0, source=source, **style)
    tips = {"from": "@left{0.000}", "to": "@right{0.000}", "samples": "@count"}
    source = ColumnDataSource({"unit": [0], "activation": [0]}, name="activations")
    code = _figure("unit", "activation", height=240)
    options: Chart = {"color": _BLUE, "nonselection_alpha": 1.0, "source": source}
    code.vbar("unit", 0.9, "activation", **options)
    code.add_tools(TapTool())
    code_tips = {"unit": "@unit", "activation": "@activation{0.000}"}
    return {
        "histogram": _chart(histogram, tips),
        "activations": _chart(code, code_tips),
    }


def learning_curve(metric: str, histories: Iterable[Logs]) -> Chart:
    """Return a chart of one metric per epoch, for the selected model.

    The curves of the other models are gray, in the background.
    """
    limits, is_logarithmic = axis_limits(metric, histories)
    kind = "log" if is_logarithmic else "linear"
    figure = _figure("epoch", None, 200, y_range=limits, y_axis_type=kind)
    figure.title.text = metric_label(metric)
    others = ColumnDataSource({"xs": [[0]], "ys": [[0]]}, name="others")
    figure.multi_line("xs", "ys", source=others, line_color=_GRAY, line_alpha=0.45)
    for kind, color, dash in _CURVES:
        source = ColumnDataSource({"epoch": [0], "value": [0]}, name=kind)
        style = {"source": source, "color": color}
        line = figure.line("epoch", "value", line_width=2, line_dash=dash, **style)
        # A line through a single epoch is invisible, so draw the points too.
        figure.scatter("epoch", "value", size=3, **style)
        tips = [(kind, "@value{0.0000}")]
        figure.add_tools(HoverTool(tooltips=tips, renderers=[line]))
    return dict(json_item(figure))


def pareto(table: pd.DataFrame) -> tuple[Chart | None, list[LegendEntry]]:
    """Return a chart of error against sparsity with the Pareto front, and its legend.

    The chart is None if `table` has no L0 or no error.
    """
    metric = sparsity_metric(table)
    if not {metric, "reconstruction"} <= set(table.columns):
        return None, []
    points = table.dropna(subset=[metric, "reconstruction"])
    if points.empty:
        return None, []
    x, y = metric_label(metric), metric_label("reconstruction")
    is_logarithmic = 0 < LOGARITHMIC * points[metric].min() < points[metric].max()
    figure = _figure(x, y, 360, x_axis_type="log" if is_logarithmic else "linear")
    front = evaluation.pareto_front(points, metric)
    figure.step(front[metric], front["reconstruction"], mode="after", line_color=_GRAY)
    legend = []
    for i, (name, rows) in enumerate(points.groupby("model", sort=False)):
        color = _COLORS[i % len(_COLORS)]
        marker, symbol = _MARKERS[i % len(_MARKERS)]
        style = {"name": str(name), "size": 10, "color": color, "marker": marker}
        figure.scatter(rows[metric], rows["reconstruction"], **style)
        legend.append((str(name), color, symbol))
    return _chart(figure, {"": "$name", x: "@x{0.00}", y: "@y{0.00000}"}), legend


def _figure(x: str, y: str | None, height: int, **axis: Any) -> Figure:
    layout = {
        **axis,
        "height": height,
        "sizing_mode": "stretch_width",
        "min_border_right": 12,
    }
    labels = {"x_axis_label": x, "y_axis_label": y}
    chart = Figure(toolbar_location=None, tools="", **layout, **labels)
    for each in chart.axis:
        if isinstance(each, LogAxis):
            each.ticker = _LOG_TICKS
            each.formatter = NumeralTickFormatter(format="0.[000000]")
    chart.xgrid.grid_line_color = None
    return chart


def _chart(figure: Figure, tips: dict[str, str]) -> Chart:
    figure.add_tools(HoverTool(tooltips=list(tips.items())))
    return dict(json_item(figure))
