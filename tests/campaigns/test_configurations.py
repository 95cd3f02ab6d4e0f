"""Random configurations, which must work or be rejected by the package's own error.

A case works if its losses are finite and its results are the same after loading. Case
`n` depends only on `n`, so `--campaign-first n --campaign-cases 1` repeats it.
"""

import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from helpers import BACKEND

from keras_sae import layers, models
from keras_sae.regularizers import L1, KLDivergence

PACKAGE = str(Path(models.__file__).parents[1])
# Half of the cases use float32.
POLICIES = ["mixed_float16", "mixed_bfloat16", "float64", "bfloat16"]
TOLERANCES = {"float32": 1e-4, "float64": 1e-4, "mixed_float16": 5e-2}


class _Draw:
    """Draw the parts of a configuration, and record them by name."""

    def __init__(self, case: int) -> None:
        self.rng = np.random.default_rng(case)
        self.drawn: dict[str, Any] = {"case": case}

    def choose(self, name: str, *options: Any) -> Any:
        value = options[self.rng.integers(len(options))]
        self.drawn[name] = getattr(value, "__name__", value)
        return value

    def some(self, options: dict[str, tuple]) -> dict[str, Any]:
        """Return values for a third of the options. The rest keep their defaults."""
        names = [name for name in options if self.rng.random() < 0.35]
        return {name: self.choose(name, *options[name]) for name in names}

    def sparsity(self, units: int, name: str = "sparsity") -> Any:
        k = int(self.rng.integers(1, max(2, units // 2 + 1)))
        auxiliary = ("auto", None, layers.AuxK(dead_after=1))[self.rng.integers(3)]
        kinds: dict[str, Callable[[], Any]] = {
            "none": lambda: None,
            "l1": lambda: "l1",
            "L1": lambda: L1(0.01),
            "KL": lambda: KLDivergence(0.1, 0.01),
            "KL momentum": lambda: KLDivergence(0.2, 0.01, momentum=0.9),
            "keras": lambda: keras.regularizers.L1L2(1e-3, 1e-3),
            "config": lambda: keras.saving.serialize_keras_object(layers.TopK(k)),
            "TopK": lambda: layers.TopK(k, auxiliary=auxiliary),
            "TopK annealed": lambda: layers.TopK(k, initial_k=2 * k),
            "BatchTopK": lambda: layers.BatchTopK(k, auxiliary=auxiliary),
            "JumpReLU": lambda: layers.JumpReLU(0.01, bandwidth=0.1),
            "JumpReLU target": lambda: layers.JumpReLU(0.01, target_l0=k),
            "Gated": lambda: layers.Gated(0.01),
            "Lifetime": lambda: layers.LifetimeSparsity(0.3),
            "Matryoshka": lambda: layers.Matryoshka(
                layers.BatchTopK(min(k, 2), auxiliary=auxiliary),
                sorted({min(2, units), units}),
            ),
            "Matryoshka gated": lambda: layers.Matryoshka(
                layers.Gated(), sorted({1, units})
            ),
        }
        return kinds[self.choose(name, *kinds)]()

    def model(self) -> models.Autoencoder:
        families = "shallow", "deep", "stacked", "convolutional", "variational"
        family = self.choose("family", *families)
        images = family == "convolutional"
        shapes = [(8, 8, 1), (4, 8, 2)] if images else [(7,), (4, 3), (5, 5, 1)]
        shape = self.choose("shape", *shapes)
        units = self.choose("units", 1, 3, 8)
        bounded = (None, "relu", "sigmoid", "tanh", "linear", "silu")
        options: dict[str, tuple] = {
            "tied": (True,),
            "activation": bounded[1:],
            "output_activation": ("sigmoid", "tanh", "relu"),
            "corruption": (
                layers.MaskingNoise(0.3),
                layers.SaltAndPepperNoise(0.3),
                keras.layers.GaussianNoise(0.1),
            ),
            "contractive": (0.1,),
            "unit_norm": (True, False),
            "tied_initialization": (True, False),
            "centering": (True, False),
            "scaling": (True,),
            "kernel_regularizer": ("l2",),
            "batch_normalization": (True,),
        }
        if family == "shallow":
            del options["batch_normalization"]
        elif family == "convolutional":
            del options["contractive"]
            options |= {"kernel_size": (2, 5), "code_activation": bounded[1:]}
        elif family == "variational":
            del options["tied"]
            options |= {"free_bits": (0.1,), "likelihood": ("bernoulli", "gaussian")}
        else:
            options |= {"code_activation": bounded[1:]}
        chosen = self.some(options)
        if self.rng.random() < 0.8:  # many configurations reject these
            chosen.pop("contractive", None)
            chosen.pop("scaling" if self.rng.random() < 0.5 else "output_activation", 0)
        sparsity = self.sparsity(units)
        if family == "shallow":
            return models.shallow(shape, units, sparsity, **chosen)
        widths = (6, units)
        if family == "variational":
            latent_dim = self.choose("latent_dim", 1, 3)
            kwargs = {"sparsity": sparsity, **chosen}
            return models.variational(shape, units, latent_dim, **kwargs)
        sparsities = sparsity
        if self.choose("per layer", False, True):
            sparsities = [self.sparsity(6, "outer sparsity"), sparsity]
        return getattr(models, family)(shape, widths, sparsities, **chosen)

    def data(self, model: models.Autoencoder) -> np.ndarray:
        samples = self.choose("samples", 9, 16)
        size = (samples, *model.sample_shape)
        if self.choose("data", "uniform", "normal") == "normal":
            return self.rng.normal(size=size).astype("float32")
        return self.rng.random(size, dtype="float32")

    def train(self, model: models.Autoencoder, x: np.ndarray) -> dict[str, list[float]]:
        optimizers = {
            "adam": keras.optimizers.Adam(1e-3),
            "sgd": keras.optimizers.SGD(1e-2, momentum=0.9),
            "adamw": keras.optimizers.AdamW(1e-3, weight_decay=1e-3),
        }
        # Tracing takes most of a case's time, so few cases use a graph.
        eager = bool(self.rng.random() < 0.8) and BACKEND != "jax"
        self.drawn["eager"] = eager
        model.compile(
            optimizers[self.choose("optimizer", *optimizers)], run_eagerly=eager
        )
        if self.choose("adapt", True, True, True, False):
            model.adapt(x)
        options = self.some(
            {
                "validation_split": (0.3,),
                "validation_data": (x[:3], (x[:3], x[:3])),
                "sample_weight": (self.rng.random(len(x), dtype="float32"),),
                "shuffle": (False,),
            }
        )
        if "validation_data" in options:
            options.pop("validation_split", None)
        batch_size = self.choose("batch_size", 4, 5, len(x))
        epochs = self.choose("epochs", 1, 2)
        fit = {"epochs": epochs, "batch_size": batch_size, "verbose": 0}
        return model.fit(x, **fit, **options).history


def _check_case(case: int, folder: Path) -> tuple[str, dict[str, Any]]:
    """Return the outcome, `"works"` or `"refused: ..."`, and the configuration."""
    draw = _Draw(case)
    keras.utils.set_random_seed(case)
    policy = "float32"
    if draw.rng.random() < 0.5:
        policy = draw.choose("policy", *POLICIES)
    if (BACKEND, policy) == ("jax", "float64"):  # JAX has no float64 by default
        policy = "float32"
    keras.config.set_dtype_policy(policy)
    try:
        model = draw.model()
        x = draw.data(model)
        history = draw.train(model, x)
    except ValueError as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        if not last.filename.startswith(PACKAGE):
            raise AssertionError(f"{draw.drawn}") from error
        return f"refused: {str(error)[:50]}", draw.drawn
    except Exception as error:
        raise AssertionError(f"{draw.drawn}") from error
    recipe = f"{draw.drawn}"
    for name, values in history.items():
        assert np.isfinite(values).all(), (name, values, recipe)
    tolerance = TOLERANCES.get(policy, 0.2)
    close = {"rtol": tolerance, "atol": tolerance, "err_msg": recipe}
    predicted = np.asarray(model.predict(x, verbose=0), "float32")
    assert np.isfinite(predicted).all(), recipe
    decoded = np.asarray(model.decode(model.encode(x)), "float32")
    np.testing.assert_allclose(decoded, predicted, **close)
    model.save(folder / "model.keras")
    loaded = keras.saving.load_model(folder / "model.keras")
    assert type(loaded) is type(model), recipe
    for one, other in zip(model.weights, loaded.weights, strict=True):
        before, after = (keras.ops.convert_to_numpy(w) for w in (one, other))
        np.testing.assert_array_equal(before, after, err_msg=f"{one.path} {recipe}")
    again = np.asarray(loaded.predict(x, verbose=0), "float32")
    np.testing.assert_allclose(again, predicted, **close)
    return "works", draw.drawn


def _run(first: int, cases: int, folder: Path, record_property: Callable) -> None:
    outcomes: Counter[str] = Counter()
    faults = []
    for case in range(first, first + cases):
        try:
            outcome, _ = _check_case(case, folder)
        except Exception as error:
            outcome = "FAULT"
            cause = error.__cause__ or error
            faults.append(f"{case}: {type(cause).__name__}: {cause}\n    {error}")
        outcomes[outcome] += 1
        if case % 20 == 19:
            keras.utils.clear_session()
    lines = [f"{count:5d} {outcome}" for outcome, count in outcomes.most_common()]
    title = f"{cases} configurations on {BACKEND}:"
    record_property("counts", "\n".join([title, *lines]))
    assert not faults, "\n".join(faults)
    assert cases < 10 or outcomes["works"] > cases / 3


def test_a_few_configurations_work_or_are_refused(tmp_path):
    _run(0, 5, tmp_path, lambda *_: None)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_configurations_work_or_are_refused(tmp_path, record_property, pytestconfig):
    options = ("--campaign-first", "--campaign-cases")
    first, cases = (pytestconfig.getoption(name) for name in options)
    _run(first, cases, tmp_path, record_property)
