"""Write the codes of 2,000 rows as Parquet: a program for `test_beam`.

    python tests/beam_pipeline.py MODEL FOLDER [--kill] [options of Beam]

With `--kill`, the worker that gets a row from the middle kills itself.
"""

import os
import signal
import sys

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.ml.inference.base import PredictionResult, RunInference

from keras_sae.beam import SparseAutoencoderHandler

ROWS = np.random.default_rng(0).normal(size=(2000, 6)).astype("float32")
SCHEMA = pa.schema(
    [
        ("row", pa.int64()),
        ("process", pa.int64()),
        ("units", pa.list_(pa.int32())),
        ("values", pa.list_(pa.float32())),
    ]
)


def read(row: int, kill: bool) -> tuple[int, np.ndarray]:
    if kill and row == 1000:
        os.kill(os.getpid(), signal.SIGKILL)
    return row, ROWS[row]


def as_record(result: tuple[int, PredictionResult]) -> dict:
    return {"row": result[0], "process": os.getpid(), **result[1].inference}


def main() -> None:
    model, folder, *options = sys.argv[1:]
    kill = "--kill" in options
    options = [option for option in options if option != "--kill"]
    with beam.Pipeline(argv=options) as pipeline:
        _ = (
            pipeline
            | beam.Create(range(len(ROWS)))
            | beam.Reshuffle()
            | beam.Map(read, kill)
            | RunInference(SparseAutoencoderHandler(model, batch_size=64))
            | beam.Map(as_record)
            | beam.io.WriteToParquet(f"{folder}/codes", SCHEMA)
        )


if __name__ == "__main__":
    main()
