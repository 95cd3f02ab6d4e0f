"""The two ways to an artifact: a numbered version in a folder, or a folder itself."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from keras_sae.export import _build, _extras, _images, _processes
from keras_sae.export._signatures import signatures
from keras_sae.utils import io as files
from keras_sae.utils import validation as checks


def export_saved_model(
    model: Any,
    path: str | Path,
    version: int | None = None,
    **options: Any,
) -> Path:
    """Writes `path/<version>/`, a SavedModel that TensorFlow Serving runs as it is.

    Signatures, each with one named input, a free batch dimension and float32
    outputs (int32 for indices and labels):

    - `serving_default`, `reconstruct`: `x` to `reconstruction`
    - `encode`: `x` to `code`
    - `decode`: `code` to `reconstruction`
    - `top_features`: `x` to `indices` and `values` of the largest units
    - `anomaly_score`: `x` to `score = sum_d (x_d - r_d)^2`

    A variational model's `encode` gives `mean` and `log_variance`, and its `sample`
    takes an int32 `seed` for each `sample` it draws. A classifier has `classify`
    (`x` to `probabilities` and `label`, the default), `encode` and `top_features`.

    Every signature of the finished artifact is run and compared with Keras before
    it is renamed into place: a version is there whole or not at all. Beside it stand
    `assets.extra/metadata.json`, `assets.extra/tf_serving_warmup_requests` and, in
    `path`, `models.config`. Under JAX and PyTorch the artifact is written by a
    process of its own, on the TensorFlow backend.

    Args:
        model: A `keras_sae.models.Autoencoder` or `Classifier`.
        path: Folder of the versions; its last part is the name of the model.
        version: Positive integer; None is the next free one.
        **options: As for `write_artifact`.

    Returns:
        The path of the version.

    Raises:
        ValueError: `model` is none of this package or gives NaN, `path` cannot be
            written, the version is there already, or an option is out of its range.
        OSError: The disk is full; nothing is left of the version.
        RuntimeError: The artifact differs from the model.

    Example:

    >>> import tempfile
    >>> from keras_sae import export, models
    >>> model = models.shallow((8, 8, 1), units=16, sparsity="l1")
    >>> folder = export.export_saved_model(model, tempfile.mkdtemp() + "/sae")
    >>> folder.name, (folder / "saved_model.pb").exists()
    ('1', True)
    """
    if version is not None:
        version = checks.positive_integer("version", version)
    signatures(model, 1)  # raises for what is no model of ours
    path = files.output_folder(path, "path", "Choose another folder.")
    target = path / str(_next(path) if version is None else version)
    options["name"] = options.get("name") or path.resolve().name
    write_artifact(model, target, **options)
    _extras.write_server_config(path, options["name"])
    return target


def _next(path: Path) -> int:
    """One more than the largest version that is there."""
    names = [entry.name for entry in path.iterdir()]
    return 1 + max((int(name) for name in names if name.isdecimal()), default=0)


def write_artifact(
    model: Any,
    path: str | Path,
    *,
    top_k: int = 10,
    images: bool = False,
    input_range: tuple[float, float] = (0.0, 1.0),
    figures: Mapping[str, float] | None = None,
    warmup: bool | None = None,
    name: str | None = None,
) -> Path:
    """Writes a SavedModel to `path` itself: that of `export_saved_model`.

    Args:
        model: A `keras_sae.models.Autoencoder` or `Classifier`.
        path: A folder that is not there yet, or empty.
        top_k: How many units `top_features` names, at most the width of the code.
        images: Whether to add, for every signature that takes `x`, `NAME_uint8`
            (input `image`, bytes 0..255) and `NAME_png` (input `image_bytes`, PNG
            files).
        input_range: Values of the data, for the metadata, the warm-up requests and
            what the bytes 0 and 255 of an image become.
        figures: Those of an evaluation, for the metadata.
        warmup: Whether to write warm-up requests; None does where
            `tensorflow-serving-api` is installed, and warns elsewhere.
        name: Of the model on the server; None is the last part of `path`.

    Returns:
        The path.

    Raises:
        ValueError: As for `export_saved_model`.
        OSError: As for `export_saved_model`.
        RuntimeError: As for `export_saved_model`.

    Example:

    >>> from keras_sae import export, models
    >>> model = models.shallow((6,), units=4, sparsity="l1")
    >>> export.write_artifact(model, "artifact", top_k=2).name
    'artifact'
    """
    path = Path(path)
    signatures(model, checks.positive_integer("top_k", top_k))
    if images:
        _images.check_image(tuple(model.encoder.input_shape[1:]))
    _check_free(path)
    files.output_folder(path.parent, "path", "Choose another folder.")
    options = _build.Options(
        name=name or path.resolve().name,
        top_k=top_k,
        images=images,
        input_range=_range(input_range),
        warmup=_extras.can_warm_up(warmup),
        figures=figures or {},
    )
    _write(model, path, options)
    return path


def _write(model: Any, path: Path, options: _build.Options) -> None:
    try:
        with (
            tempfile.TemporaryDirectory() as source,
            files.atomic_write(path) as unfinished,
        ):
            _build.hand_over(model, Path(source), options)
            _processes.build(Path(source), unfinished)
    except OSError as error:
        _check_free(path)  # another export may have come first
        raise OSError(
            f"The artifact could not be written to {str(path)!r}: "
            f"{error.strerror or error}. Nothing was left there."
        ) from error


def _check_free(path: Path) -> None:
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise ValueError(
            f"An artifact is never overwritten. Received: {str(path)!r}, which is "
            "there already. Take another version or folder, or delete it first."
        )


def _range(values: Any) -> tuple[float, float]:
    pair = np.asarray(values)
    if pair.shape != (2,) or not np.isfinite(pair).all() or pair[0] >= pair[1]:
        raise ValueError(
            "`input_range` must be two finite numbers, the lower first. Received: "
            f"input_range={values!r}. Pixels between 0 and 1 have (0.0, 1.0)."
        )
    return float(pair[0]), float(pair[1])
