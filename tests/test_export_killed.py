"""A process that is killed as it exports leaves a whole version, or none."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from helpers import tensorflow_only

from keras_sae import export, models

POINTS = 10


def _scores(path, x):
    import tensorflow as tf

    artifact = tf.saved_model.load(str(path))
    return artifact.signatures["anomaly_score"](x=tf.constant(x))["score"].numpy()


@tensorflow_only
def test_a_process_that_is_killed_leaves_a_whole_version_or_none(tmp_path):
    script = Path(__file__).parent / "serving" / "killed.py"
    paths = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run(
        [sys.executable, script, tmp_path, str(POINTS)],
        env={**os.environ, "PYTHONPATH": paths, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    x = np.random.default_rng(0).random((2, 8, 8, 1), "float32")
    whole = {p.relative_to(tmp_path / "0") for p in (tmp_path / "0").rglob("*")}
    unfinished = 0
    for n in range(POINTS + 1):
        folder = tmp_path / str(n)
        entries = {p.name for p in folder.iterdir()} if folder.exists() else set()
        hidden = {name for name in entries if name.startswith(".unfinished-")}
        assert entries - hidden <= {"1", "models.config"}
        if "1" in entries:
            files = {p.relative_to(folder) for p in (folder / "1").rglob("*")}
            assert files == {p for p in whole if p.parts[0] == "1" and p.parts[1:]}
            assert _scores(folder / "1", x).all()
        else:
            unfinished += 1
    assert unfinished > POINTS / 2  # the points do lie within an export
    # The next export is not troubled by what was left.
    last = max(n for n in range(1, POINTS + 1) if not (tmp_path / f"{n}/1").exists())
    path = export.export_saved_model(models.shallow((6,), 4), tmp_path / str(last))
    assert path.name == "1"
