"""`keras-sae tune`: search for the best settings, and train a model with them."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from keras_sae import evaluation
from keras_sae.cli import app, loading, model_options, tables
from keras_sae.cli.export import export_model
from keras_sae.utils.io import atomic_write, load_model, read_json, write_json

if TYPE_CHECKING:
    import pandas as pd

# Metrics that are printed for the best model.
PRINTED = "reconstruction", "explained_variance", "l0", "effective_l0", "probe_accuracy"


@app.report_errors
def tune(
    context: typer.Context,
    dataset: loading.Dataset = "digits",
    data: loading.OwnData = None,
    label: loading.Label = None,
    columns: loading.Columns = None,
    validation: loading.Validation = 0.2,
    epochs: app.Epochs = 30,
    seed: app.Seed = 0,
    output: app.Output = "keras-sae-tune",
    overwrite: app.Overwrite = False,
    trials: Annotated[int, typer.Option(min=1, help="Number of trials.")] = 20,
    family: model_options.Family = "shallow",
    sparsity: model_options.Sparsity = None,
    k: model_options.K = None,
    factor: model_options.Factor = None,
    target: model_options.Target = None,
    units: model_options.Units = None,
    tied: model_options.Tied = None,
    corruption: model_options.Corruption = None,
    tuner: Annotated[
        str, typer.Option(help="random, bayesian, hyperband or grid.")
    ] = "random",
    objective: Annotated[
        str,
        typer.Option(
            help="reconstruction_under_l0, probe_accuracy, reconstruction, or the name "
            "of a logged metric."
        ),
    ] = "reconstruction_under_l0",
    max_l0: Annotated[
        float | None, typer.Option(help="Limit on L0. Default: sqrt(values per row).")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Parallel processes.")] = 1,
    report: app.Report = False,
    export_to: app.Export = None,
) -> None:
    """Search for the best sparsity settings under a limit on L0."""
    import pandas as pd

    from keras_sae import report as reports
    from keras_sae import tuning
    from keras_sae.tuning.workers import LAUNCHED

    loading.check_options(context)
    chosen = model_options.read_model_options(
        family,
        sparsity,
        k,
        factor,
        target,
        units,
        tied,
        corruption,
        default=("l1", "kl", "top_k"),
    )
    # Only the process that the user started deletes an earlier run.
    overwrite = overwrite and LAUNCHED not in os.environ
    run = app.RunFolder(context, output, "best.json", overwrite)
    folder = run.path
    file = folder / "trials.csv"
    best_file = folder / "best.json"
    finished = run.finished and read_json(best_file, trials=int)["trials"] >= trials
    if finished:
        typer.echo("This search is finished. To repeat it, add --overwrite.")
        print_search(folder)
        if not report and export_to is None:
            return
    splits = loading.load_splits(
        dataset, data, label, app.split_list(columns), validation
    )
    (x, y), test = splits.train, splits.test
    train, held_out = split_validation(len(x), seed)
    if not finished:
        ranges: dict[str, Any] = dict(chosen.settings)
        if isinstance(chosen.units, list):  # a tuple would be a range
            ranges["units"] = lambda _: tuple(chosen.units)
            ranges["depth"] = len(chosen.units)
        elif chosen.units is not None:
            ranges["units"] = chosen.units
        if tied is not None:
            ranges["tied"] = tied
        hypermodel = tuning.SparsityHyperModel(
            chosen.families,
            splits.shape,
            sparsity=chosen.kinds,
            options=chosen.options,
            **ranges,
        )
        run.open()
        best_file.unlink(missing_ok=True)  # until the new trials are finished
        if run.resumes and file.exists():
            done = len(pd.read_csv(file))
            typer.echo(f"Resuming {folder}{os.sep} after {done} trials.")
        try:
            searched = tuning.search(
                hypermodel,
                x[train],
                x[held_out],
                trials,
                epochs,
                tuner=tuner,
                objective=objective,
                max_l0=max_l0,
                labels=None if y is None else (y[train], y[held_out]),
                directory=folder / "search",
                seed=seed,
                workers=workers,
            )
        except (tuning.ConstraintError, tuning.FailedTrialsError) as error:
            save_trials(tuning.trials(error.tuner), folder)
            raise ValueError(str(error)) from error
        best = tuning.best_model(searched, x[train], folder / "best.keras", verbose=0)
        best.columns, best.label = splits.columns, splits.label
        with atomic_write(folder / "best.keras") as path:
            best.save(path)
        labeled = x[train], None if y is None else y[train]
        metrics = evaluation.evaluate(best, *test, train=labeled)
        ascending = searched.oracle.objective.direction == "min"
        save_trials(tuning.trials(searched), folder, ascending)
        (trial,) = searched.oracle.get_best_trials(1)
        record = {
            "settings": trial.hyperparameters.values,
            "metrics": metrics,
            "history": best.history.history,
            "trials": trials,
        }
        # This file is written last, because it marks the search as finished.
        write_json(best_file, record)
        print_search(folder)
    if report:
        path = reports.write_report(
            load_model(folder / "best.keras"),
            test,
            folder / "report.html",
            history=read_json(best_file, history=dict)["history"],
            table=name_models(pd.read_csv(file)),
            title=f"The best sparse autoencoder on {splits.name}",
        )
        typer.echo(f"Interactive report: {path}")
    if export_to is not None:
        export_model(load_model(folder / "best.keras"), export_to, splits)


def split_validation(samples: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Hold out a fifth for validation, and return training and validation indices."""
    order = np.random.default_rng(seed).permutation(samples)
    validation, train = np.split(order, [samples // 5])
    return np.sort(train), np.sort(validation)


def save_trials(table: "pd.DataFrame", folder: Path, ascending: bool = True) -> None:
    """Sort trials by score, and write `trials.csv`, `trials.json` and `pareto.png`."""
    from keras_sae import plots

    table = table.sort_values("score", ascending=ascending)
    with atomic_write(folder / "pareto.png") as path:
        plots.pareto(name_models(table)).savefig(path)
    tables.save_table(table, folder / "trials.csv", folder / "trials.json")


def name_models(table: "pd.DataFrame") -> "pd.DataFrame":
    """Return the completed trials, with "family, sparsity" in the `model` column."""
    completed = table[table["status"] == "COMPLETED"]
    return completed.assign(model=completed["model"] + ", " + completed["sparsity"])


def print_search(folder: Path) -> None:
    """Print the trials of a finished search, and the metrics of the best model."""
    import pandas as pd

    table = pd.read_csv(folder / "trials.csv")
    one_family = table["model"].nunique() == 1
    shown = table.drop(columns=["model"] if one_family else []).assign(
        sparsity=describe_sparsity(table)
    )
    tables.print_table(shown, tables.TRIAL_CAPTION)
    metrics = read_json(folder / "best.json", metrics=dict)["metrics"]
    values = {name: metrics.get(name) for name in PRINTED}
    printed = [f"{name} {v:.4g}" for name, v in values.items() if v is not None]
    typer.echo(f"Best model on the test set: {', '.join(printed)}.")
    explained = table["explained_variance"].iloc[0]
    if explained < 0:
        typer.echo(
            "The mean of the data is a better reconstruction than that of the best "
            f"trial. The explained variance of the trial is {explained:.3g}, and that "
            "of the mean is 0. Increase --epochs, --trials or --max-l0."
        )
    typer.echo(f"Trials, Pareto front and best.keras: {folder}{os.sep}")


def describe_sparsity(table: "pd.DataFrame") -> list[str]:
    """Return each trial's kind of sparsity and settings, such as `kl 0.05, 0.5`."""
    described = []
    for row in table.to_dict("records"):
        kind = row["sparsity"]
        own = [v for k, v in row.items() if str(k).startswith(f"{kind}_") and v == v]
        described.append(f"{kind} {', '.join(f'{value:.3g}' for value in own)}")
    return described
