"""The effective number of active units, computed sample by sample in plain Python."""

import math
import statistics

import keras
import numpy as np
import pytest

from keras_sae import layers, metrics, models

UNITS = 6


@pytest.fixture
def codes(rng):
    """Codes of which four units are never zero and two are mostly zero."""
    codes = rng.uniform(0.1, 0.9, size=(23, UNITS))
    codes[:, 4:] *= rng.uniform(size=(23, 2)) < 0.3
    return codes.astype("float32")


@pytest.fixture
def dictionary(rng):
    return rng.normal(size=(UNITS, 4, 2))


def participation(row, rest, lengths) -> float:
    """Return the participation number of one sample, by sums over a list."""
    parts = [abs(h - r) * d for h, r, d in zip(row, rest, lengths, strict=True)]
    squares = math.fsum(part**2 for part in parts)
    return math.fsum(parts) ** 2 / squares if squares else 0.0


def by_hand(codes, dictionary=None, rest=None) -> float:
    columns = np.asarray(codes, "float64").T.tolist()
    lengths = [1.0] * len(columns)
    if dictionary is not None:
        lengths = [math.sqrt(math.fsum(np.square(d).ravel())) for d in dictionary]
    if rest is None:
        rest = [statistics.median(column) for column in columns]
    rows = zip(*columns, strict=True)
    return statistics.fmean(participation(row, rest, lengths) for row in rows)


# Whole data sets.


def test_value_is_the_mean_participation_number(codes, dictionary, rng):
    rest = rng.uniform(size=UNITS)
    for arguments in ((), (dictionary,), (None, rest), (dictionary, rest)):
        expected = by_hand(codes, *arguments)
        assert metrics.effective_l0(codes, *arguments) == pytest.approx(expected)
    assert metrics.effective_l0(codes, dictionary) != metrics.effective_l0(codes)


def test_equal_contributions_count_the_active_units():
    codes = np.zeros((12, 20))
    for i in range(12):
        codes[i, i : i + 5] = 3.0

    assert metrics.effective_l0(codes) == pytest.approx(5)
    assert metrics.effective_l0(codes) == pytest.approx(metrics.l0(codes))


def test_value_of_a_sparse_code_is_at_most_l0(rng):
    codes = rng.exponential(size=(50, 30)) * (rng.uniform(size=(50, 30)) < 0.2)

    assert 1 < metrics.effective_l0(codes) < metrics.l0(codes)


def test_scale_and_offset_of_units_change_nothing(codes, dictionary, rng):
    scale, offset = rng.uniform(0.1, 10, UNITS), rng.normal(size=UNITS)

    found = metrics.effective_l0(
        codes.astype("float64") * scale + offset, dictionary / scale[:, None, None]
    )

    assert found == pytest.approx(metrics.effective_l0(codes, dictionary), rel=1e-9)


def test_samples_at_rest_count_as_zero():
    codes = np.full((3, 4), 0.25)
    assert metrics.effective_l0(codes) == 0
    codes[0, 1] = 0.5
    assert metrics.effective_l0(codes) == pytest.approx(1 / 3)


def test_tiny_contributions_do_not_underflow(codes):
    expected = metrics.effective_l0(codes)
    assert metrics.effective_l0(codes * np.float64(1e-200)) == pytest.approx(expected)


def test_wrong_number_of_units_raises(codes):
    with pytest.raises(ValueError, match=r"`dictionary`.*2 entries.*6 units"):
        metrics.effective_l0(codes, np.ones((2, 5)))
    with pytest.raises(ValueError, match=r"`rest`.*3 entries.*6 units"):
        metrics.effective_l0(codes, rest=np.zeros(3))
    with pytest.raises(ValueError, match="`codes` must have at least two axes"):
        metrics.effective_l0(codes[0])


# Explained variance with a limited number of units.


class Linear:
    """A codec whose units and rows are given."""

    def __init__(self, kernel, rows):
        self.kernel, self.rows = kernel, rows

    def encode(self, x):
        return x @ self.kernel

    def decode(self, code):
        return code @ self.rows

    def dictionary(self):
        return self.rows


def test_units_that_contribute_most_are_kept(rng):
    x = rng.normal(1.0, 1.0, size=(9, 5))
    model = Linear(rng.normal(size=(5, 7)), rng.normal(size=(7, 5)))
    codes = model.encode(x)
    rest = np.median(codes, axis=0)

    for k in (1, 3, 7):
        decoded = []
        for code in codes:
            kept = rest.copy()
            parts = [
                abs(code[j] - rest[j]) * np.linalg.norm(model.rows[j]) for j in range(7)
            ]
            for j in sorted(range(7), key=parts.__getitem__)[-k:]:
                kept[j] = code[j]
            decoded.append(kept @ model.rows)
        lost = np.sum((x - decoded) ** 2) / np.sum((x - x.mean(axis=0)) ** 2)
        found = metrics.explained_variance_at(model, x, k)
        assert found == pytest.approx(1 - lost, rel=1e-9)


def test_all_units_leave_the_explained_variance_unchanged(rng):
    x = rng.random((40, 8), dtype="float32")
    model = models.shallow((8,), 16, "kl")
    full = metrics.explained_variance(x, model.decode(model.encode(x)))

    assert metrics.explained_variance_at(model, x, 16) == pytest.approx(full, abs=1e-5)
    with pytest.raises(ValueError, match=r"`k` must not exceed.*k=17, units=16"):
        metrics.explained_variance_at(model, x, 17)
    with pytest.raises(ValueError, match="`k`"):
        metrics.explained_variance_at(model, x, 0)
    with pytest.raises(ValueError, match="a transcoder does not"):
        metrics.explained_variance_at(models.transcoder((8,), (8,), 16), x, 1)


# Training.


def test_metric_measures_a_whole_batch_exactly(codes, dictionary):
    lengths = np.linalg.norm(dictionary.reshape(UNITS, -1), axis=1)
    for count in (1, 22, 23):
        metric = metrics.EffectiveL0()
        metric.update_state(codes[:count], lambda: keras.ops.convert_to_tensor(lengths))
        expected = by_hand(codes[:count], dictionary)
        assert float(metric.result()) == pytest.approx(expected, rel=1e-5)


def test_metric_measures_every_sixteenth_batch(rng):
    batches = rng.uniform(size=(20, 70, UNITS)).astype("float32")
    metric = metrics.EffectiveL0()
    for batch in batches:
        metric.update_state(batch)

    expected = np.mean([by_hand(batches[i, :64]) for i in (0, 16)])
    assert float(metric.result()) == pytest.approx(expected, rel=1e-5)
    metric.reset_state()
    assert float(metric.result()) == 0


def test_metric_of_codes_with_axes_counts_all_values(rng):
    codes = rng.uniform(size=(9, 4, 3)).astype("float32")
    metric = metrics.EffectiveL0()
    metric.update_state(codes, lambda: keras.ops.arange(3.0))
    expected = by_hand(codes.reshape(9, 12))
    assert float(metric.result()) == pytest.approx(expected, rel=1e-5)
    dictionary = rng.uniform(size=(3, 5))
    assert metrics.effective_l0(codes, dictionary) == pytest.approx(expected)


def test_metric_counts_in_float32_under_any_policy(rng):
    """`float16` cannot hold a sum of more than 65,504."""
    codes = rng.uniform(size=(64, 2000)).astype("float16")
    keras.config.set_dtype_policy("float16")
    try:
        metric = metrics.EffectiveL0()
    finally:
        keras.config.set_dtype_policy("float32")
    metric.update_state(codes)
    assert float(metric.result()) == pytest.approx(by_hand(codes), rel=1e-2)


@pytest.mark.parametrize("tied", [False, True])
def test_training_logs_an_estimate_of_codes_that_are_never_zero(rng, tied):
    x = rng.random((64, 12), dtype="float32")
    model = models.shallow((12,), 20, "kl", tied=tied)
    model.compile(keras.optimizers.SGD(0.0))

    logs = model.fit(x, batch_size=64, validation_data=(x,), verbose=0).history

    exact = metrics.effective_l0(model.encode(x), model.dictionary())
    assert logs["effective_l0"][0] == pytest.approx(exact, rel=1e-4)
    assert logs["val_effective_l0"][0] == pytest.approx(exact, rel=1e-4)
    assert exact == pytest.approx(by_hand(model.encode(x), model.dictionary()))


@pytest.mark.parametrize(
    ("make", "is_logged"),
    [
        (lambda: models.shallow((6,), 8, "l1"), False),
        (lambda: models.shallow((6,), 8, layers.TopK(2)), False),
        (lambda: models.shallow((6,), 8, "l1", activation="softplus"), True),
        (lambda: models.deep((6,), (9, 8), "kl"), True),
        (lambda: models.variational((6,), 8, 2), True),
    ],
    ids=["l1", "top_k", "softplus", "deep", "variational"],
)
def test_only_codes_that_are_never_zero_log_it(rng, make, is_logged):
    model = make()
    model.compile("adam")

    logs = model.fit(rng.random((32, 6), dtype="float32"), verbose=0).history

    assert ("effective_l0" in logs) == is_logged
