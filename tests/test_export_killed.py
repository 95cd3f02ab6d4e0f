"""A killed export leaves a complete version, or none."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import tensorflow_only
from serving import artifacts

from keras_sae import export, models

POINTS = 6


@tensorflow_only
@pytest.mark.slow
def test_a_killed_export_leaves_a_complete_version_or_none(tmp_path):
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
    complete = {p.relative_to(tmp_path / "0" / "1") for p in tmp_path.glob("0/1/**/*")}
    unfinished = []
    for n in range(POINTS + 1):
        folder = tmp_path / str(n)
        entries = {p.name for p in folder.iterdir()} if folder.exists() else set()
        hidden = {name for name in entries if name.startswith(".unfinished-")}
        assert entries - hidden <= {"1", "models.config"}
        if "1" in entries:
            version = folder / "1"
            assert {p.relative_to(version) for p in version.rglob("*")} == complete
            assert artifacts.ask(version, "anomaly_score", {"x": x})["score"].all()
        else:
            unfinished.append(folder)
    assert len(unfinished) > POINTS / 2  # the kills do fall within an export
    # What is left over does not disturb the next export.
    path = export.export_saved_model(models.shallow((6,), 4), unfinished[-1])
    assert path.name == "1"
