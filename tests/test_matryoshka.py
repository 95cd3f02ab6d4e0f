"""Tests of `Matryoshka` against NumPy reconstructions from prefixes."""

import keras
import numpy as np
import pytest
from helpers import shallow_weights, top_k

from keras_sae import layers, models


def make(sparsity) -> keras.Model:
    keras.utils.set_random_seed(0)
    model = models.shallow((12,), 24, sparsity, centering=False)
    model.compile("sgd")
    return model


def test_loss_of_each_prefix_is_added(rng):
    x = rng.normal(size=(20, 12)).astype("float32")
    top = layers.TopK(5, auxiliary=None)
    model = make(layers.Matryoshka(top, widths=(4, 10, 24)))
    W, b, A, c = shallow_weights(model)
    code = top_k(np.maximum(x @ W + b, 0), 5)
    expected = sum(
        ((x - code[:, :width] @ A[:width] - c) ** 2).mean() for width in (4, 10)
    )
    logs = model.test_on_batch(x, return_dict=True)
    assert logs["auxiliary_loss"] == pytest.approx(expected, rel=1e-5)
    whole = ((x - code @ A - c) ** 2).mean()
    assert logs["reconstruction_loss"] == pytest.approx(whole, rel=1e-5)
    assert logs["loss"] == pytest.approx(whole + expected, rel=1e-5)


class Constant(layers.Sparsity):
    """A sparsity whose losses are Python numbers."""

    has_penalty = True
    auxiliary_loss_names = ("auxiliary_loss",)

    def call(self, inputs, training=None):
        self.add_penalty(0.5, inputs)
        return inputs

    def auxiliary_losses(self, step):
        return {"auxiliary_loss": 2}


@pytest.mark.parametrize(
    ("sparsity", "expected"),
    [
        (layers.Matryoshka(layers.TopK(5, auxiliary=None), widths=(24,)), 0),
        (layers.Matryoshka(layers.LifetimeSparsity(0.3), widths=(24,)), 0),
        (Constant(), 2),
    ],
    ids=["top_k", "lifetime", "constant"],
)
def test_losses_may_be_python_numbers(sparsity, expected, rng):
    x = rng.normal(size=(20, 12)).astype("float32")
    logs = make(sparsity).fit(x, verbose=0).history
    assert logs["auxiliary_loss"] == [expected]
    penalty = logs.get("sparsity_loss", [0])[0]
    assert penalty == (0.5 if isinstance(sparsity, Constant) else 0)
    parts = logs["reconstruction_loss"][0] + expected + penalty
    assert logs["loss"] == pytest.approx([parts], rel=1e-5)


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
def test_prefixes_reconstruct_the_given_target(rng, weighted):
    x, y = rng.normal(size=(2, 20, 12)).astype("float32")
    weight = rng.random(20).astype("float32") if weighted else None
    model = make(layers.Matryoshka(layers.TopK(5, auxiliary=None), widths=(4, 24)))
    W, b, A, c = shallow_weights(model)
    code = top_k(np.maximum(x @ W + b, 0), 5)
    errors = ((y - code[:, :4] @ A[:4] - c) ** 2).mean(axis=1)
    expected = np.mean(errors if weight is None else weight * errors)
    logs = model.evaluate(x, y, sample_weight=weight, return_dict=True, verbose=0)
    assert logs["auxiliary_loss"] == pytest.approx(expected, rel=1e-5)


def test_auxiliary_loss_of_the_inner_sparsity_is_added(rng):
    x = rng.normal(size=(20, 12)).astype("float32")

    def auxiliary_loss(sparsity):
        model = make(sparsity)
        steps = np.where(np.arange(24) % 2, 9.0, 10.0)
        model.sparse_layers[0].steps_since_active.assign(steps)
        return model.test_on_batch(x, return_dict=True)["auxiliary_loss"]

    def nested(auxiliary):
        return layers.Matryoshka(layers.TopK(4, auxiliary=auxiliary), widths=(6, 12))

    aux = layers.AuxK(3, factor=0.5, dead_after=10)
    alone = auxiliary_loss(layers.TopK(4, auxiliary=aux))
    prefixes = auxiliary_loss(nested(None))
    assert alone > 0
    assert auxiliary_loss(nested(aux)) == pytest.approx(prefixes + alone, rel=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"widths": (8, 4)}, r"widths=\(8, 4\)"),
        ({"widths": ()}, r"widths=\(\)"),
        ({"sparsity": "l1"}, "sparsity='l1'"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        layers.Matryoshka(**arguments)


def test_widths_must_not_exceed_the_units():
    with pytest.raises(ValueError, match=r"widths=\(64,\), units=24"):
        make(layers.Matryoshka(layers.TopK(4), widths=(64,)))
