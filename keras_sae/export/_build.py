"""One artifact, written and verified, from files: the same in any process."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_sae.export import _empty, _extras, _graph, _images, _reference
from keras_sae.export._signatures import Signature, signatures
from keras_sae.models._folding import folded

MODEL, KNOWN, OPTIONS = "model.keras", "known.npz", "options.json"
TOLERANCE = "tolerance.json"


@dataclass(frozen=True)
class Options:
    """What an artifact is to hold beside the model; JSON values only.

    Args:
        name: Of the model on the server.
        top_k: Units that `top_features` names.
        images: Whether to add signatures for images.
        input_range: Range of the values of a sample.
        warmup: Whether to write warm-up requests.
        figures: Of an evaluation, for the metadata.
    """

    name: str
    top_k: int
    images: bool
    input_range: tuple[float, float]
    warmup: bool
    figures: Mapping[str, float] = field(default_factory=dict)


def hand_over(model: Any, folder: Path, options: Options) -> None:
    """Writes what `build` needs: the model, what Keras answers, and the options."""
    shape = tuple(model.encoder.input_shape[1:])
    arrays: dict[str, Any] = _reference.known(
        model, shape, options.input_range, options.top_k
    )
    np.savez(folder / KNOWN, **arrays)
    model.save(folder / MODEL)
    (folder / OPTIONS).write_text(json.dumps(asdict(options)))
    (folder / TOLERANCE).write_text(json.dumps(_reference.tolerance(model)))


def build(source: Path, folder: Path) -> None:
    """Writes the artifact of what `hand_over` left in `source`, and verifies it.

    A copy of the model is traced, so the model itself keeps no trace of it.

    Args:
        source: Folder with the model, the known answers and the options.
        folder: Where the artifact goes.
    """
    options = Options(**json.loads((source / OPTIONS).read_text()))
    with np.load(source / KNOWN) as stored:
        arrays = dict(stored)
    model = folded(keras.saving.load_model(source / MODEL, compile=False))
    served = signatures(model, options.top_k)
    if _empty.convolves(model):
        served = {name: _empty.never_empty(one) for name, one in served.items()}
    if options.images:
        served |= _images.image_signatures(served, options.input_range)
        arrays["image_bytes"] = _images.encode_png(arrays["image"])
    if hasattr(model, "sample"):
        arrays |= _reference.drawn(model, np.arange(_reference.SAMPLES, dtype="int32"))
    with _graph.writing():
        _graph.save(served, folder)
        _extras.write_metadata(folder, _facts(model, served, options))
        if options.warmup:
            _extras.write_warmup(folder, served, arrays, options.name)
    tolerance = json.loads((source / TOLERANCE).read_text())
    _reference.verify(folder, served, arrays, tolerance)


def _facts(
    model: Any, served: Mapping[str, Signature], options: Options
) -> dict[str, Any]:
    return {
        "name": options.name,
        "model": type(model).__name__,
        "input_shape": list(model.encoder.input_shape[1:]),
        "input_range": list(options.input_range),
        "code_width": model.encoder.output_shape[-1],
        "signatures": list(served),
        "figures": dict(options.figures),
    }
