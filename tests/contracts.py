"""The table of public classes: one line per class, for all contract suites.

`test_contracts.py` runs the suites over these cases. It fails for a public class that
has none.
"""

import importlib.util
import inspect
import pkgutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import keras
import numpy as np
import pytest

import keras_sae
from keras_sae import activations, callbacks, layers, metrics, models
from keras_sae.regularizers import L1, KLDivergence

SAMPLE = (12,)

# Modules that are no part of the public API, and why.
NOT_PUBLIC = {
    "cli": "used from a shell; tested in test_cli.py",
    "ops": "used by layers; `SparseCode` is described for authors of a sparsity",
    "types": "names of types, without code",
    "utils": "used by the package itself",
}


@dataclass
class LayerCase:
    """A layer, and the weights and losses that it has once built on `SAMPLE`."""

    make: Callable[..., keras.layers.Layer]  # takes Keras's `dtype=` and `name=`
    trainable: int
    non_trainable: int
    losses: int = 0
    seeds: int = 0


def _tied(**kwargs: Any) -> keras.layers.Layer:
    source = layers.SparseDense(SAMPLE[0], name="source", dtype=kwargs.get("dtype"))
    source.build((None, 7))
    return layers.TiedDense(source, **kwargs)


def _sparse(sparsity: Any = None, **defaults: Any) -> Callable[..., Any]:
    return lambda **kwargs: layers.SparseDense(
        5, sparsity=sparsity, **defaults, **kwargs
    )


def _penalty(regularizer: Any, bounds: tuple[float, float]) -> Callable[..., Any]:
    return lambda **kwargs: layers.ActivityPenalty(regularizer, bounds, **kwargs)


# `SparseDense` has a kernel, a bias and `steps_since_active`. A penalty has its
# coefficient, and one more variable for a running mean. A tied layer shares a kernel.
LAYERS = {
    "SparseDense": LayerCase(_sparse(), 2, 1),
    "SparseDense-no-bias": LayerCase(_sparse(use_bias=False), 1, 1),
    "SparseDense-rows": LayerCase(_sparse(transposed_kernel=True), 2, 1),
    "SparseDense-l1": LayerCase(_sparse("l1"), 2, 2, losses=1),
    "SparseDense-kl": LayerCase(_sparse("kl"), 2, 2, losses=1),
    "SparseDense-tanh": LayerCase(_sparse("kl", activation="tanh"), 2, 2, losses=1),
    "SparseDense-momentum": LayerCase(
        _sparse(KLDivergence(0.1, momentum=0.9)), 2, 3, losses=1
    ),
    "SparseDense-keras": LayerCase(
        _sparse(keras.regularizers.L1L2(1e-3, 1e-3)), 2, 2, losses=1
    ),
    "ActivityPenalty-l1": LayerCase(_penalty(L1(0.1), (0.0, 1.0)), 0, 1, losses=1),
    "ActivityPenalty-kl": LayerCase(
        _penalty(KLDivergence(0.1), (-1.0, 1.0)), 0, 1, losses=1
    ),
    # A selection has no variables, except an annealed `k`, or the threshold of
    # `BatchTopK` with the number of its updates.
    "TopK": LayerCase(lambda **kw: layers.TopK(3, **kw), 0, 0),
    "TopK-annealed": LayerCase(lambda **kw: layers.TopK(3, initial_k=6, **kw), 0, 1),
    "BatchTopK": LayerCase(lambda **kw: layers.BatchTopK(3, **kw), 0, 2),
    "UnitNormDense": LayerCase(lambda **kw: layers.UnitNormDense(5, **kw), 2, 0),
    "LifetimeSparsity": LayerCase(
        lambda **kw: layers.LifetimeSparsity(0.5, **kw), 0, 0
    ),
    "JumpReLU": LayerCase(
        lambda **kw: layers.JumpReLU(0.1, threshold=0.1, bandwidth=2.0, **kw),
        1,
        1,
        losses=1,
    ),
    "JumpReLU-target": LayerCase(
        lambda **kw: layers.JumpReLU(0.1, target_l0=2, bandwidth=2.0, **kw),
        1,
        1,
        losses=1,
    ),
    "Gated": LayerCase(lambda **kw: layers.Gated(0.1, **kw), 2, 1, losses=1),
    "Matryoshka": LayerCase(
        lambda **kw: layers.Matryoshka(layers.BatchTopK(3), (2, 4), **kw), 0, 2
    ),
    "SparseDense-top_k": LayerCase(_sparse(layers.TopK(2)), 2, 1),
    "SparseDense-gated": LayerCase(_sparse("gated"), 4, 2, losses=1),
    "TiedDense": LayerCase(_tied, 2, 0),
    "TiedDense-no-bias": LayerCase(lambda **kw: _tied(use_bias=False, **kw), 1, 0),
    "Centering": LayerCase(layers.Centering, 0, 2),
    "Scaling": LayerCase(layers.Scaling, 0, 1),
    "Scaling-inverse": LayerCase(lambda **kw: layers.Scaling(inverse=True, **kw), 0, 1),
    "MaskingNoise": LayerCase(
        lambda **kw: layers.MaskingNoise(0.5, **kw), 0, 0, seeds=1
    ),
    "SaltAndPepperNoise": LayerCase(
        lambda **kw: layers.SaltAndPepperNoise(0.5, **kw), 0, 0, seeds=1
    ),
    "Sampling": LayerCase(
        lambda **kw: layers.Sampling(0.1, **kw), 0, 1, losses=1, seeds=1
    ),
}

REGULARIZERS = {
    "L1": lambda: L1(0.25),
    "KLDivergence": lambda: KLDivergence(0.125, 0.5),
    "KLDivergence-momentum": lambda: KLDivergence(0.125, 0.5, momentum=0.75),
}


@dataclass
class MetricCase:
    """A streaming metric, and the arrays of one update."""

    make: Callable[..., keras.metrics.Metric]
    arrays: int = 1  # arguments of `update_state`
    exact: bool = True  # whether batches of any size give the same result


METRICS = {
    "L0": MetricCase(lambda: metrics.L0(name="active")),
    "L0-bounds": MetricCase(lambda: metrics.L0((-1.0, 1.0))),
    "EffectiveL0": MetricCase(metrics.EffectiveL0, exact=False),
    "ExplainedVariance": MetricCase(lambda: metrics.ExplainedVariance(12), arrays=2),
}


@dataclass
class ModelCase:
    """A model of inputs of shape `SAMPLE` in [0, 1], and arguments of `compile`."""

    make: Callable[..., keras.Model]
    compile: dict[str, Any] = field(default_factory=dict)


def _shallow(sparsity: Any = None, **kwargs: Any) -> Callable[[], keras.Model]:
    return lambda: models.shallow(SAMPLE, 5, sparsity, **kwargs)


MODELS = {
    "shallow": ModelCase(_shallow()),
    "shallow-l1": ModelCase(_shallow(L1(0.01))),
    "shallow-l1-tied": ModelCase(_shallow(L1(0.01), tied=True)),
    "shallow-kl": ModelCase(_shallow(KLDivergence(0.1, 0.01))),
    "shallow-kl-tied": ModelCase(
        _shallow(KLDivergence(0.1, 0.01), tied=True, output_activation="sigmoid"),
        {"loss": "binary_crossentropy", "metrics": ["mae"]},
    ),
    "shallow-kl-momentum": ModelCase(_shallow(KLDivergence(0.1, 0.01, momentum=0.9))),
    "shallow-published": ModelCase(
        _shallow(L1(0.01), unit_norm=False, centering=False, kernel_regularizer="l2")
    ),
    "shallow-contractive": ModelCase(
        _shallow(
            contractive=0.1,
            activation="sigmoid",
            corruption=keras.layers.GaussianNoise(0.1),
        )
    ),
    "shallow-top-k": ModelCase(
        _shallow(layers.TopK(2, initial_k=4, auxiliary=layers.AuxK(dead_after=1)))
    ),
    "shallow-batch-top-k": ModelCase(_shallow(layers.BatchTopK(2))),
    "shallow-batch-top-k-tied": ModelCase(_shallow(layers.BatchTopK(2), tied=True)),
    "shallow-jump-relu": ModelCase(_shallow(layers.JumpReLU(0.01, bandwidth=0.5))),
    "shallow-gated": ModelCase(_shallow("gated")),
    "shallow-matryoshka": ModelCase(
        _shallow(layers.Matryoshka(layers.BatchTopK(2), (2, 5)))
    ),
    "shallow-matryoshka-jump-relu": ModelCase(
        _shallow(layers.Matryoshka(layers.JumpReLU(0.01, bandwidth=0.5), (2, 5)))
    ),
    "shallow-matryoshka-gated": ModelCase(
        _shallow(layers.Matryoshka(layers.Gated(), (2, 5)))
    ),
    "deep": ModelCase(lambda: models.deep(SAMPLE, (7, 3), L1(0.01))),
    "deep-tied": ModelCase(lambda: models.deep(SAMPLE, (7, 3), L1(0.01), tied=True)),
    "stacked-tied": ModelCase(lambda: models.stacked(SAMPLE, (7, 3), "kl", tied=True)),
    "variational": ModelCase(lambda: models.variational(SAMPLE, (7,), latent_dim=3)),
    "variational-l1": ModelCase(
        lambda: models.variational(SAMPLE, (7,), latent_dim=3, sparsity=L1(0.01))
    ),
    "variational-kl": ModelCase(
        lambda: models.variational(SAMPLE, (7,), latent_dim=3, sparsity="kl")
    ),
    "variational-top-k": ModelCase(
        lambda: models.variational(SAMPLE, (7,), 3, sparsity=layers.TopK(2))
    ),
}

# Other classes that are saved with a model.
PARTS = {
    "GaussianLikelihood": lambda: models.GaussianLikelihood(0.25),
    "AuxK": lambda: layers.AuxK(k_aux=4, factor=0.5, dead_after=7),
    "BernoulliLikelihood": models.BernoulliLikelihood,
    "Edit": lambda: activations.Edit([1, 3], [0.5, 2.0], multiply=True),
    # Needs images: its behaviour is tested in test_convolutional.py.
    "TiedConv2DTranspose": lambda: layers.TiedConv2DTranspose("source", 2, 3),
}

CALLBACKS: dict[str, Callable[[], keras.callbacks.Callback]] = {
    "SparsityWarmup": lambda: callbacks.SparsityWarmup(epochs=1),
    "SparsityTarget": lambda: callbacks.SparsityTarget(l0=2.5),
    "DeadUnits": lambda: callbacks.DeadUnits(),
    "TensorBoard": lambda: callbacks.TensorBoard(tempfile.mkdtemp(), batch(samples=8)),
    "DeadUnits-resample": lambda: callbacks.DeadUnits(resample=batch(samples=8)),
}

# Public classes without a case, and why.
_BASELINE = "a closed-form model for comparison, no Keras object"
EXEMPT = {
    "keras_sae.evaluation.DictionaryLearning": _BASELINE,
    "keras_sae.evaluation.PCA": _BASELINE,
    "keras_sae.evaluation.RandomEncoder": _BASELINE,
    "keras_sae.evaluation.Identity": _BASELINE,
    "keras_sae.activations.ActivationStore": "files, no Keras object",
    "keras_sae.activations.SplicedModel": "its contract is test_activations_splice.py",
    "keras_sae.datasets.Superposition": "data, no Keras object",
    "keras_sae.layers.Sparsity": "the base class; its contract is in test_sparsity.py",
    "keras_sae.wrappers.SparseAutoencoder": "tested by scikit-learn's own checks",
    "keras_sae.models.Transcoder": "its contract is in test_transcoder.py",
    "keras_sae.models.Level": "a view of a model's layers, never saved",
    "keras_sae.tuning.FailedTrialsError": "an exception",
    "keras_sae.tuning.ReconstructionUnderL0": "an objective, never saved",
    "keras_sae.tuning.SparsityHyperModel": "a search space, never saved",
    "keras_sae.tuning.ConstraintError": "an exception",
}


def each(table: dict[str, Any]) -> pytest.MarkDecorator:
    """Parametrize a test over a table, by the argument `case`."""
    return pytest.mark.parametrize("case", table.values(), ids=table)


def batch(low: float = 0.0, samples: int = 6) -> np.ndarray:
    """Return uniform inputs between `low` and 1."""
    rng = np.random.default_rng(0)
    return rng.uniform(low, 1.0, size=(samples, *SAMPLE)).astype("float32")


def public_modules() -> list[str]:
    """Return the modules that a user imports, `keras_sae.<name>`."""
    names = [module.name for module in pkgutil.iter_modules(keras_sae.__path__)]
    return [
        f"keras_sae.{name}"
        for name in names
        if not name.startswith("_")
        and name not in NOT_PUBLIC
        and (name != "beam" or importlib.util.find_spec("apache_beam"))
    ]


def public_objects() -> Iterator[tuple[str, Any]]:
    """Yield every public function and class, with its full name.

    A package lists its public names in `__all__`. A module without `__all__` is public
    in all that it defines itself.
    """
    for module_name in public_modules():
        module = import_module(module_name)
        listed = getattr(module, "__all__", None)
        for name in sorted(listed or vars(module)):
            value = getattr(module, name)
            if not (inspect.isclass(value) or inspect.isfunction(value)):
                continue
            own = value.__module__.startswith("keras_sae" if listed else module_name)
            if own and (listed or not name.startswith("_")):
                yield f"{module_name}.{name}", value


def public_classes() -> dict[str, type]:
    """Return the public classes by their full names."""
    return {name: x for name, x in public_objects() if inspect.isclass(x)}
