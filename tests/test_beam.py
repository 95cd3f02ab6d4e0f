"""Pipelines of Apache Beam: results, worker processes, bad rows and killed workers."""
# ruff: noqa: E402

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers import to_numpy

beam = pytest.importorskip("apache_beam")

import pyarrow.parquet
from apache_beam.ml.inference.base import RunInference
from apache_beam.testing.util import assert_that, equal_to

from keras_sae import layers, models
from keras_sae.beam import SparseAutoencoderHandler

X = np.random.default_rng(0).normal(size=(100, 6)).astype("float32")
ROWS = np.random.default_rng(0).normal(size=(2000, 6)).astype("float32")
PROGRAM = Path(__file__).parent / "beam_pipeline.py"


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    keras.utils.set_random_seed(0)
    path = tmp_path_factory.mktemp("model") / "model.keras"
    models.shallow((6,), 24, layers.TopK(3)).save(path)
    return path


def results(handler, elements) -> list:
    """Return what a handler yields for one batch, without a pipeline."""
    (check,) = handler.get_preprocess_fns()
    batch = [check(element) for element in elements]
    return list(handler.run_inference(batch, handler.load_model()))


@pytest.mark.parametrize("sparsity", [layers.TopK(3), "l1"], ids=["top-k", "l1"])
def test_results_equal_those_of_the_model(sparsity, tmp_path):
    model = models.shallow((6,), 24, sparsity)
    model.save(tmp_path / "model.keras")
    code, output = model.encode(X), to_numpy(model(X))
    found = results(SparseAutoencoderHandler(tmp_path / "model.keras"), X)
    assert len(found) == len(X)
    for row, result in zip(code, found, strict=True):
        (units,) = np.nonzero(row)
        assert result.inference["units"].tolist() == units.tolist()
        np.testing.assert_allclose(result.inference["values"], row[units], rtol=1e-5)
    handler = SparseAutoencoderHandler(tmp_path / "model.keras", "reconstruction")
    found = [result.inference for result in results(handler, X)]
    np.testing.assert_allclose(found, output, rtol=1e-5, atol=1e-6)
    handler = SparseAutoencoderHandler(tmp_path / "model.keras", "anomaly_score")
    found = [(key, r.inference) for key, r in results(handler, list(enumerate(X)))]
    assert [key for key, _ in found] == list(range(100))
    expected = ((X - output) ** 2).sum(axis=1)
    np.testing.assert_allclose([s for _, s in found], expected, rtol=1e-5)


def test_tuples_of_numbers_are_rows(tmp_path):
    model = models.shallow((2,), 4, "l1")
    model.save(tmp_path / "model.keras")
    handler = SparseAutoencoderHandler(tmp_path / "model.keras", "reconstruction")
    x = X[:5, :2]
    expected = to_numpy(model(x))
    rows = [tuple(row) for row in x.tolist()]
    found = [result.inference for result in results(handler, rows)]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    keys, found = zip(*results(handler, list(enumerate(rows))), strict=True)
    assert keys == (0, 1, 2, 3, 4)
    found = [result.inference for result in found]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_a_bad_row_alone_goes_to_the_dead_letters(path):
    rows = [(n, row.tolist()) for n, row in enumerate(X[:20])]
    rows[7] = (7, [1.0, 2.0])
    rows[11] = (11, [np.nan] * 6)
    with beam.Pipeline() as pipeline:
        handler = SparseAutoencoderHandler(path, "anomaly_score", batch_size=8)
        inference = RunInference(handler).with_exception_handling()
        good, bad = pipeline | beam.Create(rows) | inference
        keys = good | beam.Map(lambda pair: pair[0])
        assert_that(keys, equal_to([n for n in range(20) if n not in (7, 11)]))
        letters = bad.failed_preprocessing[0] | "letters" >> beam.Map(
            lambda letter: (letter[0][0], "must be finite" in letter[1][1])
        )
        assert_that(letters, equal_to([(7, False), (11, True)]), "check letters")


def test_other_models_and_outputs_are_refused(path, tmp_path):
    with pytest.raises(ValueError, match="Unknown output: 'codes'"):
        SparseAutoencoderHandler(path, "codes")
    keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]).save(
        tmp_path / "dense.keras"
    )
    with pytest.raises(ValueError, match="Received: a `Sequential`"):
        SparseAutoencoderHandler(tmp_path / "dense.keras")
    models.transcoder((6,), (4,), 8, "l1").save(tmp_path / "transcoder.keras")
    with pytest.raises(ValueError, match="'anomaly_score' for a transcoder"):
        SparseAutoencoderHandler(tmp_path / "transcoder.keras", "anomaly_score")


TWO_WORKERS = ("--direct_running_mode=multi_processing", "--direct_num_workers=2")


def run(path, folder, *options) -> subprocess.CompletedProcess:
    """Run the program that writes the codes of 2,000 rows as Parquet."""
    command = [sys.executable, str(PROGRAM), str(path), str(folder), *options]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env=environment,
    )


@pytest.mark.slow
def test_one_and_two_processes_write_the_same_codes(path, tmp_path):
    tables = []
    for name, options in {"one": (), "two": TWO_WORKERS}.items():
        (tmp_path / name).mkdir()
        done = run(path, tmp_path / name, *options)
        assert done.returncode == 0, done.stderr
        table = pyarrow.parquet.read_table(tmp_path / name)
        tables.append(table.to_pandas().sort_values("row", ignore_index=True))
    one, two = tables
    assert one["row"].tolist() == two["row"].tolist() == list(range(2000))
    assert one["process"].nunique() == 1
    assert two["process"].nunique() == 2
    code = keras.saving.load_model(path).encode(ROWS, sparse=True)
    for table in tables:
        assert np.concatenate(table["units"]).tolist() == code.indices.tolist()
        values = np.concatenate(table["values"])
        np.testing.assert_allclose(values, code.data, rtol=1e-5)


@pytest.mark.slow
def test_a_killed_worker_leaves_no_output(path, tmp_path):
    done = run(path, tmp_path, "--kill", *TWO_WORKERS)
    assert done.returncode != 0
    assert not list(tmp_path.glob("codes*"))
