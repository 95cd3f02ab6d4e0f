"""Where an artifact is built: here, or in a process with the TensorFlow backend."""

import os
import subprocess
import sys
from pathlib import Path

import keras

from keras_sae.export import _build

# The child has no need of an accelerator, which this process may hold.
_ENVIRONMENT = {"KERAS_BACKEND": "tensorflow", "CUDA_VISIBLE_DEVICES": ""}


def build(source: Path, folder: Path) -> None:
    """Does what `_build.build` does, on the TensorFlow backend."""
    _BUILDERS.get(keras.backend.backend(), _in_a_process)(source, folder)


def _in_a_process(source: Path, folder: Path) -> None:
    modules = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run(
        [sys.executable, "-m", "keras_sae.export", str(source), str(folder)],
        env={**os.environ, **_ENVIRONMENT, "PYTHONPATH": modules},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        last = "\n".join(done.stderr.strip().splitlines()[-5:])
        raise RuntimeError(
            "Under this backend the artifact is written by a process that runs Keras "
            f"on TensorFlow, and it failed. Nothing was exported. It said:\n{last}"
        )


_BUILDERS = {"tensorflow": _build.build}
