"""Damage in training and only there, and a model whose target stays clean."""

import keras
import numpy as np
import pytest
from helpers import to_numpy

from keras_sae import layers, models
from keras_sae.utils.serialization import register

RATE = 0.3
NOISES = {"masking": layers.MaskingNoise, "salt": layers.SaltAndPepperNoise}
noises = pytest.mark.parametrize("cls", NOISES.values(), ids=NOISES)


@pytest.fixture
def x(rng):
    return rng.uniform(0.1, 0.9, size=(200, 100)).astype("float32")


def within(count: int, total: int, rate: float) -> bool:
    """Whether a binomial count is within five standard errors."""
    return abs(count - total * rate) < 5 * np.sqrt(total * rate * (1 - rate))


@noises
def test_nothing_happens_at_inference(cls, x):
    layer = cls(RATE)
    np.testing.assert_array_equal(to_numpy(layer(x)), x)
    np.testing.assert_array_equal(to_numpy(layer(x, training=False)), x)


@noises
def test_a_rate_of_zero_is_the_identity(cls, x):
    np.testing.assert_array_equal(to_numpy(cls(0)(x, training=True)), x)


def test_masking_zeroes_and_does_not_rescale(x):
    y = to_numpy(layers.MaskingNoise(RATE)(x, training=True))
    assert within(int((y == 0).sum()), x.size, RATE)
    np.testing.assert_array_equal(y[y != 0], x[y != 0])


def test_masks_are_drawn_for_each_value_on_its_own(x):
    gone = to_numpy(layers.MaskingNoise(RATE)(x, training=True)) == 0
    # Neither rows nor columns go together: their counts scatter as binomials do.
    for axis, size in ((0, 200), (1, 100)):
        spread = gone.sum(axis=axis).var() / (size * RATE * (1 - RATE))
        assert 0.5 < spread < 2


def test_salt_and_pepper_are_equally_likely(x):
    layer = layers.SaltAndPepperNoise(RATE, low=-2.0, high=3.0)
    y = to_numpy(layer(x, training=True))
    salt, pepper = y == 3, y == -2
    assert within(int(salt.sum()), x.size, RATE / 2)
    assert within(int(pepper.sum()), x.size, RATE / 2)
    kept = ~(salt | pepper)
    np.testing.assert_array_equal(y[kept], x[kept])


@noises
def test_draws_differ_from_call_to_call(cls, x):
    layer = cls(RATE)
    one, two = (to_numpy(layer(x, training=True)) for _ in range(2))
    assert not np.array_equal(one, two)


@noises
def test_a_seed_makes_the_draws_repeatable(cls, x):
    one, two = (to_numpy(cls(RATE, seed=7)(x, training=True)) for _ in range(2))
    np.testing.assert_array_equal(one, two)


@noises
@pytest.mark.parametrize("rate", [-0.1, 1, 1.5, float("nan")])
def test_bad_rates(cls, rate):
    with pytest.raises(ValueError, match=r"`rate`.*\[0, 1\)") as error:
        cls(rate)
    assert f"rate={rate!r}" in str(error.value)


@pytest.mark.parametrize(
    ("low", "high"), [(1, 1), (0, float("inf")), (float("nan"), 1)]
)
def test_salt_lies_above_pepper(low, high):
    with pytest.raises(ValueError, match=f"`low`.*low={low}, high={high}"):
        layers.SaltAndPepperNoise(0.1, low=low, high=high)


# In a model.


@register
class Blank(keras.layers.Layer):
    """The worst corruption, without chance: nothing is left in training."""

    def call(self, inputs, training=None):
        return inputs * 0 if training else inputs


FAMILIES = {
    "shallow": lambda noise: models.shallow((6,), 4, corruption=noise),
    "deep": lambda noise: models.deep((6,), (5, 4), corruption=noise),
    "stacked": lambda noise: models.stacked((6,), (5, 4), "l1", corruption=noise),
    "convolutional": lambda noise: models.convolutional(
        (2, 3, 1), (5, 4), corruption=noise
    ),
    "variational": lambda noise: models.variational((6,), 5, 4, corruption=noise),
}
families = pytest.mark.parametrize("make", FAMILIES.values(), ids=FAMILIES)


@families
def test_the_target_stays_clean(make, rng):
    model = make(Blank())
    x = rng.uniform(size=(8, *model.sample_shape)).astype("float32")
    model.compile(keras.optimizers.SGD(0.0), jit_compile=False)
    seen = model.test_on_batch(x, return_dict=True)["reconstruction_loss"]
    rebuilt = to_numpy(model(x))
    assert seen == pytest.approx(((x - rebuilt) ** 2).mean(), rel=1e-5)
    blank = to_numpy(model.decoder(model.encoder(x, training=True)))
    if not isinstance(model, models.VariationalAutoencoder):  # its draws differ
        model.reset_metrics()
        seen = model.train_on_batch(x, return_dict=True)["reconstruction_loss"]
        assert seen == pytest.approx(((x - blank) ** 2).mean(), rel=1e-5)
        assert np.ptp(blank, axis=0).max() < 1e-6  # the same for every sample


@pytest.mark.parametrize(
    "noise",
    [
        layers.MaskingNoise(RATE),
        keras.layers.GaussianNoise(0.2),
        keras.layers.Dropout(0.5),
        keras.saving.serialize_keras_object(layers.SaltAndPepperNoise(RATE)),
    ],
    ids=["masking", "gaussian", "dropout", "config"],
)
def test_any_layer_that_damages(noise, rng):
    model = models.shallow((6,), 4, corruption=noise)
    layer = model.encoder.get_layer("corruption")
    assert layer is not noise  # its state is this model's
    x = rng.uniform(size=(8, 6)).astype("float32")
    clean, damaged = (to_numpy(model.encoder(x, training=t)) for t in (False, True))
    assert not np.array_equal(clean, damaged)


@pytest.mark.parametrize("noise", ["masking", 0.3, layers.MaskingNoise])
def test_what_is_no_corruption(noise):
    with pytest.raises(ValueError, match=r"`corruption`.*layer.*MaskingNoise") as error:
        models.shallow((6,), 4, corruption=noise)
    assert repr(noise) in str(error.value)


def test_denoising_learns_to_denoise(rng):
    """Redundant data: what is masked can be read off its neighbours."""
    factors = rng.normal(size=(256, 2)).astype("float32")
    x = factors @ rng.normal(size=(2, 12)).astype("float32")
    damaged = x * (rng.uniform(size=x.shape) >= RATE)
    errors = {}
    for name, noise in {"plain": None, "denoising": layers.MaskingNoise(RATE)}.items():
        keras.utils.set_random_seed(0)
        model = models.shallow((12,), 12, activation="linear", corruption=noise)
        model.compile(keras.optimizers.Adam(0.05))
        for _ in range(60):
            model.train_on_batch(x)
        rebuilt = model.decode(model.encode(damaged.astype("float32")))
        errors[name] = ((x - rebuilt) ** 2).mean()
    assert errors["denoising"] < 0.7 * errors["plain"]
