"""The numbers and images of the report, read back from the file."""

import base64
import html.parser
import io
import json
import re

import keras
import numpy as np
import pandas as pd
import pytest
from bokeh.document import Document
from bokeh.models import GlyphRenderer, Plot, Step
from PIL import Image
from scipy import sparse

from keras_sae import evaluation, layers, models, report
from keras_sae.report import sections

RNG = np.random.default_rng(0)
X = RNG.random((40, 4, 4, 1), dtype="float32")
Y = np.array(["cat", "dog"])[np.arange(40) % 2]


@pytest.fixture(scope="module")
def model():
    model = models.shallow((4, 4, 1), 12, "l1")
    model.compile("adam")
    model.fit(X, epochs=2, batch_size=8, verbose=0)
    return model


class Page(html.parser.HTMLParser):
    """The elements of a page, and the JSON in its scripts."""

    def __init__(self, path):
        super().__init__()
        self.text = path.read_text(encoding="utf-8")
        self.tags, self.json, self._id = [], {}, None
        self.feed(self.text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        is_json = ("type", "application/json") in attributes
        self._id = dict(attributes)["id"] if is_json else None

    def handle_data(self, data):
        if self._id:
            self.json[self._id] = json.loads(data)
            self._id = None

    def sheet(self, name):
        (url,) = re.findall(
            rf"\.sheet-{name} {{ background-image: url\((.*?)\)", self.text
        )
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))))


@pytest.fixture(scope="module")
def page(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "page.html"
    assert report.write_report(model, (X, Y), path, samples=10) == path
    return Page(path)


@pytest.fixture(scope="module")
def section(page):
    """The part of the page's data that belongs to the model."""
    return page.json["data"]["models"][0]


def test_page_loads_nothing_from_elsewhere(page):
    links = [
        value
        for tag, attributes in page.tags
        for key, value in attributes.items()
        if key in ("src", "href", "action", "srcset")
    ]
    assert all(link.startswith(("#", "data:")) for link in links)
    assert "url(http" not in page.text
    policies = [a["content"] for t, a in page.tags if "Content-Security" in str(a)]
    assert policies[0].startswith("default-src 'none'")


def test_metrics_are_those_of_evaluate(model, section):
    metrics = evaluation.evaluate(model, X, Y)
    cards = {card["key"]: card["text"] for card in section["metrics"]}
    assert set(cards) == set(metrics)
    assert cards["reconstruction"] == f"{metrics['reconstruction']:.5f}"
    assert cards["l0"] == f"{metrics['l0']:.1f}"
    assert cards["probe_accuracy"] == f"{100 * metrics['probe_accuracy']:.1f}%"


def test_unit_statistics_match_the_codes(model, section):
    codes = model.encode(X)
    units = section["units"]
    np.testing.assert_allclose(units["rate"], (codes > 0).mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(units["mean"], codes.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(units["peak"], codes.max(axis=0), rtol=1e-5)
    for unit in range(12):
        column = codes[:, unit]
        assert sum(units["counts"][unit]) == (column > 0).sum()
        strongest = sorted(range(40), key=lambda i: -column[i])[:8]
        assert units["top"][unit] == strongest
        np.testing.assert_allclose(
            units["top_values"][unit], column[strongest], rtol=1e-5
        )


def test_histogram_covers_the_range_from_zero_to_the_peak(model, section):
    codes = model.encode(X)
    unit = int(codes.mean(axis=0).argmax())
    bins = len(section["units"]["counts"][unit])
    width = codes[:, unit].max() / bins
    places = np.minimum(codes[:, unit][codes[:, unit] > 0] // width, bins - 1)
    expected = np.bincount(places.astype(int), minlength=bins)
    # A value on the border of two bins may be counted in either.
    assert np.abs(expected - section["units"]["counts"][unit]).sum() <= 2


def test_classes_are_sorted_by_their_share_of_activation(model, page, section):
    assert page.json["data"]["classes"] == ["cat", "dog"]
    codes = model.encode(X)
    cats, dogs = codes[0::2].mean(axis=0), codes[1::2].mean(axis=0)
    for unit in np.flatnonzero(cats + dogs > 0):
        order = [0, 1] if cats[unit] >= dogs[unit] else [1, 0]
        assert section["units"]["classes"][unit] == order
        share = max(cats[unit], dogs[unit]) / (cats[unit] + dogs[unit])
        assert section["units"]["shares"][unit][0] == pytest.approx(share, rel=1e-4)


def test_best_and_worst_reconstructions(model, section):
    errors = ((X - model.predict(X, verbose=0)) ** 2).mean(axis=(1, 2, 3))
    order = sorted(range(40), key=lambda i: errors[i])
    assert section["best"] == order[:8]
    assert section["worst"] == order[::-1][:8]
    np.testing.assert_allclose(section["errors"], errors[section["samples"]], rtol=1e-4)


def test_codes_of_samples_are_stored_as_float32(model, page, section):
    raw = np.frombuffer(base64.b64decode(section["codes"]), "<f4")
    expected = model.encode(X)[section["samples"]]
    np.testing.assert_allclose(raw.reshape(expected.shape), expected, atol=1e-6)
    assert set(section["samples"]) <= set(page.json["data"]["inputs"])


def test_tiles_of_inputs_are_in_the_order_of_their_indices(page):
    sheet = page.sheet("inputs")
    columns = sheet.shape[1] // 4
    low, high = np.percentile(X, (0.5, 99.5))
    for tile, sample in enumerate(page.json["data"]["inputs"]):
        row, column = 4 * (tile // columns), 4 * (tile % columns)
        found = sheet[row : row + 4, column : column + 4]
        expected = 255 * np.clip((X[sample, :, :, 0] - low) / (high - low), 0, 1)
        np.testing.assert_allclose(found, expected, atol=0.51)


def test_filters_show_sign_as_color_and_magnitude_as_opacity(model, page):
    dictionary = keras.ops.convert_to_numpy(model.decoder.layers[1].kernel)
    filter_ = dictionary[0].reshape(4, 4)
    tile = page.sheet("filters-0")[:4, :4].astype(int)
    largest = np.percentile(np.abs(dictionary), 99.5)  # one scale for all units
    expected = 255 * np.clip(np.abs(filter_) / largest, 0, 1)
    np.testing.assert_allclose(tile[..., 3], expected, atol=1.0)
    strong = expected > 5
    orange = tile[..., 0] > tile[..., 2]
    np.testing.assert_array_equal(orange[strong], (filter_ > 0)[strong])


def test_learning_curves_are_those_of_the_last_fit(model, page, section):
    assert section["history"]["loss"] == pytest.approx(
        model.history.history["loss"], rel=1e-5
    )
    curves = page.json["charts"]["curves"]
    assert {"loss", "l0", "explained_variance"} <= set(curves)


def test_curves_fit_the_epochs_after_the_first_tenth(model, tmp_path):
    logs = {
        "loss": [1000.0, *np.linspace(3, 2, 9)],
        "l0": [64, *np.geomspace(50, 1, 9)],
    }
    path = report.write_report(model, X, tmp_path / "a.html", history=logs)
    curves = Page(path).json["charts"]["curves"]
    loss, l0 = (
        next(iter(Document.from_json(curves[name]["doc"]).select({"type": Plot})))
        for name in ("loss", "l0")
    )
    assert (loss.y_range.start, loss.y_range.end) == pytest.approx((1.95, 3.05))
    assert loss.title.text == "total loss"
    assert type(l0.y_scale).__name__ == "LogScale"
    styles = {g.data_source.name: g.glyph.line_dash for g in loss.renderers[1::2]}
    assert styles == {"training": [6], "validation": []}


def test_history_can_be_given_or_absent(model, tmp_path):
    logs = {"loss": [2.0, 1.0], "val_loss": [float("nan"), 1.5], "learning_rate": [1]}
    for history in (logs, {"a": logs}):
        page = Page(
            report.write_report({"a": model}, X, tmp_path / "a.html", history=history)
        )
        assert page.json["data"]["models"][0]["history"]["val_loss"] == [None, 1.5]
        assert list(page.json["charts"]["curves"]) == ["loss"]
    untrained = models.shallow((4, 4, 1), 3)
    path = report.write_report(untrained, X, tmp_path / "b.html")
    assert 'id="learning"' not in path.read_text(encoding="utf-8")


def test_table_has_means_and_a_pareto_front(model, tmp_path):
    table = pd.DataFrame(
        {
            "model": ["a", "a", "<b>", "c"],
            "seed": [0, 1, 0, 0],
            "reconstruction": [1.0, 3.0, 4.0, 5.0],
            "l0": [3.0, 5.0, 2.0, np.nan],
            "effective_l0": [2.0, 4.0, 1.5, 1.0],
            "expected_l0": [np.nan, np.nan, np.nan, 0.5],
        }
    )
    page = Page(report.write_report(model, X, tmp_path / "page.html", table=table))
    cells = [a["data-value"] for _, a in page.tags if "data-value" in a]
    assert cells == [
        *("a", "2.0", "4.0", "3.0", ""),
        *("<b>", "4.0", "2.0", "1.5", ""),
        *("c", "5.0", "", "1.0", "0.5"),
    ]
    assert "&lt;b&gt;" in page.text
    assert "2.00000 ± 1.41421" in page.text
    plot = Document.from_json(page.json["charts"]["charts"]["pareto"]["doc"])
    renderers = plot.select({"type": GlyphRenderer})
    (front,) = [r.data_source.data for r in renderers if isinstance(r.glyph, Step)]
    np.testing.assert_array_equal(front["x"], [1.0, 1.5, 2.0])
    np.testing.assert_array_equal(front["y"], [5.0, 4.0, 1.0])


def test_table_without_errors_has_no_pareto_front(model, tmp_path):
    table = pd.DataFrame({"model": ["a"], "l0": [3.0]})
    page = Page(report.write_report(model, X, tmp_path / "page.html", table=table))
    assert set(page.json["charts"]["charts"]) == {"histogram", "activations"}
    assert ("table", {"id": "table"}) in page.tags


@pytest.mark.parametrize(
    "shape", [(16,), (300,), (6, 2), (8, 2), (4, 4, 3), (2, 2, 2, 2)]
)
def test_any_sample_shape_can_be_shown(shape, tmp_path):
    x = RNG.random((9, *shape), dtype="float32") - 0.5
    model = models.shallow(shape, 5, "l1")
    page = Page(report.write_report(model, (x, None), tmp_path / "p.html"))
    assert page.json["data"]["labels"] is None
    # Vectors and series are strips in two colors with opacity.
    strips = [(16,), (300,), (8, 2), (2, 2, 2, 2)]
    channels = 4 if shape in strips else (3 if 3 in shape else 1)
    assert page.sheet("inputs").ndim == 2 + (channels > 1)
    assert channels == 1 or page.sheet("inputs").shape[-1] == channels


def test_codes_may_be_negative_and_units_may_be_dead(tmp_path):
    variational = models.variational((4, 4, 1), 8, latent_dim=3)
    dead = models.shallow((4, 4, 1), 4)
    dead.sparse_layers[0].bias.assign(-100 * np.ones(4))
    named = {"variational": variational, "dead": dead}
    path = report.write_report(named, (X, Y), tmp_path / "page.html")
    first, second = Page(path).json["data"]["models"]
    codes = variational.encode(X)
    low = np.minimum(codes.min(axis=0), 0)
    np.testing.assert_allclose(first["units"]["low"], low, rtol=1e-5)
    assert [sum(counts) for counts in first["units"]["counts"]] == [40] * 3
    assert second["units"]["rate"] == [0.0] * 4
    assert np.sum(second["units"]["counts"]) == 0


def test_streams_and_tables_give_the_page_of_arrays(tmp_path):
    """The labels may also be one column, as those of `keras.datasets`."""
    import tensorflow as tf

    model, flat, y = (
        models.shallow((16,), 5, "l1"),
        X.reshape(40, 16),
        np.arange(40) % 2,
    )
    stream = tf.data.Dataset.from_tensor_slices((flat, y)).batch(16)
    table = pd.DataFrame(flat, columns=[f"pixel {n}" for n in range(16)])
    given = [(flat, y), stream, (table, pd.Series(y)), (flat, y[:, None])]
    pages = [Page(report.write_report(model, d, tmp_path / "p.html")) for d in given]
    for page in pages[1:]:
        assert page.json["data"] == pages[0].json["data"]
    pairs = tf.data.Dataset.from_tensor_slices((flat, flat)).batch(16)
    page = Page(report.write_report(model, pairs, tmp_path / "p.html"))
    assert page.json["data"]["labels"] is None


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (((X, Y), (X, Y)), "two pairs"),
        ((X, Y[:3]), "one label per sample"),
        (X[:, :2], "shape"),
    ],
)
def test_bad_data_is_rejected_before_a_file_is_written(model, data, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        report.write_report(model, data, tmp_path / "page.html")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": {}}, "at least one model"),
        ({"samples": 0}, "`samples` must be a positive integer"),
        (
            {"table": pd.DataFrame({"l0": [1], "reconstruction": [2]})},
            "must have the column 'model'",
        ),
    ],
)
def test_bad_settings_are_rejected(model, settings, message, tmp_path):
    settings = {"model": model, "data": X, "path": tmp_path / "page.html"} | settings
    with pytest.raises(ValueError, match=message):
        report.write_report(**settings)


@pytest.mark.parametrize("values", [1, 2**24])
def test_wide_codes_show_the_units_of_largest_mean(values, tmp_path, monkeypatch):
    monkeypatch.setattr(sections, "_MAX_UNITS", 5)
    monkeypatch.setattr(sections, "_VALUES", values)
    keras.utils.set_random_seed(0)
    model = models.shallow((4, 4, 1), 30, layers.TopK(3))
    path = report.write_report(model, (X, Y), tmp_path / "page.html", samples=10)
    page = Page(path)
    section = page.json["data"]["models"][0]
    codes = model.encode(X)
    shown = np.sort(np.argsort(-codes.mean(axis=0), kind="stable")[:5])
    assert section["shown"] == shown.tolist()
    assert section["total"] == 30
    units = section["units"]
    np.testing.assert_allclose(units["mean"], codes[:, shown].mean(axis=0), rtol=1e-5)
    assert np.shape(units["counts"])[0] == np.shape(units["classes"])[0] == 5
    samples = section["samples"]
    assert section["active"] == (codes[samples] > 0).sum(axis=1).tolist()
    drawn = np.frombuffer(base64.b64decode(section["codes"]), "<f4").reshape(-1, 5)
    np.testing.assert_allclose(drawn, codes[samples][:, shown], rtol=1e-5, atol=1e-6)


def test_peaks_of_units_with_positions():
    codes = np.where(RNG.random((7, 2, 3, 4)) < 0.3, RNG.random((7, 2, 3, 4)), 0)
    expected = codes.max(axis=(1, 2))
    for given in (codes, sparse.csr_array(codes.reshape(7, -1))):
        found = sections.unit_peaks(given, 4)
        np.testing.assert_array_equal(found.toarray(), expected)
