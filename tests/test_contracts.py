"""What holds for every public class: see the suites in CONTRIBUTING.md."""

import inspect
import json
import pickle

import contracts
import keras
import numpy as np
import pytest
from contracts import LAYERS, METRICS, MODELS, REGULARIZERS, SAMPLE, batch, each
from helpers import assert_same_weights, to_numpy, total, weights_of

from keras_sae import layers
from keras_sae.regularizers import L1, KLDivergence

POLICIES = ["float32", "mixed_float16", "mixed_bfloat16", "bfloat16"]
policies = pytest.mark.parametrize("policy", POLICIES)

MAKERS = {
    **{name: case.make for name, case in {**LAYERS, **METRICS, **MODELS}.items()},
    **REGULARIZERS,
    **contracts.PARTS,
}
makers = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


def test_every_public_class_has_a_case():
    cases = {type(make()) for make in [*MAKERS.values(), *contracts.CALLBACKS.values()]}
    missing = [
        name
        for name, cls in contracts.public_classes().items()
        if cls not in cases and name not in contracts.EXEMPT
    ]
    assert not missing, f"Add a line to tests/contracts.py for {missing}."


# Configuration.


@makers
def test_config_survives_json(make):
    thing = make()
    serialize = keras.saving.serialize_keras_object
    text = json.dumps(serialize(thing))
    again = keras.saving.deserialize_keras_object(json.loads(text))
    assert type(again) is type(thing)
    assert json.loads(json.dumps(serialize(again))) == json.loads(text)


@makers
def test_config_names_every_argument(make):
    thing = make()
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    signature = inspect.signature(type(thing).__init__)
    arguments = {
        name
        for name, argument in signature.parameters.items()
        if argument.kind not in kinds
    } - {"self"}
    assert arguments <= set(thing.get_config())


@makers
def test_config_makes_the_same_thing(make):
    thing = make()
    again = type(thing).from_config(thing.get_config())
    assert type(again) is type(thing)
    assert json.dumps(again.get_config(), sort_keys=True, default=repr) == json.dumps(
        thing.get_config(), sort_keys=True, default=repr
    )


@makers
def test_registered_under_our_name(make):
    assert keras.saving.get_registered_name(type(make())).startswith("keras_sae>")


# Layers.


@each(LAYERS)
def test_layer_holds_what_it_should(case):
    layer = case.make()
    outputs = layer(batch(case))
    assert len(layer.trainable_weights) == case.trainable
    assert len(layer.non_trainable_weights) == case.non_trainable
    assert len(layer.losses) == case.losses
    assert len([v for v in layer.variables if "seed" in v.path]) == case.seeds
    assert tuple(outputs.shape) == tuple(layer.compute_output_shape((6, *SAMPLE)))


@each(LAYERS)
def test_layer_takes_an_unknown_batch(case):
    layer = case.make()
    outputs = layer(keras.Input(SAMPLE))
    assert outputs.shape[0] is None
    assert tuple(outputs.shape) == tuple(layer.compute_output_shape((None, *SAMPLE)))
    eager = layer(batch(case))
    assert tuple(eager.shape[1:]) == tuple(outputs.shape[1:])


@each(LAYERS)
def test_layer_takes_further_axes(case):
    x = np.stack([batch(case), batch(case)], axis=1)
    layer = case.make()
    outputs = to_numpy(layer(x))
    assert outputs.shape == tuple(layer.compute_output_shape(x.shape))
    np.testing.assert_allclose(outputs[:, 0], outputs[:, 1], rtol=1e-6)


@each(LAYERS)
def test_layer_trains_for_a_step(case):
    model = keras.Sequential([keras.Input(SAMPLE), keras.layers.Dense(12), case.make()])
    model.compile("sgd", "mse", jit_compile=False)
    before = weights_of(model)
    x = batch(case)
    loss = model.train_on_batch(x, np.ones(model.output_shape[1:])[None].repeat(6, 0))
    assert np.isfinite(loss)
    moved = [
        not np.array_equal(a, b) for a, b in zip(before, weights_of(model), strict=True)
    ]
    trained = [any(v is w for v in model.trainable_weights) for w in model.weights]
    assert all(m for m, t in zip(moved, trained, strict=True) if t)


@each({name: case for name, case in LAYERS.items() if case.losses})
@pytest.mark.parametrize("times", [2, 8])
def test_layer_s_losses_do_not_see_the_batch_size(case, times):
    layer = case.make()
    x = batch(case)
    layer(x)
    once = total(layer.losses)
    layer(np.tile(x, (times, 1)))
    # The sum of one more float32 batch.
    assert total(layer.losses[-case.losses :]) == pytest.approx(once, rel=1e-5)


# Precision.


def sublayers(layer):
    """All layers inside, without Functional models and their inputs."""
    inside = layer._flatten_layers(include_self=False)
    functional = (keras.Model, keras.layers.InputLayer)
    return [x for x in inside if not isinstance(x, functional)]


@policies
@each(LAYERS)
def test_layer_precision(case, policy):
    layer = case.make(dtype=policy)
    outputs = (
        layer(batch(case), training=True)
        if accepts_training(layer)
        else layer(batch(case))
    )
    compute = keras.DTypePolicy(policy).compute_dtype
    assert keras.backend.standardize_dtype(outputs.dtype) == compute
    assert np.isfinite(to_numpy(outputs)).all()
    assert all(np.isfinite(to_numpy(loss)) for loss in layer.losses)
    assert all(x.dtype_policy.name == policy for x in sublayers(layer))


def accepts_training(layer) -> bool:
    return "training" in inspect.signature(layer.call).parameters


@policies
@each(LAYERS)
def test_layer_state_is_float32(case, policy):
    """Means, counts and scales: what a float16 would round or overflow."""
    layer = case.make(dtype=policy)
    layer.build((None, *SAMPLE))
    state = {v.path: v.dtype for v in layer.non_trainable_weights}  # no seeds
    assert set(state.values()) <= {"float32"}, state


@policies
@pytest.mark.parametrize(
    "name",
    [
        "shallow-l1-tied",
        "shallow-kl-momentum",
        "shallow-top-k",
        "shallow-batch-top-k",
        "shallow-batch-top-k-tied",
        "shallow-jump-relu",
        "shallow-gated",
        "shallow-matryoshka",
        "deep-tied",
        "variational",
    ],
)
def test_model_precision(name, policy):
    keras.config.set_dtype_policy(policy)
    model = MODELS[name].make()
    model.compile("sgd", jit_compile=False)
    logs = model.train_on_batch(batch(), return_dict=True)
    assert np.isfinite(list(logs.values())).all(), logs
    assert all(x.dtype_policy.name == policy for x in sublayers(model))
    assert np.isfinite(model.encode(batch())).all()


# Regularizers.


PLAIN = {"L1": L1(0.25), "KLDivergence": KLDivergence(0.125, 0.5)}


@pytest.mark.parametrize("regularizer", PLAIN.values(), ids=PLAIN)
@pytest.mark.parametrize("times", [2, 8, 64])
def test_regularizer_scales_with_the_batch(regularizer, times):
    """Keras divides by the batch, so the value itself is proportional to it."""
    code = np.random.default_rng(0).uniform(0.1, 0.9, size=(4, 6)).astype("float32")
    many = float(regularizer(np.tile(code, (times, 1))))
    # A float32 sum over up to 64 x 24 numbers.
    assert many == pytest.approx(times * float(regularizer(code)), rel=1e-5)


# Saving.


def trained(case) -> keras.Model:
    """A compiled model after a step, so that no weight is at its initial value."""
    model = case.make()
    model.compile(keras.optimizers.Adam(0.01), jit_compile=False, **case.compile)
    model.train_on_batch(batch())
    return model


def assert_same_predictions(model, other) -> None:
    x = batch()
    for one, two in [(model, other), (model.encoder, other.encoder)]:
        np.testing.assert_allclose(
            to_numpy(one(x)), to_numpy(two(x)), rtol=1e-6, atol=1e-6
        )


def assert_same_tying(model, other) -> None:
    """Equal counts of weights, and a kernel that is one object in both or neither."""
    assert len(other.weights) == len(model.weights)
    assert len(other.trainable_weights) == len(model.trainable_weights)
    assert tied_pair(other) == tied_pair(model)


def tied_pair(model) -> bool:
    """Whether the decoder's kernels are those of the encoder, each by identity."""
    if not hasattr(model, "decoder"):
        return False
    sources = {id(getattr(layer, "kernel", None)) for layer in sublayers(model.encoder)}
    tied = [x for x in sublayers(model.decoder) if isinstance(x, layers.TiedDense)]
    return bool(tied) and all(id(layer.kernel) in sources for layer in tied)


def first_kernel(model) -> np.ndarray:
    return to_numpy(model.trainable_weights[0])


@pytest.fixture(scope="module", params=MODELS)
def model(request):
    """A trained model of each case; the tests of this section leave it as it is."""
    keras.utils.set_random_seed(1)
    model = trained(MODELS[request.param])
    assert tied_pair(model) == ("tied" in request.param)
    return model


def test_keras_file(model, tmp_path):
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert type(again) is type(model)
    assert_same_predictions(model, again)
    assert_same_tying(model, again)
    assert_same_weights(weights_of(model), weights_of(again))


def test_keras_file_keeps_the_compilation(model, tmp_path):
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.compiled
    assert again.optimizer.get_config() == model.optimizer.get_config()
    assert int(again.optimizer.iterations) == int(model.optimizer.iterations) == 1
    assert_same_weights(
        [to_numpy(v) for v in model.optimizer.variables],
        [to_numpy(v) for v in again.optimizer.variables],
    )
    data = [batch()]
    logs = [m.test_on_batch(*data, return_dict=True) for m in (model, again)]
    model.reset_metrics()
    assert logs[0].keys() == logs[1].keys()
    for name, value in logs[0].items():
        assert logs[1][name] == pytest.approx(value, rel=1e-5), name


def test_a_loaded_model_trains_on_tied(model, tmp_path):
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    # Only the reloaded one is trained: the fixture is shared.
    before = weights_of(model)
    again.train_on_batch(batch())
    assert_same_tying(model, again)
    assert_same_weights(before, weights_of(model))
    assert not np.array_equal(first_kernel(again), first_kernel(model))


def test_clone(model):
    clone = keras.models.clone_model(model)
    assert type(clone) is type(model)
    assert_same_tying(model, clone)
    clone.set_weights(model.get_weights())
    assert_same_predictions(model, clone)
    assert not {id(v) for v in clone.weights} & {id(v) for v in model.weights}


def test_pickle(model):
    again = pickle.loads(pickle.dumps(model))
    assert type(again) is type(model)
    assert_same_predictions(model, again)
    assert_same_tying(model, again)


def test_from_config(model):
    again = type(model).from_config(json.loads(json.dumps(model.get_config())))
    assert_same_tying(model, again)
    again.set_weights(model.get_weights())
    assert_same_predictions(model, again)


@pytest.mark.parametrize("name", MODELS)
def test_weights_alone(name, tmp_path):
    model, fresh = trained(MODELS[name]), MODELS[name].make()
    model.save_weights(tmp_path / "model.weights.h5")
    fresh.load_weights(tmp_path / "model.weights.h5")
    assert_same_predictions(model, fresh)
    assert_same_tying(model, fresh)


@each({name: x for name, x in LAYERS.items() if not name.startswith("TiedDense")})
def test_layer_survives_a_keras_file(case, tmp_path):
    """In a plain Keras model; `TiedDense` alone is held in test_layers.py."""
    model = keras.Sequential([keras.Input(SAMPLE), case.make(name="tested")])
    x = batch(case)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(to_numpy(model(x)), to_numpy(again(x)), rtol=1e-6)
    assert (
        again.get_layer("tested").get_config() == model.get_layer("tested").get_config()
    )
    assert_same_weights(weights_of(model), weights_of(again))
    assert total(again.losses) == pytest.approx(total(model.losses), rel=1e-6)


# Metrics.


@each(METRICS)
def test_metric_resets(case):
    metric = case.make()
    arrays = [batch() for _ in range(case.arrays)]
    metric.update_state(*arrays)
    first = float(metric.result())
    metric.update_state(*[np.ones_like(a) * 0.5 for a in arrays])
    metric.reset_state()
    metric.update_state(*arrays)
    assert float(metric.result()) == first


@each(METRICS)
@policies
def test_metric_is_float32_under_any_policy(case, policy):
    keras.config.set_dtype_policy(policy)
    metric = case.make()
    assert {v.dtype for v in metric.variables} == {"float32"}
    metric.update_state(*[batch() for _ in range(case.arrays)])
    assert keras.backend.standardize_dtype(metric.result().dtype) == "float32"


@each(METRICS)
def test_metric_does_not_see_the_batch_size(case):
    rng = np.random.default_rng(1)
    arrays = [rng.uniform(size=(23, 12)).astype("float32") for _ in range(case.arrays)]
    whole, parts = case.make(), case.make()
    whole.update_state(*arrays)
    for start in range(0, 23, 5):  # the last batch has 3
        parts.update_state(*[a[start : start + 5] for a in arrays])
    assert float(parts.result()) == pytest.approx(float(whole.result()), rel=1e-5)


# Callbacks.


@each(contracts.CALLBACKS)
@pytest.mark.filterwarnings("ignore:`SparsityTarget` ended")  # two epochs are few
def test_callback_watches_two_fits(case):
    """One object may serve one fit after another, and logs finite figures."""
    model = MODELS["shallow-l1"].make()
    model.compile("sgd", jit_compile=False)
    callback = case()
    plain = set(model.fit(batch(), epochs=1, verbose=0).history)
    for _ in range(2):
        fit = model.fit(batch(), epochs=2, verbose=0, callbacks=[callback])
        assert plain <= set(fit.history)
        # What watches adds to the logs; what shows them writes files.
        shows = isinstance(callback, keras.callbacks.TensorBoard)
        assert shows or plain < set(fit.history)
        assert all(len(values) == 2 for values in fit.history.values())
        assert np.isfinite(list(fit.history.values())).all()


@each(contracts.CALLBACKS)
@pytest.mark.filterwarnings("ignore:`SparsityTarget` ended")  # two epochs are few
def test_callback_leaves_the_model_as_it_can_be_saved(case, tmp_path):
    model = MODELS["shallow-l1"].make()
    model.compile("sgd", jit_compile=False)
    model.fit(batch(), epochs=2, verbose=0, callbacks=[case()])
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert_same_predictions(model, again)
    assert_same_weights(weights_of(model), weights_of(again))
