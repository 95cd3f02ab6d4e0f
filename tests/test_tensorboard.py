"""What the TensorBoard callback leaves, read back from its event files."""

import io

import keras
import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util import tensor_util

from keras_sae import callbacks, models
from keras_sae.callbacks import tensorboard

X = np.random.default_rng(0).random((24, 4, 4, 1), dtype="float32")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("board") / "logs"
    model = models.shallow((4, 4, 1), 6, "l1")
    model.compile("adam")
    board = callbacks.TensorBoard(folder, X, count=5, every=2)
    history = model.fit(
        X, epochs=3, batch_size=8, verbose=0, callbacks=[board], validation_data=X
    )
    return folder, model, history.history


def _events(folder, tag):
    """The steps and the tensors of a tag."""
    reader = EventAccumulator(str(folder), size_guidance={"tensors": 0}).Reload()
    events = reader.Tensors(tag)
    return [e.step for e in events], [
        tensor_util.make_ndarray(e.tensor_proto) for e in events
    ]


def test_losses_and_l0_are_keras_own(run):
    folder, _, history = run
    for name in ("loss", "l0", "sparsity_loss", "explained_variance"):
        steps, values = _events(folder / "train", f"epoch_{name}")
        assert steps == [0, 1, 2]
        np.testing.assert_allclose(values, history[name], rtol=1e-5)
    _, values = _events(folder / "validation", "epoch_l0")
    np.testing.assert_allclose(values, history["val_l0"], rtol=1e-5)


def test_filters_are_the_atoms_of_the_epoch(run):
    folder, model, _ = run
    steps, tensors = _events(folder / "units", "filters")
    assert steps == [0, 2]  # every second epoch
    width, height, encoded = tensors[-1]
    picture = np.asarray(Image.open(io.BytesIO(encoded))) / 255
    # Five filters of 4x4, three a row, each pixel 8 by 8, a border of one around.
    assert (int(width), int(height)) == (3 * 34, 2 * 34)
    kernel = keras.ops.convert_to_numpy(model.decoder.layers[1].kernel)
    for unit in range(5):
        row, column = 34 * (unit // 3), 34 * (unit % 3)
        tile = picture[row + 1 : row + 33, column + 1 : column + 33]
        atom = kernel[unit].reshape(4, 4)
        expected = 0.5 + 0.5 * atom / np.abs(atom).max()
        np.testing.assert_allclose(tile[::8, ::8], expected, atol=0.01)
        np.testing.assert_array_equal(tile[::8, ::8], tile[7::8, 7::8])
    assert not picture[35:67, 69:101].any()


def test_histograms_count_what_is_not_zero(run):
    folder, model, _ = run
    codes = model.encode(X)
    _, activations = _events(folder / "units", "activations")
    assert activations[-1][:, 2].sum() == pytest.approx((codes != 0).sum())
    assert activations[-1][-1, 1] == pytest.approx(codes.max(), rel=1e-5)
    _, firing = _events(folder / "units", "firing")
    assert firing[-1][:, 2].sum() == pytest.approx(6)
    assert firing[-1][-1, 1] == pytest.approx((codes != 0).mean(axis=0).max())


def test_without_samples_there_are_filters_alone(tmp_path):
    model = models.shallow((5,), 3, "l1")
    model.compile("adam")
    board = callbacks.TensorBoard(tmp_path / "logs")
    model.fit(np.ones((4, 5), "float32"), verbose=0, callbacks=[board])
    reader = EventAccumulator(str(tmp_path / "logs" / "units")).Reload()
    assert reader.Tags()["tensors"] == ["filters"]


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((7,), (3 * 6, 30, 1)),
        ((4, 4, 3), (2 * 34, 2 * 34, 3)),
        ((4, 4, 5), (68, 68, 1)),
    ],
)
def test_any_sample_shape_is_a_picture(shape, expected):
    picture = tensorboard.sheet(np.random.default_rng(0).normal(size=(3, *shape)))
    assert picture.shape == expected
    assert picture.min() >= 0
    assert picture.max() <= 1


def test_a_silent_filter_is_grey():
    assert (tensorboard.sheet(np.zeros((1, 2, 2, 1)))[1:-1, 1:-1] == 0.5).all()


def test_other_models_are_refused(tmp_path):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    board = callbacks.TensorBoard(tmp_path / "logs")
    with pytest.raises(ValueError, match="the units of an autoencoder"):
        model.fit(np.ones((4, 3)), np.ones(4), verbose=0, callbacks=[board])


@pytest.mark.parametrize("setting", [{"count": 0}, {"every": 0}])
def test_bad_settings(setting):
    with pytest.raises(ValueError, match="must be a positive integer"):
        callbacks.TensorBoard("logs", **setting)
