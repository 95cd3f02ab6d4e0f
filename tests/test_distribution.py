"""Units divided among four devices, against the same training on one device."""

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest
from helpers import BACKEND
from keras.distribution import DeviceMesh

from keras_sae import distribution, layers, models, regularizers
from keras_sae.ops import top_k

SCRIPT = Path(__file__).with_name("distribution_script.py")
jax_only = pytest.mark.skipif(BACKEND != "jax", reason="needs JAX")


def run(*arguments: object) -> subprocess.Popen:
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(SCRIPT.parents[1])}
    return subprocess.Popen(command, stdout=subprocess.PIPE, env=environment)


def check(process: subprocess.Popen) -> None:
    output, _ = process.communicate(timeout=900)
    assert process.returncode == 0
    results = json.loads(output.splitlines()[-1])
    assert {"top_k", "batch_top_k"} <= set(results)
    for name, result in results.items():
        assert result["devices"]
        for devices, found in result["devices"].items():
            # The sums over units are added in another order.
            assert found["weights"] < 1e-5, name
            assert found["logs"] < 1e-4, name
            share = 1 / json.loads(f"[{devices.strip('()')}]")[1]
            assert set(found["shares"].values()) == {share}, name
            assert [64, 12] not in found["gathered"]
            assert [12, 64] not in found["gathered"]
            if name == "top_k":  # Devices exchange candidates, and no whole codes.
                assert not any(64 in shape for shape in found["gathered"])


@jax_only
@pytest.mark.slow
def test_every_sparsity_trains_on_four_devices_as_on_one():
    check(run())


@jax_only
@pytest.mark.slow
def test_two_processes_train_as_one():
    port = 20_000 + os.getpid() % 10_000
    processes = [run(i, port) for i in (0, 1)]
    try:
        for process in processes:
            check(process)
    finally:  # a process waits for the other one
        for process in processes:
            process.kill()


def test_bad_meshes_are_refused():
    mesh = DeviceMesh((1, 1), ("batch", "model"), ["cpu:0"])
    if BACKEND != "jax":
        with pytest.raises(ValueError, match="Only JAX"):
            distribution.layout_map(mesh)
        return
    with pytest.raises(ValueError, match=r"axis='units'.*'batch', 'model'"):
        distribution.layout_map(mesh, axis="units")


@jax_only
def test_units_that_the_devices_cannot_share_are_refused(monkeypatch):
    monkeypatch.setattr(top_k, "unit_shards", lambda: 4)
    with pytest.raises(ValueError, match="units=30 on 4 devices"):
        models.shallow((8,), units=30)


@jax_only
def test_layout_reaches_every_variable_with_an_axis_of_units():
    mesh = DeviceMesh((1, 1), ("batch", "model"), ["cpu:0"])
    layout = distribution.layout_map(mesh)
    kl = regularizers.KLDivergence(momentum=0.9)
    for sparsity in (kl, layers.TopK(4), layers.BatchTopK(4), "jump_relu", "gated"):
        model = models.shallow((6,), 10, sparsity)
        for variable in model.variables:
            found = layout[variable.path]
            axes = [None] * len(variable.shape) if found is None else found.axes
            expected = ["model" if size == 10 else None for size in variable.shape]
            assert list(axes) == expected, variable.path


@jax_only
def test_one_axis_for_units_and_batches_is_refused():
    mesh = DeviceMesh((1,), ("model",), ["cpu:0"])
    layout = distribution.layout_map(mesh)
    parallel = keras.distribution.ModelParallel(layout_map=layout)
    with parallel.scope(), pytest.raises(ValueError, match="batch_dim_name='model'"):
        models.shallow((8,), units=16)
