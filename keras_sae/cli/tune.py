"""`keras-sae tune`: search sparsity settings and retrain the best ones."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

from keras_sae import evaluation
from keras_sae.cli import app, tables
from keras_sae.cli.export import export_model
from keras_sae.utils.io import atomic_write, write_json

if TYPE_CHECKING:
    import pandas as pd

# Metrics of the best model that are printed.
PRINTED = "reconstruction", "explained_variance", "l0", "effective_l0", "probe_accuracy"


@app.report_errors
def tune(
    context: typer.Context,
    dataset: app.Dataset = "digits",
    epochs: app.Epochs = 30,
    seed: app.Seed = 0,
    output: app.Output = "keras-sae-tune",
    trials: Annotated[int, typer.Option(min=1, help="Number of trials.")] = 20,
    model: Annotated[
        str, typer.Option(help="List of shallow, deep, stacked, convolutional.")
    ] = "shallow",
    sparsity: Annotated[
        str, typer.Option(help="List of l1, kl, top_k, batch_top_k, jump_relu, gated.")
    ] = "l1,kl,top_k",
    tuner: Annotated[
        str, typer.Option(help="random, bayesian, hyperband or grid.")
    ] = "random",
    objective: Annotated[
        str, typer.Option(help="Or probe_accuracy, reconstruction or a logged metric.")
    ] = "reconstruction_under_l0",
    max_l0: Annotated[
        float | None, typer.Option(help="Limit on L0. Default: sqrt(sample size).")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Parallel processes.")] = 1,
    export_to: app.Export = None,
) -> None:
    """Search for the best sparsity settings under a limit on L0."""
    from keras_sae import tuning

    (x, y), test = app.load_splits(dataset)
    # A list with a single name is a constant.
    families, kinds = (n.replace(" ", "").split(",") for n in (model, sparsity))
    hypermodel = tuning.SparsityHyperModel(families, x.shape[1:], sparsity=kinds)
    folder = app.open_run(output, context)
    train, validation = split_validation(len(x), seed)
    try:
        finished = tuning.search(
            hypermodel,
            x[train],
            x[validation],
            trials,
            epochs,
            tuner=tuner,
            objective=objective,
            max_l0=max_l0,
            labels=None if y is None else (y[train], y[validation]),
            directory=folder / "search",
            seed=seed,
            workers=workers,
        )
    except (tuning.ConstraintError, tuning.FailedTrialsError) as error:
        save_trials(tuning.trials(error.tuner), folder)
        raise ValueError(str(error)) from error
    direction = finished.oracle.objective.direction
    table = save_trials(tuning.trials(finished), folder, direction == "min")
    best = tuning.best_model(finished, x[train], folder / "best.keras", verbose=0)
    labeled = x[train], None if y is None else y[train]
    metrics = evaluation.evaluate(best, *test, train=labeled)
    (trial,) = finished.oracle.get_best_trials(1)
    record = {"settings": trial.hyperparameters.values, "metrics": metrics}
    write_json(folder / "best.json", record)

    one_family = table["model"].nunique() == 1
    shown = table.drop(columns=["model"] if one_family else []).assign(
        sparsity=describe_sparsity(table)
    )
    tables.print_table(shown, tables.TRIAL_CAPTION)
    printed = [f"{name} {metrics[name]:.4g}" for name in PRINTED if name in metrics]
    typer.echo(f"Best model on the test set: {', '.join(printed)}.")
    typer.echo(f"Trials, Pareto front and best.keras: {folder}{os.sep}")
    if export_to is not None:
        export_model(folder / "best.keras", export_to, dataset=dataset)


def split_validation(samples: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices of the training data, and of a fifth for validation."""
    order = np.random.default_rng(seed).permutation(samples)
    validation, train = np.split(order, [samples // 5])
    return np.sort(train), np.sort(validation)


def save_trials(
    table: "pd.DataFrame", folder: Path, ascending: bool = True
) -> "pd.DataFrame":
    """Sort a table, write its CSV, JSON and `pareto.png` files, and return it."""
    from keras_sae import plots

    table = table.sort_values("score", ascending=ascending)
    tables.save_table(table, folder / "trials.csv", folder / "trials.json")
    completed = table[table["status"] == "COMPLETED"]
    names = completed["model"] + ", " + completed["sparsity"]
    with atomic_write(folder / "pareto.png") as path:
        plots.pareto(completed.assign(model=names)).savefig(path)
    return table


def describe_sparsity(table: "pd.DataFrame") -> list[str]:
    """Return each trial's kind of sparsity and settings, such as `kl 0.05, 0.5`."""
    described = []
    for row in table.to_dict("records"):
        kind = row["sparsity"]
        own = [v for k, v in row.items() if str(k).startswith(f"{kind}_") and v == v]
        described.append(f"{kind} {', '.join(f'{value:.3g}' for value in own)}")
    return described
