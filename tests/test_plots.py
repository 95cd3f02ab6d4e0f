"""Plots draw the right values and leave pyplot alone."""

import io

import keras
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from keras_sae import models, plots
from keras_sae.plots.figure import COLORS

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
    assert width > 3 * height > 100


def test_filters_are_rows_of_the_dictionary_on_their_own_scale(model, draw):
    figure = draw(plots.filters(model, count=6, columns=3))
    dictionary = keras.ops.convert_to_numpy(model.decoder.layers[1].kernel)
    expected = dictionary[:6].reshape(2, 3, 4, 4)
    expected = 0.5 + 0.5 * expected / np.abs(expected).max(axis=(2, 3), keepdims=True)
    np.testing.assert_allclose(tiles(figure.axes[0]), expected, atol=1e-4)


def test_filters_of_several_models_are_drawn_in_blocks(model, variational, draw):
    figure = draw(plots.filters({"a": model, "b": variational}))
    titles = [axes.get_title("left") for axes in figure.axes]
    assert titles == ["Filters of a", "Filters of b"]
    white = tiles(figure.axes[1])[0, 2:]
    assert (white == 1).all(), "places without a unit are empty"


def test_reconstructions_are_below_their_inputs(model, draw):
    name = "stacked, greedy, with a Wide MM name"
    figure = draw(plots.reconstructions({name: model}, X, count=3))
    expected = np.stack([X[:3], model.predict(X[:3], verbose=0)])[..., 0]
    low, high = X[:3].min(), X[:3].max()
    expected = np.clip((expected - low) / (high - low), 0, 1)
    np.testing.assert_allclose(tiles(figure.axes[0]), expected, atol=1e-5)
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["input", name]
    endless = tf.data.Dataset.from_tensor_slices(X[:4]).batch(2).repeat()
    figure = draw(plots.reconstructions({name: model}, endless, count=3))
    np.testing.assert_allclose(tiles(figure.axes[0]), expected, atol=1e-5)


@pytest.mark.parametrize("shape", [(7,), (64,), (4, 4), (4, 4, 3), (4, 4, 2)])
def test_any_sample_shape_can_be_drawn(shape, draw):
    model = models.shallow(shape, 3)
    x = np.random.default_rng(0).random((2, *shape), dtype="float32")
    draw(plots.filters(model))
    draw(plots.reconstructions(model, x))


def test_activations_exclude_zeros_from_the_histogram(draw):
    codes = np.array([[0.0, 1.0], [0.0, 3.0], [2.0, 0.0]])
    figure = draw(plots.activations(codes, target=0.5))
    left, right = figure.axes
    assert sum(bar.get_height() for bar in left.patches) == 3
    assert "50%" in left.get_title()
    heights = [bar.get_height() for bar in right.patches]
    np.testing.assert_allclose(heights, [4 / 3, 2 / 3])
    assert right.lines[0].get_ydata()[0] == 0.5


def test_code_of_zeros_can_be_drawn(draw):
    draw(plots.activations(np.zeros((3, 4))))


def test_history_draws_training_and_validation_in_one_panel(draw):
    logs = {"loss": [2.0, 1.0], "val_loss": [3.0, 2.0], "expected_l0": [5.0, 4.0]}
    figure = draw(plots.history({"a": logs}))
    assert [axes.get_title() for axes in figure.axes] == ["loss", "expected L0"]
    training, validation = figure.axes[0].lines
    np.testing.assert_array_equal(training.get_ydata(), [2.0, 1.0])
    np.testing.assert_array_equal(validation.get_ydata(), [3.0, 2.0])


def test_history_accepts_what_fit_returns():
    fitted = keras.callbacks.History()
    fitted.history = {"loss": [2.0, 1.0]}
    for history, label in ((fitted, "training"), ({"a": fitted}, "a (training)")):
        figure = plots.history(history)
        assert [text.get_text() for text in figure.legends[0].get_texts()] == [label]


@pytest.mark.parametrize("panels", [1, 2, 3])
def test_long_legend_does_not_cover_the_panels(panels, draw):
    logs = {f"metric {i}": [2.0, 1.0] for i in range(panels)}
    logs |= {f"val_{name}": values for name, values in logs.items()}
    names = [f"stacked, greedy {i}" for i in range(6)]
    figure = draw(plots.history(dict.fromkeys(names, logs)))
    [legend] = figure.legends
    box = legend.get_window_extent()
    width, height = figure.bbox.size
    assert len(legend.get_texts()) == 12
    assert box.x0 >= 0
    assert box.x1 <= width
    assert min(axes.get_window_extent().y0 for axes in figure.axes) > box.y1
    assert min(axes.get_window_extent().height for axes in figure.axes) > height / 5


def test_twelve_models_have_different_colors():
    logs = {f"model {i}": {"loss": [2.0, 1.0]} for i in range(12)}
    [axes] = plots.history(logs).axes
    colors = {line.get_color() for line in axes.lines}
    assert len(colors) == len(COLORS) == 12


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
    drawn = images(plots.reconstructions(vectors, pd.DataFrame(flat)))
    np.testing.assert_array_equal(drawn, images(plots.reconstructions(vectors, flat)))


def test_samples_and_latent_plane_reject_models_without_them(model):
    with pytest.raises(ValueError, match="must be a variational model"):
        plots.samples(model)
    narrow = models.variational((4, 4, 1), 8, latent_dim=1)
    with pytest.raises(ValueError, match="at least two dimensions"):
        plots.latent_plane(narrow, X)
