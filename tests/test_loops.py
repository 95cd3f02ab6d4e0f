"""Fit, evaluate and predict: errors, threads, and changes between calls."""

import threading

import keras
import numpy as np
import pytest
from helpers import assert_same_weights, tensorflow_only, to_numpy, weights_of

from keras_sae import layers, models

D, UNITS = 12, 16


def make(sparsity="l1", **kwargs):
    model = models.shallow((D,), UNITS, sparsity, **kwargs)
    model.compile("adam")
    return model


@pytest.fixture
def x(rng):
    return rng.random((96, D), dtype="float32")


class Batches(keras.utils.PyDataset):
    """Three batches, of which the last has another width."""

    def __init__(self, x):
        super().__init__()
        self.batches = [x[:32], x[32:64], x[64:, :7]]

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, index):
        return (self.batches[index],)


FAILING = {
    "fit": lambda m, data: m.fit(data, shuffle=False, verbose=0),
    "evaluate": lambda m, data: m.evaluate(data, verbose=0),
    "predict": lambda m, data: m.predict(data, verbose=0),
    "encode": lambda m, data: m.encode(data),
}


@pytest.mark.parametrize("call", FAILING.values(), ids=FAILING)
def test_a_failed_batch_leaves_a_model_that_works(x, call):
    model = make()
    model.train_on_batch(x)
    before = weights_of(model)
    with pytest.raises(Exception):  # noqa: B017, PT011 - each backend has its own
        call(model, Batches(x))
    if call is not FAILING["fit"]:  # which has trained on two batches
        assert_same_weights(before, weights_of(model))
    expected = to_numpy(model.encoder(x))
    np.testing.assert_allclose(model.encode(x), expected, rtol=1e-5, atol=1e-6)
    assert np.isfinite(model.fit(x, verbose=0).history["loss"]).all()


def test_a_failed_callback_keeps_the_weights_of_the_last_step(x):
    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            raise RuntimeError("stopped")

    model = make()
    before = to_numpy(model.encoder.get_layer("code").kernel)
    with pytest.raises(RuntimeError, match="stopped"):
        model.fit(x, callbacks=[Stop()], verbose=0)
    assert np.abs(to_numpy(model.encoder.get_layer("code").kernel) - before).max() > 0


def test_callbacks_may_encode_and_predict_after_a_batch(x):
    seen = []

    class Look(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            decoded = self.model.decode(self.model.encode(x[:4]))
            predicted = self.model.predict(x[:4], verbose=0)
            seen.append(np.abs(decoded - predicted).max())

    make().fit(x, batch_size=48, callbacks=[Look()], verbose=0)
    assert len(seen) == 2
    assert max(seen) < 1e-5


def test_threads_share_a_model(x):
    model = make()
    code, reconstruction = model.encode(x), model.predict(x, verbose=0)
    errors = []

    def ask():
        for _ in range(4):
            found = [model.encode(x), model.predict(x, verbose=0), model.decode(code)]
            expected = [code, reconstruction, reconstruction]
            gaps = [np.abs(a - b).max() for a, b in zip(found, expected, strict=True)]
            errors.append(max(gaps))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(errors) == 16
    assert max(errors) < 1e-5
    np.testing.assert_allclose(model.encode(x), code, atol=1e-6)


def test_encode_and_predict_follow_a_changed_k(x):
    model = make(layers.TopK(4))
    model.evaluate(x, verbose=0)
    model.predict(x, verbose=0)
    assert (model.encode(x) != 0).sum(axis=1).max() == 4
    model.encoder.get_layer("code").sparsity.k = 2
    code = model.encode(x)
    assert (code != 0).sum(axis=1).max() == 2
    expected = to_numpy(model.decoder(code))
    np.testing.assert_allclose(model.decode(code), expected, rtol=1e-4, atol=1e-5)
    predicted = model.predict(x, verbose=0)
    np.testing.assert_allclose(predicted, expected, rtol=1e-4, atol=1e-5)
    assert model.evaluate(x, verbose=0, return_dict=True)["l0"] <= 2


def test_encode_and_decode_follow_lora(x):
    model = make(unit_norm=False)
    model.decode(model.encode(x))
    model.decoder.get_layer("output").enable_lora(2)
    model.compile(keras.optimizers.Adam(0.05))
    model.fit(x, epochs=3, verbose=0)
    expected = to_numpy(model(x))
    decoded = model.decode(model.encode(x))
    np.testing.assert_allclose(decoded, expected, rtol=1e-4, atol=1e-5)


@tensorflow_only
@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize`")
def test_decode_follows_quantization(x):
    model = make()
    code = model.encode(x)
    before = model.decode(code)
    model.quantize("int8")
    expected = to_numpy(model.decoder(code))
    np.testing.assert_allclose(model.decode(code), expected, rtol=1e-4, atol=1e-5)
    assert np.abs(before - expected).max() > 1e-5
