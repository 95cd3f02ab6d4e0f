"""Pictures hold what they are said to hold, and touch no global state."""

import io

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from keras_sae import models, plans, plots

X = np.random.default_rng(0).random((9, 4, 4, 1), dtype="float32")


@pytest.fixture(scope="module")
def model():
    return models.shallow((4, 4, 1), 8, "l1")


def _drawn(figure, path):
    """Saves the figure: constrained layout warns there if something is clipped."""
    figure.savefig(path / "figure.png")
    assert not plt.get_fignums()
    return figure


def test_a_notebook_shows_what_is_returned(model):
    png = plots.filters(model, count=6)._repr_png_()
    height, width = plt.imread(io.BytesIO(png), format="png").shape[:2]
    assert width > height > 100


def test_filters_are_the_atoms(model, tmp_path):
    figure = _drawn(plots.filters(model, count=6), tmp_path)
    drawn = [axes.images[0].get_array() for axes in figure.axes if axes.images]
    atoms = np.asarray(model.decoder.layers[1].kernel).reshape(8, 4, 4)
    assert len(drawn) == 6
    for image, atom in zip(drawn, atoms, strict=False):
        # differences of float32 numbers near 0.1, divided by the step of 0.05
        np.testing.assert_allclose(image, atom, atol=1e-5)


def test_filters_of_several_models_stand_in_blocks(model, tmp_path):
    figure = _drawn(plots.filters({"a": model, "b": model}), tmp_path)
    assert len(figure.subfigs) == 2
    assert sum(bool(axes.images) for axes in figure.axes) == 16


def test_reconstructions_show_inputs_first(model, tmp_path):
    figure = _drawn(plots.reconstructions({"L1": model}, X, count=3), tmp_path)
    first = figure.axes[0].images[0].get_array()
    np.testing.assert_array_equal(first, X[0, :, :, 0])
    rebuilt = figure.axes[3].images[0].get_array()
    np.testing.assert_allclose(
        rebuilt, model.predict(X, verbose=0)[0, :, :, 0], atol=1e-6
    )


@pytest.mark.parametrize("shape", [(16,), (7,), (4, 4), (4, 4, 3)])
def test_any_sample_shape_can_be_drawn(shape, tmp_path):
    model = models.shallow(shape, 3)
    x = np.random.default_rng(0).random((2, *shape), dtype="float32")
    _drawn(plots.filters(model), tmp_path)
    _drawn(plots.reconstructions(model, x), tmp_path)


def test_activations_count_what_is_not_zero(tmp_path):
    codes = np.array([[0.0, 1.0], [0.0, 3.0], [2.0, 0.0]])
    figure = _drawn(plots.activations(codes, target=0.5), tmp_path)
    left, right = figure.axes
    assert sum(bar.get_height() for bar in left.patches) == 3
    assert "50%" in left.get_title()
    heights = [bar.get_height() for bar in right.patches]
    np.testing.assert_allclose(heights, [4 / 3, 2 / 3])
    assert right.lines[0].get_ydata()[0] == 0.5


def test_a_code_that_is_all_zero_can_be_drawn(tmp_path):
    _drawn(plots.activations(np.zeros((3, 4))), tmp_path)


def test_history_draws_training_and_validation_together(tmp_path):
    logs = {"loss": [2.0, 1.0], "val_loss": [3.0, 2.0], "l0": [5.0, 4.0]}
    figure = _drawn(plots.history({"a": logs}), tmp_path)
    assert [axes.get_title() for axes in figure.axes] == ["loss", "l0"]
    training, validation = figure.axes[0].lines
    np.testing.assert_array_equal(training.get_ydata(), [2.0, 1.0])
    np.testing.assert_array_equal(validation.get_ydata(), [3.0, 2.0])


def test_pareto_draws_the_front(tmp_path):
    table = pd.DataFrame(
        {
            "model": ["a", "b", "c", "d"],
            "l0": [1.0, 2.0, 3.0, 2.5],
            "reconstruction": [3.0, 1.0, 0.5, 2.0],
        }
    )
    figure = _drawn(plots.pareto(table), tmp_path)
    front = figure.axes[0].lines[0]
    np.testing.assert_array_equal(front.get_xdata(), [1.0, 2.0, 3.0])
    np.testing.assert_array_equal(front.get_ydata(), [3.0, 1.0, 0.5])


def test_pareto_counts_codes_that_are_never_zero_by_their_expected_l0(tmp_path):
    sigmoid = pd.DataFrame({"expected_l0": [4.0, 5.0], "reconstruction": [0.4, 0.2]})
    mixed = pd.DataFrame(
        {
            "l0": [1.0, np.nan],
            "expected_l0": [np.nan, 5.0],
            "reconstruction": [3.0, 0.2],
        }
    )
    for table, expected in ((sigmoid, [4.0, 5.0]), (mixed, [1.0, 5.0])):
        before = table.copy()
        front = _drawn(plots.pareto(table), tmp_path).axes[0].lines[0]
        np.testing.assert_array_equal(front.get_xdata(), expected)
        pd.testing.assert_frame_equal(table, before)


def test_pictures_of_a_prior_need_one():
    with pytest.raises(ValueError, match="draws samples"):
        plots.samples(models.shallow((4, 4, 1), 8))
    narrow = models.variational((4, 4, 1), 8, latent_dim=1)
    with pytest.raises(ValueError, match=r"two dimensions or more.*1"):
        plots.latent_plane(narrow, X)


def test_pareto_names_the_missing_column():
    with pytest.raises(ValueError, match="missing: reconstruction"):
        plots.pareto(pd.DataFrame({"l0": [1.0]}))


class _Prior:
    """Stands in for a variational model: its draws and decodings are known."""

    def __init__(self, images):
        self.images = np.asarray(images, "float32")

    def sample(self, count, seed):
        return self.images[:count]

    def encode(self, x):
        return np.asarray(x).reshape(len(x), -1)[:, :2]

    def decode(self, codes):
        return np.repeat(self.images[:1], len(codes), axis=0)


def test_one_wild_sample_does_not_turn_the_others_grey(tmp_path):
    usual = np.linspace(0, 1, 101)[:, None].repeat(4, axis=1)
    model = _Prior([usual, 50 * usual - 20])
    figure = _drawn(plots.samples(model, count=2), tmp_path)
    scales = [axes.images[0].get_clim() for axes in figure.axes]
    assert scales[0] == pytest.approx((0.02, 0.98))
    assert scales[1] == pytest.approx((-19.0, 29.0), rel=1e-5)


def test_each_picture_of_the_latent_plane_has_its_own_scale(tmp_path):
    usual = np.linspace(0, 1, 101)[:, None].repeat(4, axis=1)
    figure = _drawn(plots.latent_plane(_Prior([usual]), X, steps=2), tmp_path)
    scale = pytest.approx((0.02, 0.98))
    assert [axes.images[0].get_clim() for axes in figure.axes] == [scale] * 4


@pytest.mark.parametrize("panels", [1, 2, 3])
def test_the_legend_of_a_history_is_not_cut_off(panels, tmp_path):
    logs = {f"figure {i}": [2.0, 1.0] for i in range(panels)}
    logs |= {f"val_{name}": values for name, values in logs.items()}
    names = [f"stacked, greedily {i}" for i in range(6)]
    figure = _drawn(plots.history(dict.fromkeys(names, logs)), tmp_path)
    [legend] = figure.legends
    box = legend.get_window_extent()
    width, height = figure.bbox.size
    assert len(legend.get_texts()) == 12
    assert box.x0 >= 0
    assert box.x1 <= width
    assert min(axes.get_window_extent().y0 for axes in figure.axes) > box.y1
    assert min(axes.get_window_extent().height for axes in figure.axes) > height / 5


def test_every_family_of_a_comparison_has_a_colour_of_its_own():
    plan = plans.families((8, 8, 1), 4, 1, 1e-3, 1e-2, 0.05, 1e-3)
    logs = {name: {"loss": [2.0, 1.0]} for name in plan.builders}
    [axes] = plots.history(logs).axes
    colours = {line.get_color() for line in axes.lines}
    assert len(colours) == len(axes.lines) == len(plan.builders)
