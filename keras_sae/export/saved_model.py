"""Write trained models as SavedModels for TensorFlow Serving."""

import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_sae.export import serving_assets, verification
from keras_sae.export.signatures import (
    Signature,
    accept_empty_batches,
    image_signature,
    model_signatures,
)
from keras_sae.types import PathLike, Shape, Tensor
from keras_sae.utils import validation
from keras_sae.utils.io import atomic_write, output_folder

# Files that `build_artifact` reads, possibly in another process.
_MODEL, _ARRAYS, _OPTIONS = "model.keras", "arrays.npz", "options.json"
_ADVICE = "Choose another folder."
_HALF = ("float16", "bfloat16")


def export_saved_model(
    model: keras.Model, path: PathLike, version: int | None = None, **options: Any
) -> Path:
    """Write a SavedModel for TensorFlow Serving to `path/<version>/`.

    Each signature takes one named input with any batch size. Indices and labels are
    int32, and all other outputs are float32. A half-precision model is exported in
    float32. An autoencoder has these signatures:

    - `serving_default`, `reconstruct`: `x` to `reconstruction`
    - `encode`: `x` to `code`
    - `decode`: `code` to `reconstruction`
    - `top_features`: `x` to `indices` and `values` of the largest units
    - `anomaly_score`: `x` to `score = sum_d (x_d - r_d)^2`
    - `serve`: `x` to `model(x)`, as in Keras's own exports, for
      `keras.layers.TFSMLayer`

    For a variational model, `encode` returns `mean` and `log_variance`. The additional
    signature `sample` maps each int32 `seed` to one random `sample`. The default
    signature of a classifier is `classify`, from `x` to `probabilities` and `label`. A
    classifier also has `encode`, `top_features` and `serve`. Any other Keras model has
    `serving_default`, from `x` to `output_0`, and `serve`.

    The artifact's outputs are compared with the model's before the artifact is moved
    into place, so a version is either complete or absent. The version's `assets.extra`
    folder contains metadata and warm-up requests. The server's configuration file,
    `models.config`, is written to `path` if it does not exist. With the JAX and PyTorch
    backends, a separate TensorFlow process writes the artifact.

    Args:
        model: A functional or sequential Keras model with one input, or a model with a
            `serving_signatures(top_k)` method that returns a dict of
            `keras_sae.export.signatures.Signature`s.
        path: Folder that contains the versions. Its name is the default name of the
            model on the server.
        version: A positive integer. None means 1, or the highest existing version + 1.
        **options: Options of `write_artifact`.

    Returns:
        The path of the version.

    Raises:
        ValueError: `model` cannot be exported or outputs NaN, `path` is not writable,
            the version exists, or an option is invalid.
        OSError: The disk is full. No partial version remains.
        RuntimeError: The outputs of the artifact differ from those of the model, or the
            TensorFlow process failed.

    Example:

    >>> import tempfile
    >>> from keras_sae import export, models
    >>> model = models.shallow((8, 8, 1), units=16, sparsity="l1")
    >>> folder = export.export_saved_model(model, tempfile.mkdtemp() + "/sae")
    >>> folder.name, (folder / "saved_model.pb").exists()
    ('1', True)
    """
    if version is not None:
        version = validation.positive_integer("version", version)
    model_signatures(model, 1)  # raises an error before the folder is created
    path = output_folder(path, "path", _ADVICE)
    if version is None:
        names = [entry.name for entry in path.iterdir()]
        version = 1 + max((int(name) for name in names if name.isdecimal()), default=0)
    name = options["name"] = options.get("name") or path.resolve().name
    write_artifact(model, path / str(version), **options)
    config = path / "models.config"
    if not config.exists():  # A user may have edited it.
        # Protobuf text files quote and escape strings as JSON does. The server accepts
        # only absolute paths, and its container mounts models at `/models`.
        entry = f"name: {json.dumps(name)}, base_path: {json.dumps(f'/models/{name}')}"
        entry += ', model_platform: "tensorflow"'
        with atomic_write(config) as temporary:
            temporary.write_text(f"model_config_list {{ config {{ {entry} }} }}\n")
    return path / str(version)


def write_artifact(
    model: keras.Model,
    path: PathLike,
    *,
    top_k: int = 10,
    images: bool = False,
    input_range: tuple[float, float] | None = None,
    metrics: Mapping[str, float] | None = None,
    warmup: bool | None = None,
    name: str | None = None,
) -> Path:
    """Write the SavedModel of `export_saved_model` directly to `path`.

    Args:
        model: As for `export_saved_model`.
        path: Path of a new or empty folder.
        top_k: Number of units that `top_features` returns, limited to the code's width.
        images: Whether to add two signatures for each signature `NAME` that takes `x`:
            `NAME_uint8` (input `image`, bytes 0..255) and `NAME_png` (input
            `image_bytes`, PNG files). `serve` has none, and `serving_default` has them
            only in a plain Keras model.
        input_range: Input values that correspond to the bytes 0 and 255 of an image. If
            None, they are 0 and 1, and the metadata contains the range of the training
            data.
        metrics: Evaluation results to store in the metadata.
        warmup: Whether to write warm-up requests. If None, they are written if
            `tensorflow-serving-api` is installed, and otherwise a warning is issued.
        name: Name of the model on the server. The default is the name of `path`.

    Returns:
        The path of the artifact.

    Raises:
        ValueError, OSError, RuntimeError: As for `export_saved_model`.

    Example:

    >>> from keras_sae import export, models
    >>> model = models.shallow((6,), units=4, sparsity="l1")
    >>> export.write_artifact(model, "artifact", top_k=2).name
    'artifact'
    """
    path = Path(path)
    signatures = model_signatures(model, validation.positive_integer("top_k", top_k))
    if any(layer.compute_dtype in _HALF for layer in model._flatten_layers()):
        model = _float32_copy(model)
        signatures = model_signatures(model, top_k)
    shape = next(iter(signatures.values())).shape
    if images and (len(shape) != 3 or shape[-1] not in (1, 3, 4)):  # as in PNG files
        raise ValueError(
            "`images=True` needs samples of shape (height, width, channels) with 1, 3 "
            f"or 4 channels. Received: samples of shape {shape}. Remove `images=True`."
        )
    given = (0, 1) if input_range is None else input_range
    limits = np.ravel(given).astype("float64").tolist()
    if len(limits) != 2 or not -np.inf < limits[0] < limits[1] < np.inf:
        raise ValueError(
            "`input_range` must be two finite numbers, the lower first. Received: "
            f"input_range={input_range!r}. For pixels in [0, 1], pass (0.0, 1.0)."
        )
    seen = getattr(model, "input_range", None)
    if images and input_range is None and seen and (seen[0] < 0 or seen[1] > 1):
        raise ValueError(
            "`images=True` scales bytes to values from 0 to 1. Received: a model that "
            f"was trained on values from {seen[0]:g} to {seen[1]:g}. Pass the values "
            "for the bytes 0 and 255 as `input_range`, for example (-1.0, 1.0)."
        )
    device = str(keras.ops.matmul(np.ones((1, 1)), np.ones((1, 1))).device)
    options = {
        "name": name or path.resolve().name,
        "top_k": top_k,
        "images": images,
        "image_range": limits,
        "input_range": seen if input_range is None else limits,
        "warmup": serving_assets.check_warmup(warmup),
        "metrics": {key: float(value) for key, value in (metrics or {}).items()},
        # Accelerators may compute float32 products with reduced precision.
        "tolerance": 1e-5 if "cpu" in device.lower() else 3e-2,
    }
    _check_absent(path)
    output_folder(path.parent, "path", _ADVICE)
    try:
        with tempfile.TemporaryDirectory() as folder, atomic_write(path) as temporary:
            source = Path(folder)
            arrays = verification.example_answers(signatures, limits)
            np.savez(source / _ARRAYS, **arrays)  # type: ignore[arg-type]
            model.save(source / _MODEL)
            (source / _OPTIONS).write_text(json.dumps(options))
            if keras.backend.backend() == "tensorflow":
                build_artifact(source, temporary)
            else:
                _build_in_process(source, temporary)
    except OSError as error:
        _check_absent(path)  # another export may have finished first
        raise OSError(
            f"The artifact could not be written to {str(path)!r}: "
            f"{error.strerror or error}. No partial artifact remains."
        ) from error
    return path


def write_model(
    model: keras.Model,
    input_shape: Shape,
    path: PathLike,
    format: str,
    verbose: bool | None = None,
    **options: Any,
) -> None:
    """Export a model as `keras.Model.export` does, but atomically.

    A SavedModel is written by `write_artifact`. For other formats, Keras traces a
    float32 copy, not `model` itself. The model's config must be complete, because the
    copy is created from it.
    """
    path = Path(path)
    if format == "tf_saved_model":
        write_artifact(model, path, **options)
    else:
        copy = _float32_copy(model)
        for layer in copy._flatten_layers():
            layer.selects = False  # other formats lack sparse matrix products
        x = keras.Input(input_shape, name="x")
        exported = keras.Model(x, copy(x), name=model.name)
        exported(keras.ops.zeros((1, *input_shape)))  # required for ONNX
        with atomic_write(path) as temporary:
            exported.export(str(temporary), format, verbose=False, **options)
            for file in temporary.parent.iterdir():
                if file != temporary:  # OpenVINO writes its weights to a second file
                    os.replace(file, path.parent / file.name)
    if verbose:
        print(f"Saved artifact at {str(path)!r}.")


def _float32_copy(model: keras.Model) -> keras.Model:
    """Return a copy of the model that computes in float32.

    In half precision, rounding differences could change which units a `TopK` selects.
    """
    config = keras.saving.serialize_keras_object(model)
    config.pop("compile_config", None)
    text = json.dumps(config)
    for policy in (*_HALF, *(f"mixed_{name}" for name in _HALF)):
        text = text.replace(f'"{policy}"', '"float32"')
    own = {type(model).__name__: type(model)}
    copy = keras.saving.deserialize_keras_object(json.loads(text), own)
    copy.set_weights(model.get_weights())
    return copy


def _build_in_process(source: Path, folder: Path) -> None:
    """Run `build_artifact` in a TensorFlow process that uses only the CPU."""
    environment = {
        **os.environ,
        "KERAS_BACKEND": "tensorflow",
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    command = [sys.executable, "-m", "keras_sae.export", str(source), str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        last = "\n".join(done.stderr.strip().splitlines()[-5:])
        raise RuntimeError(
            "With this backend, a separate TensorFlow process writes the artifact. "
            f"That process failed, and nothing was exported. Its message:\n{last}"
        )


def build_artifact(source: Path, folder: Path) -> None:
    """Write an artifact to `folder` from the files that `write_artifact` saved.

    The TensorFlow backend is required. The model is loaded from a file, so the caller's
    model is not traced.
    """
    import tensorflow as tf

    options = json.loads((source / _OPTIONS).read_text())
    with np.load(source / _ARRAYS) as stored:
        arrays = dict(stored)
    model = keras.saving.load_model(source / _MODEL, compile=False)
    signatures = model_signatures(model, options["top_k"])
    if any(len(weight.shape) > 2 for weight in model.weights):  # convolutions
        signatures = {k: accept_empty_batches(v) for k, v in signatures.items()}
    if options["images"]:
        signatures |= {
            f"{name}_{kind}": image_signature(signature, kind, options["image_range"])
            for name, signature in signatures.items()
            if signature.samples
            for kind in ("uint8", "png")
        }
        files = [tf.io.encode_png(image).numpy() for image in arrays["image"]]
        arrays["image_bytes"] = np.array(files, object)
    archive = keras.export.ExportArchive()
    default = next(iter(signatures.values()))
    endpoints = {**signatures, "serve": signatures.get("serve", default)}
    for name, signature in endpoints.items():
        shape = (None, *signature.shape)
        spec = tf.TensorSpec(shape, signature.dtype, name=signature.input)
        endpoint = _endpoint(signature, unwrap=name == "serve")
        archive.add_endpoint(name, endpoint, [spec])
    codes = [v for name, v in arrays.items() if name.startswith("encode/")]
    metadata = {
        "name": options["name"],
        "model": type(model).__name__,
        "input_shape": list(default.shape),
        "input_range": options["input_range"],
        "code_width": codes[0].shape[-1] if codes else None,
        "signatures": list(endpoints),
        "metrics": options["metrics"],
        "versions": {
            "keras": keras.__version__,
            "numpy": np.__version__,
            "tensorflow": tf.__version__,
            "keras_sae": importlib.metadata.version("keras_sae"),
        },
    }
    no_gradients = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    try:
        archive.write_out(str(folder), no_gradients, verbose=False)
        _remove_gradient_names(folder / "saved_model.pb")
        requests = arrays if options["warmup"] else None
        serving_assets.write_assets(folder, metadata, signatures, requests)
    except tf.errors.OpError as error:  # for example, the disk is full
        raise OSError(error.message) from error
    verification.verify(folder, signatures, arrays, options["tolerance"])


def _remove_gradient_names(path: Path) -> None:
    """Remove the names of custom gradients from a saved model.

    The gradients are not saved. If their names remained, TensorFlow would warn about
    each function that has a custom gradient when it loads the artifact.
    """
    from tensorflow.core.protobuf import saved_model_pb2

    saved_model = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    for meta_graph in saved_model.meta_graphs:
        for function in meta_graph.graph_def.library.function:
            for node in function.node_def:
                node.attr.pop("_gradient_op_type", None)
    path.write_bytes(saved_model.SerializeToString())


def _endpoint(signature: Signature, unwrap: bool) -> Callable[[Tensor], Tensor]:
    """Return the function that the server runs, with float32 or int32 outputs.

    With `unwrap`, a single output is returned as a tensor instead of a dict, as in
    Keras's own exports.
    """
    import tensorflow as tf

    def serve(value: Tensor) -> Tensor:
        # Servers do not check shapes, so a reshape could change the number of samples.
        value = tf.ensure_shape(value, (None, *signature.shape))
        outputs = {
            name: tf.cast(output, tf.int32 if output.dtype.is_integer else tf.float32)
            for name, output in signature.function(value).items()
        }
        return next(iter(outputs.values())) if unwrap and len(outputs) == 1 else outputs

    return serve


def _check_absent(path: Path) -> None:
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise ValueError(
            f"An artifact is never overwritten. Received: {str(path)!r}, which exists. "
            "Choose another version or folder, or delete the existing one."
        )
