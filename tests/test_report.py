"""The page's numbers and pictures, read back from the file, against NumPy's."""

import base64
import html.parser
import io
import json
import re

import numpy as np
import pandas as pd
import pytest
from bokeh.document import Document
from bokeh.models import GlyphRenderer, Step
from PIL import Image

from keras_sae import evaluation, models, report
from keras_sae.report import _pictures

RNG = np.random.default_rng(0)
X = RNG.random((40, 4, 4, 1), dtype="float32")
Y = np.array(["cat", "dog"])[np.arange(40) % 2]


@pytest.fixture(scope="module")
def model():
    made = models.shallow((4, 4, 1), 12, "l1")
    made.compile("adam")
    made.fit(X, epochs=2, batch_size=8, verbose=0)
    return made


class _Page(html.parser.HTMLParser):
    """What the tests read of a page: its elements, and the JSON in its scripts."""

    def __init__(self, text):
        super().__init__()
        self.text, self.tags, self.json, self._id = text, [], {}, None
        self.feed(text)

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
    return _Page(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def shown(page):
    return page.json["data"]["models"][0]


def test_nothing_is_loaded_from_elsewhere(page):
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


def test_figures_are_those_of_the_evaluation(model, shown):
    figures = evaluation.evaluate(model, X, Y)
    cards = {card["key"]: card["text"] for card in shown["figures"]}
    assert set(cards) == set(figures)
    assert cards["reconstruction"] == f"{figures['reconstruction']:.5f}"
    assert cards["l0"] == f"{figures['l0']:.1f}"
    assert cards["probe_accuracy"] == f"{100 * figures['probe_accuracy']:.1f}%"


def test_units_are_numpys(model, shown):
    codes = model.encode(X)
    units = shown["units"]
    np.testing.assert_allclose(units["fires"], (codes > 0).mean(axis=0), rtol=1e-5)
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


def test_histograms_count_between_zero_and_the_peak(model, shown):
    codes = model.encode(X)
    unit = int(codes.mean(axis=0).argmax())
    bins = len(shown["units"]["counts"][unit])
    width = codes[:, unit].max() / bins
    places = np.minimum(codes[:, unit][codes[:, unit] > 0] // width, bins - 1)
    expected = np.bincount(places.astype(int), minlength=bins)
    # a value on the border of two bins may fall to either
    assert np.abs(expected - shown["units"]["counts"][unit]).sum() <= 2


def test_classes_are_those_with_the_greatest_share(model, page, shown):
    assert page.json["data"]["classes"] == ["cat", "dog"]
    codes = model.encode(X)
    cats, dogs = codes[0::2].mean(axis=0), codes[1::2].mean(axis=0)
    for unit in np.flatnonzero(cats + dogs > 0):
        order = [0, 1] if cats[unit] >= dogs[unit] else [1, 0]
        assert shown["units"]["classes"][unit] == order
        share = max(cats[unit], dogs[unit]) / (cats[unit] + dogs[unit])
        assert shown["units"]["shares"][unit][0] == pytest.approx(share, rel=1e-4)


def test_the_worst_and_the_best(model, shown):
    errors = ((X - model.predict(X, verbose=0)) ** 2).mean(axis=(1, 2, 3))
    order = sorted(range(40), key=lambda i: errors[i])
    assert shown["best"] == order[:8]
    assert shown["worst"] == order[::-1][:8]
    np.testing.assert_allclose(shown["errors"], errors[shown["samples"]], rtol=1e-4)


def test_codes_of_samples_can_be_read_back(model, page, shown):
    raw = np.frombuffer(base64.b64decode(shown["codes"]), "<f4")
    expected = model.encode(X)[shown["samples"]]
    np.testing.assert_allclose(raw.reshape(expected.shape), expected, atol=1e-6)
    assert set(shown["samples"]) <= set(page.json["data"]["inputs"])


def test_pictures_of_inputs_keep_their_order(page):
    sheet = page.sheet("inputs")
    ids = page.json["data"]["inputs"]
    columns = sheet.shape[1] // 4
    low, high = np.percentile(X, (0.5, 99.5))
    for tile, sample in enumerate(ids):
        row, column = 4 * (tile // columns), 4 * (tile % columns)
        found = sheet[row : row + 4, column : column + 4]
        expected = 255 * np.clip((X[sample, :, :, 0] - low) / (high - low), 0, 1)
        np.testing.assert_allclose(found, expected, atol=0.51)


def test_filters_show_sign_and_strength(model, page):
    atoms = np.asarray(model.decoder.layers[1].kernel).reshape(12, 4, 4)
    tile = page.sheet("atoms-0")[:4, :4].astype(int)
    expected = 255 * np.abs(atoms[0]) / np.abs(atoms[0]).max()
    np.testing.assert_allclose(tile[..., 3], expected, atol=1.0)
    strong = expected > 5
    orange = tile[..., 0] > tile[..., 2]
    np.testing.assert_array_equal(orange[strong], (atoms[0] > 0)[strong])


def test_learning_curves_are_the_last_fit(model, page, shown):
    assert shown["history"]["loss"] == pytest.approx(
        model.history.history["loss"], rel=1e-5
    )
    curves = page.json["charts"]["curves"]
    assert {"loss", "l0", "explained_variance"} <= set(curves)


def test_history_may_be_given_and_may_be_missing(model, tmp_path):
    logs = {"loss": [2.0, 1.0], "val_loss": [float("nan"), 1.5], "learning_rate": [1]}
    path = report.write_report(
        {"a": model}, X, tmp_path / "a.html", history={"a": logs}
    )
    page = _Page(path.read_text(encoding="utf-8"))
    assert page.json["data"]["models"][0]["history"]["val_loss"] == [None, 1.5]
    assert list(page.json["charts"]["curves"]) == ["loss"]
    fresh = models.shallow((4, 4, 1), 3)
    path = report.write_report(fresh, X, tmp_path / "b.html")
    assert 'id="learning"' not in path.read_text(encoding="utf-8")


def test_the_table_and_its_front(model, tmp_path):
    table = pd.DataFrame(
        {
            "model": ["a", "a", "<b>", "c"],
            "seed": [0, 1, 0, 0],
            "reconstruction": [1.0, 3.0, 4.0, 5.0],
            "l0": [3.0, 5.0, 2.0, np.nan],
            "expected_l0": [np.nan, np.nan, np.nan, 1.0],
        }
    )
    path = report.write_report(model, X, tmp_path / "page.html", table=table)
    page = _Page(path.read_text(encoding="utf-8"))
    cells = [a["data-value"] for _, a in page.tags if "data-value" in a]
    assert cells == [
        "a",
        "2.0",
        "4.0",
        "",
        "<b>",
        "4.0",
        "2.0",
        "",
        "c",
        "5.0",
        "",
        "1.0",
    ]
    assert "&lt;b&gt;" in page.text
    assert "2.00000 ± 1.41421" in page.text
    plot = Document.from_json(page.json["charts"]["charts"]["pareto"]["doc"])
    renderers = plot.select({"type": GlyphRenderer})
    (front,) = [r.data_source.data for r in renderers if isinstance(r.glyph, Step)]
    np.testing.assert_array_equal(front["x"], [1.0, 2.0, 3.0])
    np.testing.assert_array_equal(front["y"], [5.0, 4.0, 1.0])


@pytest.mark.parametrize("shape", [(16,), (300,), (6, 2), (4, 4, 3), (2, 2, 2, 2)])
def test_any_sample_shape(shape, tmp_path):
    x = RNG.random((9, *shape), dtype="float32") - 0.5
    path = report.write_report(
        models.shallow(shape, 5, "l1"), (x, None), tmp_path / "p.html"
    )
    page = _Page(path.read_text(encoding="utf-8"))
    assert page.json["data"]["labels"] is None
    assert page.sheet("inputs").ndim in (2, 3)


def test_codes_of_either_sign_and_units_that_never_fire(tmp_path):
    variational = models.variational((4, 4, 1), 8, latent_dim=3)
    silent = models.shallow((4, 4, 1), 4)
    silent.sparse_layers[0].bias.assign(-100 * np.ones(4))
    named = {"variational": variational, "silent": silent}
    path = report.write_report(named, (X, Y), tmp_path / "page.html")
    both = _Page(path.read_text(encoding="utf-8")).json["data"]["models"]
    codes = variational.encode(X)
    low = np.minimum(codes.min(axis=0), 0)
    np.testing.assert_allclose(both[0]["units"]["low"], low, rtol=1e-5)
    assert [sum(c) for c in both[0]["units"]["counts"]] == [40] * 3
    assert both[1]["units"]["fires"] == [0.0] * 4
    assert np.sum(both[1]["units"]["counts"]) == 0


def test_large_pictures_are_averaged_down():
    image = np.kron(np.arange(4.0).reshape(2, 2), np.ones((48, 48)))[None]
    small = _pictures._images(image)
    assert small.shape == (1, 48, 48)
    np.testing.assert_array_equal(small[0, ::24, ::24], [[0, 1], [2, 3]])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (((X, Y), (X, Y)), "pass one part"),
        ((X, Y[:3]), "one label a sample"),
        (X[:, :2], "shape"),
    ],
)
def test_bad_data_and_no_file(model, data, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        report.write_report(model, data, tmp_path / "page.html")
    assert not list(tmp_path.iterdir())


def test_bad_settings(model, tmp_path):
    with pytest.raises(ValueError, match="holds no model"):
        report.write_report({}, X, tmp_path / "page.html")
    with pytest.raises(ValueError, match="`samples` must be a positive integer"):
        report.write_report(model, X, tmp_path / "page.html", samples=0)
    with pytest.raises(ValueError, match="must have the column 'model'"):
        report.write_report(
            model, X, tmp_path / "page.html", table=pd.DataFrame({"l0": [1]})
        )
