"""What holds for every public class. `contracts.py` is the table of cases."""

import inspect
import json
import pickle

import contracts
import keras
import numpy as np
import pytest
from contracts import LAYERS, METRICS, MODELS, REGULARIZERS, SAMPLE, batch, each
from helpers import BACKEND, assert_same_weights, to_numpy, total, weights_of

from keras_sae import layers
from keras_sae.regularizers import L1, KLDivergence

# XLA compiles a step faster than JAX runs it op by op. On TensorFlow it is slower.
JIT = BACKEND == "jax"

POLICIES = ["float32", "mixed_float16", "mixed_bfloat16", "bfloat16"]
policies = pytest.mark.parametrize("policy", POLICIES)

MAKERS = {
    **{name: case.make for name, case in {**LAYERS, **METRICS, **MODELS}.items()},
    **REGULARIZERS,
    **contracts.PARTS,
}


@pytest.fixture(scope="module", params=MAKERS.values(), ids=MAKERS)
def thing(request):
    """An object of each case that is not a callback. Tests leave it unchanged."""
    return request.param()


def test_every_public_class_has_a_case():
    makers = [*MAKERS.values(), *contracts.CALLBACKS.values()]
    cases = {type(make()) for make in makers}
    missing = [
        name
        for name, cls in contracts.public_classes().items()
        if cls not in cases and name not in contracts.EXEMPT
    ]
    assert not missing, f"Add a line to tests/contracts.py for {missing}."


# Configuration.


def test_config_survives_json(thing):
    serialize = keras.saving.serialize_keras_object
    text = json.dumps(serialize(thing))
    again = keras.saving.deserialize_keras_object(json.loads(text))
    assert type(again) is type(thing)
    assert json.loads(json.dumps(serialize(again))) == json.loads(text)


def test_config_contains_every_argument(thing):
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    signature = inspect.signature(type(thing).__init__)
    arguments = {
        name
        for name, argument in signature.parameters.items()
        if argument.kind not in kinds
    } - {"self"}
    assert arguments <= set(thing.get_config())


def test_from_config_makes_an_equal_object(thing):
    again = type(thing).from_config(thing.get_config())
    assert type(again) is type(thing)
    assert json.dumps(again.get_config(), sort_keys=True, default=repr) == json.dumps(
        thing.get_config(), sort_keys=True, default=repr
    )


def test_registered_under_our_name(thing):
    assert keras.saving.get_registered_name(type(thing)).startswith("keras_sae>")


# Layers.


@each(LAYERS)
def test_layer_has_the_expected_weights_and_losses(case):
    layer = case.make()
    outputs = layer(batch(-1))
    assert len(layer.trainable_weights) == case.trainable
    assert len(layer.non_trainable_weights) == case.non_trainable
    assert len(layer.losses) == case.losses
    assert len([v for v in layer.variables if "seed" in v.path]) == case.seeds
    assert tuple(outputs.shape) == tuple(layer.compute_output_shape((6, *SAMPLE)))


@each(LAYERS)
def test_layer_takes_an_unknown_batch_size(case):
    layer = case.make()
    outputs = layer(keras.Input(SAMPLE))
    assert outputs.shape[0] is None
    assert tuple(outputs.shape) == tuple(layer.compute_output_shape((None, *SAMPLE)))
    eager = layer(batch(-1))
    assert tuple(eager.shape[1:]) == tuple(outputs.shape[1:])


@each(LAYERS)
def test_layer_takes_further_axes(case):
    x = np.stack([batch(-1), batch(-1)], axis=1)
    layer = case.make()
    outputs = to_numpy(layer(x))
    assert outputs.shape == tuple(layer.compute_output_shape(x.shape))
    np.testing.assert_allclose(outputs[:, 0], outputs[:, 1], rtol=1e-6)


@each(LAYERS)
def test_a_step_trains_every_trainable_weight_of_a_layer(case):
    model = keras.Sequential([keras.Input(SAMPLE), keras.layers.Dense(12), case.make()])
    model.compile("sgd", "mse", jit_compile=JIT)
    before = weights_of(model)
    targets = np.ones((6, *model.output_shape[1:]), "float32")
    assert np.isfinite(model.train_on_batch(batch(-1), targets))
    for variable, old, new in zip(
        model.weights, before, weights_of(model), strict=True
    ):
        if any(variable is v for v in model.trainable_weights):
            assert not np.array_equal(old, new), variable.path


@each({name: case for name, case in LAYERS.items() if case.losses})
@pytest.mark.parametrize("times", [2, 8])
def test_losses_of_a_layer_do_not_depend_on_the_batch_size(case, times):
    layer = case.make()
    x = batch(-1)
    layer(x)
    once = total(layer.losses)
    layer(np.tile(x, (times, 1)))
    # A float32 sum over more samples.
    assert total(layer.losses[-case.losses :]) == pytest.approx(once, rel=1e-5)


# Precision.


def sublayers(layer):
    """Return all layers inside, without Functional models and their inputs."""
    inside = layer._flatten_layers(include_self=False)
    functional = (keras.Model, keras.layers.InputLayer)
    return [x for x in inside if not isinstance(x, functional)]


@policies
@each(LAYERS)
def test_layer_computes_in_the_precision_of_its_policy(case, policy):
    layer = case.make(dtype=policy)
    takes_training = "training" in inspect.signature(layer.call).parameters
    outputs = layer(batch(-1), **({"training": True} if takes_training else {}))
    compute = keras.DTypePolicy(policy).compute_dtype
    assert keras.backend.standardize_dtype(outputs.dtype) == compute
    assert np.isfinite(to_numpy(outputs)).all()
    assert all(np.isfinite(to_numpy(loss)) for loss in layer.losses)
    assert all(x.dtype_policy.name == policy for x in sublayers(layer))


@policies
@each(LAYERS)
def test_state_of_a_layer_is_float32(case, policy):
    """A float16 would round means and counts, or overflow."""
    layer = case.make(dtype=policy)
    layer.build((None, *SAMPLE))
    state = {v.path: v.dtype for v in layer.non_trainable_weights}  # no seeds
    assert set(state.values()) <= {"float32"}, state


@pytest.mark.parametrize(
    "policy",
    [
        pytest.param("float32", marks=pytest.mark.slow),
        "mixed_float16",
        pytest.param("mixed_bfloat16", marks=pytest.mark.slow),
        "bfloat16",
    ],
)
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
def test_model_trains_in_the_precision_of_the_policy(name, policy):
    keras.config.set_dtype_policy(policy)
    model = MODELS[name].make()
    model.compile("sgd", jit_compile=JIT)
    logs = model.train_on_batch(batch(), return_dict=True)
    assert np.isfinite(list(logs.values())).all(), logs
    assert all(x.dtype_policy.name == policy for x in sublayers(model))
    assert np.isfinite(model.encode(batch())).all()


# Regularizers.


PLAIN = {"L1": L1(0.25), "KLDivergence": KLDivergence(0.125, 0.5)}


@pytest.mark.parametrize("regularizer", PLAIN.values(), ids=PLAIN)
@pytest.mark.parametrize("times", [2, 8, 64])
def test_regularizer_is_proportional_to_the_batch_size(regularizer, times):
    """Keras divides the value by the batch size."""
    code = np.random.default_rng(0).uniform(0.1, 0.9, size=(4, 6)).astype("float32")
    many = float(regularizer(np.tile(code, (times, 1))))
    # A float32 sum over up to 64 x 24 values.
    assert many == pytest.approx(times * float(regularizer(code)), rel=1e-5)


# Saving.


def assert_same_predictions(model, other) -> None:
    x = batch()
    for one, two in [(model, other), (model.encoder, other.encoder)]:
        np.testing.assert_allclose(
            to_numpy(one(x)), to_numpy(two(x)), rtol=1e-6, atol=1e-6
        )


def assert_same_tying(model, other) -> None:
    """Compare the numbers of weights, and whether kernels are shared."""
    assert len(other.weights) == len(model.weights)
    assert len(other.trainable_weights) == len(model.trainable_weights)
    assert is_tied(other) == is_tied(model)


def is_tied(model) -> bool:
    """Return whether the decoder's kernels are the very objects of the encoder."""
    sources = {id(getattr(layer, "kernel", None)) for layer in sublayers(model.encoder)}
    tied = [x for x in sublayers(model.decoder) if isinstance(x, layers.TiedDense)]
    return bool(tied) and all(id(layer.kernel) in sources for layer in tied)


def first_kernel(model) -> np.ndarray:
    return to_numpy(model.trainable_weights[0])


@pytest.fixture(scope="module", params=MODELS)
def model(request):
    """A model of each case after one step, so that no weight is at its initial value.

    Tests leave its weights unchanged. Its steps run eagerly, which is faster than to
    trace them.
    """
    keras.utils.set_random_seed(1)
    case = MODELS[request.param]
    model = case.make()
    adam = keras.optimizers.Adam(0.01)
    model.compile(adam, run_eagerly=True, jit_compile=False, **case.compile)
    logs = model.train_on_batch(batch(), return_dict=True)
    assert np.isfinite(list(logs.values())).all(), logs
    assert is_tied(model) == ("tied" in request.param)
    return model


@pytest.fixture(scope="module")
def file(model, tmp_path_factory):
    """The `.keras` file of the model."""
    path = tmp_path_factory.mktemp("saved") / "model.keras"
    model.save(path)
    return path


@pytest.fixture(scope="module")
def loaded(file):
    """The model of the file. Tests leave its weights unchanged."""
    return keras.saving.load_model(file)


def test_model_survives_a_keras_file(model, loaded):
    assert type(loaded) is type(model)
    assert_same_predictions(model, loaded)
    assert_same_tying(model, loaded)
    assert_same_weights(weights_of(model), weights_of(loaded))
    assert np.isfinite(loaded.encode(batch())).all()


def test_keras_file_keeps_the_compilation(model, loaded):
    assert loaded.compiled
    assert loaded.run_eagerly
    assert loaded.optimizer.get_config() == model.optimizer.get_config()
    assert int(loaded.optimizer.iterations) == int(model.optimizer.iterations) == 1
    assert_same_weights(
        [to_numpy(v) for v in model.optimizer.variables],
        [to_numpy(v) for v in loaded.optimizer.variables],
    )
    logs = []
    for one in (model, loaded):
        one.reset_metrics()
        logs.append(one.test_on_batch(batch(), return_dict=True))
        one.reset_metrics()
    assert logs[0].keys() == logs[1].keys()
    for name, value in logs[0].items():
        assert logs[1][name] == pytest.approx(value, rel=1e-5), name


def test_a_loaded_model_trains_with_tied_weights(model, file):
    again = keras.saving.load_model(file)
    before = weights_of(model)
    again.train_on_batch(batch())
    assert_same_tying(model, again)
    assert_same_weights(before, weights_of(model))
    assert not np.array_equal(first_kernel(again), first_kernel(model))


def test_model_can_be_cloned(model):
    clone = keras.models.clone_model(model)
    assert type(clone) is type(model)
    assert_same_tying(model, clone)
    clone.set_weights(model.get_weights())
    assert_same_predictions(model, clone)
    assert not {id(v) for v in clone.weights} & {id(v) for v in model.weights}


def test_model_can_be_pickled(model):
    again = pickle.loads(pickle.dumps(model))
    assert type(again) is type(model)
    assert_same_predictions(model, again)
    assert_same_tying(model, again)


def test_model_can_be_made_from_its_config(model):
    again = type(model).from_config(json.loads(json.dumps(model.get_config())))
    assert_same_tying(model, again)
    again.set_weights(model.get_weights())
    assert_same_predictions(model, again)


def test_weights_can_be_saved_alone(model, request, tmp_path):
    fresh = MODELS[request.node.callspec.params["model"]].make()
    model.save_weights(tmp_path / "model.weights.h5")
    fresh.load_weights(tmp_path / "model.weights.h5")
    assert_same_predictions(model, fresh)
    assert_same_tying(model, fresh)


@each({name: x for name, x in LAYERS.items() if not name.startswith("TiedDense")})
def test_layer_survives_a_keras_file(case, tmp_path):
    """Inside a plain Keras model; test_tied.py tests `TiedDense`."""
    model = keras.Sequential([keras.Input(SAMPLE), case.make(name="tested")])
    x = batch(-1)
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
def test_metric_can_be_reset(case):
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


@each({name: case for name, case in METRICS.items() if case.exact})
def test_metric_does_not_depend_on_the_batch_size(case):
    rng = np.random.default_rng(1)
    arrays = [rng.uniform(size=(23, 12)).astype("float32") for _ in range(case.arrays)]
    whole, parts = case.make(), case.make()
    whole.update_state(*arrays)
    for start in range(0, 23, 5):  # the last batch has 3
        parts.update_state(*[a[start : start + 5] for a in arrays])
    assert float(parts.result()) == pytest.approx(float(whole.result()), rel=1e-5)


# Callbacks.


@pytest.fixture(
    scope="module", params=contracts.CALLBACKS.values(), ids=contracts.CALLBACKS
)
def watched(request):
    """A model after three fits, and their histories: one without the callback first."""
    model = MODELS["shallow-l1"].make()
    model.compile("sgd", jit_compile=JIT)
    callback = request.param()
    histories = [model.fit(batch(), epochs=2, verbose=0).history]
    for _ in range(2):
        fit = model.fit(batch(), epochs=2, verbose=0, callbacks=[callback])
        histories.append(fit.history)
    return model, callback, histories


@pytest.mark.filterwarnings("ignore:`SparsityTarget` ended")  # two epochs are few
def test_callback_logs_finite_metrics_in_one_fit_after_another(watched):
    _, callback, (plain, *histories) = watched
    # TensorBoard writes files, and the others add metrics to the logs.
    adds = not isinstance(callback, keras.callbacks.TensorBoard)
    for history in histories:
        assert set(plain) < set(history) if adds else set(plain) <= set(history)
        assert all(len(values) == 2 for values in history.values())
        assert np.isfinite(list(history.values())).all()


@pytest.mark.filterwarnings("ignore:`SparsityTarget` ended")
def test_callback_leaves_a_model_that_can_be_saved(watched, tmp_path):
    model, _, _ = watched
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert_same_predictions(model, again)
    assert_same_weights(weights_of(model), weights_of(again))
