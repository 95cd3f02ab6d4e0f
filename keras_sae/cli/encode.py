"""`keras-sae encode` and `score`: apply a trained model to your own data."""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from keras_sae import evaluation, models
from keras_sae.cli import app, loading, tables
from keras_sae.evaluation.evaluate import compact_codes
from keras_sae.utils.io import atomic_write, load_model, output_folder, write_json
from keras_sae.utils.validation import known_name

Model = Annotated[str, typer.Argument(help="A .keras file.")]
OwnData = Annotated[
    str,
    typer.Argument(
        help="A .npy, .npz, .csv or .parquet file, or a folder of images.",
    ),
]
Columns = Annotated[
    str | None,
    typer.Option(
        metavar="A,B,...",
        help="Columns to use. Default: the columns that the model was trained on.",
    ),
]


@app.report_errors
def encode(
    model: Model,
    data: OwnData,
    columns: Columns = None,
    output: Annotated[
        str, typer.Option(help="A .npz file, or a .npy file for a dense array.")
    ] = "codes.npz",
) -> None:
    """Write the codes of your own data to a file, one row per sample."""
    from scipy.sparse import save_npz

    known_name("extension of --output", Path(output).suffix, (".npy", ".npz"))
    autoencoder, x = read_for_model(model, data, columns)
    is_flat = len(autoencoder.encoder.output_shape) == 2  # one code per sample
    codes = autoencoder.encode(x, sparse=is_flat and output.endswith(".npz"))
    if isinstance(codes, np.ndarray):
        count = int(np.count_nonzero(codes))
    else:
        count = codes.nnz
        if 2 * count >= np.prod(codes.shape):  # a dense array is smaller
            codes = codes.toarray()
    output_folder(Path(output).parent)
    with atomic_write(output) as path:
        if not isinstance(codes, np.ndarray):
            save_npz(path, codes)
            reader = f'scipy.sparse.load_npz("{output}")'
        elif output.endswith(".npz"):
            np.savez_compressed(path, codes=codes)
            reader = f'numpy.load("{output}")["codes"]'
        else:
            np.save(path, codes)
            reader = f'numpy.load("{output}")'
    typer.echo(
        f"Codes of shape {codes.shape}, with {count / len(x):.1f} non-zero values per "
        f"row: {output}\nRead them with {reader}."
    )


@app.report_errors
def score(
    model: Model,
    data: OwnData,
    columns: Columns = None,
    output: Annotated[
        str | None,
        typer.Option(
            help="A .csv file for the anomaly score and the number of active units of "
            "each row, or a .json file for the metrics."
        ),
    ] = None,
) -> None:
    """Print a model's metrics on your own data, and optionally score each row."""
    import pandas as pd

    if output is not None:
        known_name("extension of --output", Path(output).suffix, (".csv", ".json"))
    autoencoder, x = read_for_model(model, data, columns)
    if not autoencoder.reconstructs_input:
        raise ValueError(
            f"MODEL must reconstruct its input. Received: {model}, a "
            f"{type(autoencoder).__name__} that predicts the output of another layer. "
            "Use `keras-sae encode` to write its codes."
        )
    codes = compact_codes(autoencoder, x)
    metrics = evaluation.evaluate(autoencoder, x, codes=codes)
    table = pd.DataFrame([{"model": Path(model).name, **metrics}])
    tables.print_table(table, tables.SCORE_CAPTION)
    if output is None:
        return
    output_folder(Path(output).parent)
    if output.endswith(".json"):
        write_json(output, metrics)
    else:
        target = autoencoder.reconstruction_target(x)
        errors = (target - autoencoder.decode(codes)) ** 2
        rows = {
            "anomaly_score": errors.reshape(len(x), -1).sum(axis=1),
            "active_units": (codes.reshape(len(x), -1) != 0).sum(axis=1),
        }
        with atomic_write(output) as path:
            pd.DataFrame(rows).to_csv(path, index_label="row")
    typer.echo(f"Results: {output}")


def read_for_model(
    model: str, data: str, columns: str | None
) -> tuple[models.Autoencoder, np.ndarray]:
    """Load a model, and read the given columns of the data.

    By default, these are the columns that the model was trained on.
    """
    autoencoder = load_model(model)
    if not isinstance(autoencoder, models.Autoencoder):
        raise ValueError(
            f"MODEL must be an autoencoder. Received: {model}, a "
            f"{type(autoencoder).__name__}."
        )
    if columns is None:
        names, label = loading.names_in(autoencoder, data)
    else:
        names, label = app.split_list(columns), None
    # If there are no column names, the name of the label keeps the labels out of `x`.
    x, _, _ = loading.read(data, None if names else label, names, autoencoder)
    loading.check_shape(autoencoder, x, data)
    return autoencoder, x
