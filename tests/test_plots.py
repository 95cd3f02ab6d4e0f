"""Plots draw the right values and leave pyplot alone."""

import io

import keras
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from keras_sae import models, plots
from keras_sae.plots.figure import BASE

X = np.random.default_rng(0).random((9, 4, 4, 1), dtype="float32")
# Sheets are drawn with tiles of 4x4 pixels enlarged to 128, and gaps of 16 pixels.
TILE, PITCH = 128, 144


@pytest.fixture(scope="module")
def model():
    return models.shallow((4, 4, 1), 8, "l1")


@pytest.fixture(scope="module")
def variational():
    return models.variational((4, 4, 1), 8, latent_dim=2)


@pytest.fixture
def draw(tmp_path):
    """Save a figure, and check that nothing is clipped."""

    def drawn(figure):
        figure.savefig(tmp_path / "figure.png")
        assert not plt.get_fignums()
        drawn_box, page = figure.get_tightbbox(), figure.bbox_inches
        assert np.all(drawn_box.min >= page.min)
        assert np.all(drawn_box.max <= page.max)
        return figure

    return drawn


def tiles(axes):
    """Return the images of a sheet by row and column, 4x4 pixels each."""
    sheet = np.asarray(axes.images[0].get_array())
    return np.array(
        [
            [
                sheet[y : y + TILE : TILE // 4, x : x + TILE : TILE // 4]
                for x in range(0, sheet.shape[1], PITCH)
            ]
            for y in range(0, sheet.shape[0], PITCH)
        ]
    )


def test_figure_is_shown_in_notebooks_without_pyplot(model):
    png = plots.filters(model, count=6)._repr_png_()
    height, width = plt.imread(io.BytesIO(png), format="png").shape[:2]
    assert width > 2 * height > 100


def colors(filters):
    """Return filters as pixels on one scale: orange, blue, and nearly white."""
    share = filters[..., None] / np.percentile(np.abs(filters), 99.5)
    share = np.clip(share, -1, 1)
    full = np.where(share > 0, (217, 119, 6), (59, 130, 246)) / 255
    return 0.95 * (1 - np.abs(share)) + np.abs(share) * full


def test_filters_are_rows_of_the_dictionary_on_one_scale(model, draw):
    figure = draw(plots.filters(model, count=6, columns=3))
    dictionary = keras.ops.convert_to_numpy(model.decoder.layers[1].kernel)
    expected = colors(dictionary[:6].reshape(2, 3, 4, 4))
    np.testing.assert_allclose(tiles(figure.axes[0]), expected, atol=1e-4)
    assert figure.axes[0].get_title("left") == "shallow: units 0 to 5 of 8"


def test_filters_of_several_models_are_drawn_in_blocks(model, variational, draw):
    figure = draw(plots.filters({"a": model, "b": variational}))
    titles = [axes.get_title("left") for axes in figure.axes]
    assert titles == ["a: all 8 units", "b: all 2 units"]
    white = tiles(figure.axes[1])[0, 2:]
    assert (white == 1).all(), "places without a unit are empty"


def test_units_that_are_most_active_come_first(model, draw):
    alive = keras.models.clone_model(model)
    alive.set_weights(model.get_weights())
    bias = np.zeros(8, "float32")
    bias[[1, 4]] = -100.0  # units that never fire
    alive.sparse_layers[0].bias.assign(bias)
    dictionary, codes = alive.dictionary().reshape(8, 16), alive.encode(X)
    activity = [
        np.mean([abs(h - np.median(codes[:, j])) for h in codes[:, j]])
        * np.sqrt((dictionary[j] ** 2).sum())
        for j in range(8)
    ]
    order = sorted(range(8), key=lambda j: -activity[j])
    for count, title in ((3, "the 3 most active of 8 units"), (16, None)):
        drawn = sum(a > 0 for a in activity[:8]) if title is None else count
        figure = draw(plots.filters(alive, count=count, x=X))
        title = title or f"{drawn} of 8 units are active"
        assert figure.axes[0].get_title("left") == f"shallow: {title}"
        expected = colors(dictionary[order[:drawn]].reshape(1, drawn, 4, 4))
        np.testing.assert_allclose(tiles(figure.axes[0]), expected, atol=1e-4)
    assert not {1, 4} & set(order[:drawn])


def test_code_without_active_units_can_be_drawn(draw):
    model = models.shallow((4, 4, 1), 3)
    model.sparse_layers[0].bias.assign(-100 * np.ones(3))
    figure = draw(plots.filters(model, x=X))
    assert figure.axes[0].get_title("left") == "shallow: 0 of 3 units are active"
    assert tiles(figure.axes[0]).shape[:2] == (1, 3)


def test_reconstructions_are_below_their_inputs(model, draw):
    name = "stacked, greedy, with a Wide MM name"
    figure = draw(plots.reconstructions({name: model}, X, count=3))
    expected = np.stack([X[:3], model.predict(X[:3], verbose=0)])[..., 0]
    low, high = X[:3].min(), X[:3].max()
    expected = np.clip((expected - low) / (high - low), 0, 1)
    np.testing.assert_allclose(tiles(figure.axes[0]), expected, atol=1e-5)
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["input", name]
    notes = [text.get_text() for text in figure.axes[0].texts]
    error = ((X[:3] - model.predict(X[:3], verbose=0)) ** 2).mean()
    assert notes[0] == "mean squared error"
    assert float(notes[1]) == pytest.approx(error, rel=5e-3)
    endless = tf.data.Dataset.from_tensor_slices(X[:4]).batch(2).repeat()
    figure = draw(plots.reconstructions({name: model}, endless, count=3))
    np.testing.assert_allclose(tiles(figure.axes[0]), expected, atol=1e-5)


def curves(line, count):
    """Return the values of a line of `count` curves, in the units of its rows."""
    return line.get_ydata().reshape(count, -1)[:, :-1]


def test_vectors_and_series_are_drawn_as_curves(draw):
    x = np.random.default_rng(0).normal(size=(3, 40, 2)).astype("float32")
    model = models.shallow((40, 2), 5)
    figure = draw(plots.reconstructions(model, x))
    gray, _, blue, _ = figure.axes[0].lines
    low, high = x.min(), x.max()
    inputs = (x[..., 0] - low) / (high - low)
    np.testing.assert_allclose(curves(gray, 6)[:3], 0.9 - 0.8 * inputs, atol=1e-5)
    np.testing.assert_allclose(curves(gray, 6)[3:], 1.9 - 0.8 * inputs, atol=1e-5)
    outputs = (model.predict(x, verbose=0)[..., 0] - low) / (high - low)
    assert np.isnan(curves(blue, 6)[:3]).all(), "the first row has only the inputs"
    expected = 1.9 - 0.8 * np.clip(outputs, 0, 1)
    np.testing.assert_allclose(curves(blue, 6)[3:], expected, atol=1e-5)


def test_short_vectors_are_drawn_as_steps_around_zero(draw):
    model = models.shallow((6,), 5)
    zero, line = draw(plots.filters(model)).axes[0].lines
    dictionary = model.dictionary()
    share = np.clip(dictionary / np.percentile(np.abs(dictionary), 99.5), -1, 1)
    expected = 0.5 - 0.4 * share.repeat(2, axis=1)
    np.testing.assert_allclose(curves(line, 5), expected, atol=1e-5)
    assert set(curves(zero, 5).ravel()) == {0.5}


def test_samples_with_several_leading_axes_are_drawn_one_by_one(draw):
    x = np.random.default_rng(0).normal(size=(4, 5, 6)).astype("float32")
    model = models.shallow((6,), 7)
    flat = x.reshape(20, 6)
    for plot in (
        lambda x: plots.reconstructions(model, x, count=8),
        lambda x: plots.filters(model, x=x),
    ):
        drawn, expected = (draw(plot(data)).axes[0].lines[-1] for data in (x, flat))
        np.testing.assert_array_equal(drawn.get_ydata(), expected.get_ydata())


@pytest.mark.parametrize(
    "shape", [(1,), (7,), (64,), (4, 4), (9, 2), (4, 4, 3), (4, 4, 2), (2, 2, 2, 2)]
)
def test_any_sample_shape_can_be_drawn(shape, draw):
    model = models.shallow(shape, 3)
    x = np.random.default_rng(0).random((2, *shape), dtype="float32")
    draw(plots.filters(model))
    draw(plots.reconstructions(model, x))


def test_activations_exclude_zeros_from_the_histogram(draw):
    codes = np.array([[0.0, 1.0], [0.0, 3.0], [2.0, 0.0]])
    figure = draw(plots.activations(codes, target=0.5))
    left, right = figure.axes
    assert left.patches[0].get_data().values.sum() == 3
    assert "50%" in left.get_title()
    assert "2 of 2 units are active" in right.get_title()
    np.testing.assert_allclose(right.patches[0].get_data().values, [4 / 3, 2 / 3])
    assert right.lines[0].get_ydata()[0] == 0.5


def test_code_of_zeros_can_be_drawn(draw):
    draw(plots.activations(np.zeros((3, 4))))


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_history_draws_training_dashed_and_validation_solid(draw):
    logs = {"val_loss": [3.0, 2.0], "l0": [5.0, 4.0], "loss": [2.0, 1.0]}
    figure = draw(plots.history({"a": logs | {"learning_rate": [1, 1]}}))
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["total loss", "active units per sample (L0)"]
    training, validation = figure.axes[0].lines
    np.testing.assert_array_equal(training.get_ydata(), [2.0, 1.0])
    np.testing.assert_array_equal(validation.get_ydata(), [3.0, 2.0])
    assert (training.get_linestyle(), validation.get_linestyle()) == ("--", "-")
    assert legend(figure) == ["training", "validation", "a"]


def test_history_accepts_what_fit_returns():
    fitted = keras.callbacks.History()
    fitted.history = {"loss": [2.0, 1.0]}
    assert legend(plots.history(fitted)) == ["training"]
    assert legend(plots.history({"a": fitted})) == ["training", "a"]
    with pytest.raises(ValueError, match="at least one epoch"):
        plots.history({})


def test_axis_fits_the_epochs_after_the_first_tenth():
    values = [1000.0, 500.0, *np.linspace(3, 2, 18)]
    [axes] = plots.history({"loss": values}).axes
    np.testing.assert_allclose(axes.get_ylim(), [1.95, 3.05])
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), values)
    [axes] = plots.history({"loss": [9.0, 1.0, 0.1, 0.01, np.nan]}).axes
    assert axes.get_yscale() == "log"
    assert axes.get_ylim()[0] < 0.01 < 1.0 < axes.get_ylim()[1] < 9.0
    [axes] = plots.history({"loss": [2.0, 1.0]}).axes
    np.testing.assert_allclose(axes.get_ylim(), [0.95, 2.05])


@pytest.mark.parametrize("panels", [1, 2, 3])
def test_long_legend_does_not_cover_the_panels(panels, draw):
    logs = {f"metric {i}": [2.0, 1.0] for i in range(panels)}
    logs |= {f"val_{name}": values for name, values in logs.items()}
    names = [f"a long name, stacked, greedy {i}" for i in range(4)]
    figure = draw(plots.history(dict.fromkeys(names, logs)))
    box = figure.legends[0].get_window_extent()
    width, height = figure.bbox.size
    assert legend(figure) == ["training", "validation", *names]
    assert box.x0 >= 0
    assert box.x1 <= width
    assert max(axes.get_window_extent().y1 for axes in figure.axes) < box.y0
    assert min(axes.get_window_extent().height for axes in figure.axes) > height / 5
    colors = {line.get_color() for line in figure.axes[0].lines}
    assert len(colors) == 4


def test_more_than_four_models_have_a_panel_each(draw):
    logs = {
        f"model {i}": {"loss": [2.0 + i, 1.0], "val_loss": [9, 8]} for i in range(7)
    }
    logs["model 2"]["l0"] = [3.0, 2.0]
    figure = draw(plots.history(logs))
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == [*logs, "model 2"]
    for i, axes in enumerate(figure.axes[:7]):
        front = [line for line in axes.lines if line.get_color() == BASE]
        assert [line.get_ydata()[0] for line in front] == [2.0 + i, 9.0]
        assert len(axes.lines) == 8, "the others show only their validation"
    assert figure.axes[0].get_ylim() == figure.axes[6].get_ylim()
    assert figure.axes[0].get_ylabel() == "total loss"
    assert legend(figure) == ["training", "validation", "other models"]


def test_pareto_draws_the_front(draw):
    table = pd.DataFrame(
        {
            "model": ["a", "b", "c", "d"],
            "l0": [1.0, 2.0, 3.0, 2.5],
            "reconstruction": [3.0, 1.0, 0.5, 2.0],
        }
    )
    front = draw(plots.pareto(table)).axes[0].lines[0]
    np.testing.assert_array_equal(front.get_xdata(), [1.0, 2.0, 3.0])
    np.testing.assert_array_equal(front.get_ydata(), [3.0, 1.0, 0.5])


def test_pareto_uses_effective_l0_if_a_code_is_never_zero(draw):
    table = pd.DataFrame(
        {
            "l0": [8.0, 2.0],
            "units": [8.0, 8.0],
            "effective_l0": [5.0, 1.5],
            "expected_l0": [1.0, np.nan],
            "reconstruction": [0.2, 3.0],
        }
    )
    before = table.copy()
    axes = draw(plots.pareto(table)).axes[0]
    assert axes.get_xlabel() == "effective number of active units per sample"
    np.testing.assert_array_equal(axes.lines[0].get_xdata(), [1.5, 5.0])
    pd.testing.assert_frame_equal(table, before)
    sparse = draw(plots.pareto(table[1:])).axes[0]
    assert sparse.get_xlabel() == "active units per sample (L0)"
    np.testing.assert_array_equal(sparse.lines[0].get_xdata(), [2.0])


def test_names_of_many_models_do_not_overlap(draw):
    rng = np.random.default_rng(0)
    count = 15
    table = pd.DataFrame(
        {
            "model": [f"a model {i}" for i in range(count)] * 2,
            "l0": np.geomspace(1, 400, 2 * count),
            "reconstruction": rng.uniform(0, 1, 2 * count),
        }
    )
    axes = draw(plots.pareto(table)).axes[0]
    assert axes.get_xscale() == "log"
    assert sorted(text.get_text() for text in axes.texts) == sorted(set(table["model"]))
    boxes = [text.get_window_extent() for text in axes.texts]
    for i, box in enumerate(boxes):
        assert not box.count_overlaps(boxes[:i])
    pairs = {
        (tuple(c.get_facecolor()[0]), c.get_paths()[0].vertices.tobytes())
        for c in axes.collections
    }
    assert len(axes.collections) == count
    assert len(pairs) == count, "color and marker tell all models apart"
    for text in axes.texts:
        own = table[table["model"] == text.get_text()]
        assert tuple(text.xy) in set(zip(own["l0"], own["reconstruction"], strict=True))


def test_pareto_names_the_missing_column():
    with pytest.raises(ValueError, match="missing: reconstruction"):
        plots.pareto(pd.DataFrame({"l0": [1.0]}))


def test_outlier_among_samples_does_not_change_the_scale_of_others(
    variational, draw, monkeypatch
):
    usual = np.linspace(0, 1, 16).reshape(1, 4, 4, 1)
    images = np.concatenate([usual, 50 * usual - 20])
    monkeypatch.setattr(variational, "sample", lambda count, seed: images[:count])
    figure = draw(plots.samples(variational, count=2))
    low, high = np.percentile(usual, (2, 98))
    expected = np.clip((usual[0, ..., 0] - low) / (high - low), 0, 1)
    for image in tiles(figure.axes[0])[0]:
        np.testing.assert_allclose(image, expected, atol=1e-6)


def test_latent_plane_decodes_a_grid_with_the_origin_at_its_center(variational, draw):
    figure = draw(plots.latent_plane(variational, X, steps=3, reach=1.0))
    # Dimension 0 increases upwards, dimension 1 to the right.
    codes = np.array([[[up, right] for right in (-1, 0, 1)] for up in (1, 0, -1)])
    images = variational.decode(codes.reshape(9, 2).astype("float32"))[..., 0]
    low, high = np.percentile(images, (2, 98), axis=(1, 2), keepdims=True)
    spread = np.where(high > low, high - low, 1.0)  # a code of zeros decodes to zeros
    expected = np.clip((images - low) / spread, 0, 1).reshape(3, 3, 4, 4)
    np.testing.assert_allclose(tiles(figure.axes[0]), expected, atol=1e-4)


def images(figure):
    return np.asarray(figure.axes[0].images[0].get_array())


def test_streams_and_tables_are_drawn_like_arrays(model, variational):
    import tensorflow as tf

    stream = tf.data.Dataset.from_tensor_slices(X).batch(4)
    drawn = images(plots.reconstructions(model, stream, count=6))
    np.testing.assert_array_equal(drawn, images(plots.reconstructions(model, X[:6])))
    drawn = images(plots.latent_plane(variational, stream, steps=3))
    expected = images(plots.latent_plane(variational, X, steps=3))
    np.testing.assert_allclose(drawn, expected, atol=1e-5)
    flat, vectors = X.reshape(9, 16), models.shallow((16,), 5)
    drawn, expected = (
        plots.reconstructions(vectors, data).axes[0].lines[-1].get_ydata()
        for data in (pd.DataFrame(flat), flat)
    )
    np.testing.assert_array_equal(drawn, expected)


def test_samples_and_latent_plane_reject_models_without_them(model):
    with pytest.raises(ValueError, match="must be a variational model"):
        plots.samples(model)
    narrow = models.variational((4, 4, 1), 8, latent_dim=1)
    with pytest.raises(ValueError, match="at least two dimensions"):
        plots.latent_plane(narrow, X)
