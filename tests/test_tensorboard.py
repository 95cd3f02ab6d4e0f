"""The TensorBoard callback, read back from its event files."""

import io

import keras
import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util import tensor_util

from keras_sae import callbacks, models

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


def read_events(folder, tag):
    """Return the steps and the tensors of a tag."""
    reader = EventAccumulator(str(folder), size_guidance={"tensors": 0}).Reload()
    events = reader.Tensors(tag)
    return [e.step for e in events], [
        tensor_util.make_ndarray(e.tensor_proto) for e in events
    ]


def test_keras_logs_are_written(run):
    folder, _, history = run
    for name in ("loss", "l0", "sparsity_loss", "explained_variance"):
        steps, values = read_events(folder / "train", f"epoch_{name}")
        assert steps == [0, 1, 2]
        np.testing.assert_allclose(values, history[name], rtol=1e-5)
    _, values = read_events(folder / "validation", "epoch_l0")
    np.testing.assert_allclose(values, history["val_l0"], rtol=1e-5)


def test_filters_are_rows_of_the_dictionary(run):
    folder, model, _ = run
    steps, tensors = read_events(folder / "units", "filters")
    assert steps == [0, 2]  # every second epoch
    width, height, encoded = tensors[-1]
    picture = np.asarray(Image.open(io.BytesIO(encoded))) / 255
    # Five filters of 4x4, three per row, each pixel 8x8, with gaps of two pixels.
    assert (int(width), int(height)) == (3 * 34 - 2, 2 * 34 - 2)
    dictionary = keras.ops.convert_to_numpy(model.decoder.layers[1].kernel)[:5]
    largest = np.percentile(np.abs(dictionary), 99.5)
    orange, blue = np.array([217, 119, 6]) / 255, np.array([59, 130, 246]) / 255
    for unit in range(5):
        row, column = 34 * (unit // 3), 34 * (unit % 3)
        tile = picture[row : row + 32, column : column + 32]
        share = np.clip(dictionary[unit].reshape(4, 4, 1) / largest, -1, 1)
        full = np.where(share > 0, orange, blue)
        expected = 0.95 * (1 - np.abs(share)) + np.abs(share) * full
        np.testing.assert_allclose(tile[::8, ::8], expected, atol=0.01)
        np.testing.assert_array_equal(tile[::8, ::8], tile[7::8, 7::8])
    assert (picture[34:, 68:] == 1).all(), "the sixth place is empty"


def test_histograms_exclude_zeros(run):
    folder, model, _ = run
    codes = model.encode(X)
    _, activations = read_events(folder / "units", "activations")
    assert activations[-1][:, 2].sum() == pytest.approx((codes != 0).sum())
    assert activations[-1][-1, 1] == pytest.approx(codes.max(), rel=1e-5)
    _, firing = read_events(folder / "units", "firing")
    assert firing[-1][:, 2].sum() == pytest.approx(6)
    assert firing[-1][-1, 1] == pytest.approx((codes != 0).mean(axis=0).max())


def test_no_histograms_are_written_without_samples(tmp_path):
    model = models.shallow((5,), 3, "l1")
    model.compile("adam")
    board = callbacks.TensorBoard(tmp_path / "logs")
    model.fit(np.ones((4, 5), "float32"), verbose=0, callbacks=[board])
    reader = EventAccumulator(str(tmp_path / "logs" / "units")).Reload()
    assert reader.Tags()["tensors"] == ["filters"]


def test_models_without_units_are_rejected(tmp_path):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    board = callbacks.TensorBoard(tmp_path / "logs")
    with pytest.raises(ValueError, match=r"needs a `keras_sae\.models\.Autoencoder`"):
        model.fit(np.ones((4, 3)), np.ones(4), verbose=0, callbacks=[board])


@pytest.mark.parametrize("setting", [{"count": 0}, {"every": 0}])
def test_settings_must_be_positive(setting):
    with pytest.raises(ValueError, match="must be a positive integer"):
        callbacks.TensorBoard("logs", **setting)
