"""`keras-sae compare`, and code shared with `keras-sae train`."""

import functools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from keras_sae import evaluation, models
from keras_sae.cli import app, loading, presets
from keras_sae.cli.progress import progress_bars
from keras_sae.cli.tables import CAPTION, print_table, save_table
from keras_sae.evaluation.evaluate import target_activation
from keras_sae.evaluation.training import Builder, file_stem
from keras_sae.utils.io import atomic_write, load_model, read_json
from keras_sae.utils.validation import positive_number

# Penalty factors of a sweep, from almost no penalty to codes that are nearly all 0.
FACTORS = tuple(np.geomspace(3e-4, 3e-1, 7).tolist())


@app.report_errors
def compare(
    context: typer.Context,
    dataset: loading.Dataset = "fashion_mini",
    data: loading.OwnData = None,
    label: loading.Label = None,
    columns: loading.Columns = None,
    validation: loading.Validation = 0.2,
    epochs: app.Epochs = 10,
    seed: app.Seed = 0,
    output: app.Output = "keras-sae-compare",
    overwrite: app.Overwrite = False,
    units: Annotated[int, typer.Option(min=1, help="Number of code units.")] = 64,
    batch_size: app.BatchSize = 64,
    learning_rate: app.LearningRate = 3e-3,
    l1: Annotated[float, typer.Option(help="Factor of the L1 penalty.")] = 1e-3,
    kl: Annotated[float, typer.Option(help="Factor of the KL penalty.")] = 1e-2,
    target: Annotated[
        float, typer.Option(help="Target of the KL penalty, in (0, 1).")
    ] = 0.05,
    full: Annotated[
        bool, typer.Option(help="Use three seeds, and sweep the penalty factors.")
    ] = False,
    report: app.Report = False,
) -> None:
    """Train one model per family, and compare the models with baselines.

    In the table, the number after "variational" is the size of that model's code. All
    other autoencoders have codes of `--units` units.
    """
    loading.check_options(context)
    positive_number("learning_rate", learning_rate)
    folder = app.RunFolder(
        context, output, "pareto.png" if full else "table.csv", overwrite
    )
    if folder.finished:
        print_results(folder)
        if not report:
            return
    splits = loading.load_splits(
        dataset, data, label, app.split_list(columns), validation
    )
    settings = units, epochs, l1, kl, target, learning_rate, batch_size
    preset = presets.families(splits.shape, *settings)
    seeds = range(seed, seed + 3) if full else (seed,)
    run = Run(folder, splits, preset, epochs, batch_size, seeds)
    if not folder.finished:
        run.train()
        if full:
            run.sweep()
    if report:
        run.write_report()


class Run:
    """Train models on one dataset, and write the results to a folder.

    The models and data are checked before the folder is created. The plots and the
    report show the models of the first seed.
    """

    def __init__(
        self,
        folder: app.RunFolder,
        splits: loading.Splits,
        preset: presets.Preset,
        epochs: int,
        batch_size: int,
        seeds: Sequence[int],
    ) -> None:
        self.run_folder, self.splits, self.preset = folder, splits, preset
        self.epochs, self.batch_size, self.seeds = epochs, batch_size, seeds
        for build in preset.builders.values():
            build().check_data(splits.train[0], batch_size=batch_size)
        self.folder = folder.path if folder.finished else folder.open()

    def train(self, baselines: bool = True) -> None:
        """Train the unfinished models, draw the plots, and print the table."""

        def with_names(build: Builder) -> models.Autoencoder:
            model = build()
            model.columns, model.label = self.splits.columns, self.splits.label
            return model

        builders = {
            name: functools.partial(with_names, build)
            for name, build in self.preset.builders.items()
        }
        stems = [file_stem(name, seed) for name in builders for seed in self.seeds]
        if self.run_folder.resumes:
            done = sum((self.folder / f"{stem}.json").exists() for stem in stems)
            typer.echo(
                f"Resuming {self.folder}{os.sep}: {done} of {len(stems)} models are "
                "finished. The next model starts at epoch 1."
            )
        with progress_bars(len(stems), self.epochs) as callbacks:
            table = evaluation.compare(
                builders,
                self.splits.train,
                self.splits.test,
                self.epochs,
                seeds=self.seeds,
                prepare=self.preset.prepare,
                batch_size=self.batch_size,
                directory=self.folder,
                callbacks=callbacks,
                baselines=baselines,
            )
        if len(self.seeds) > 1:
            with atomic_write(self.folder / "summary.csv") as path:
                evaluation.summarize(table).to_csv(path, index=False)
        draw_pictures(*self.trained(), self.splits.test[0], self.folder)
        # Unless a sweep follows, this table marks the run as finished.
        save_table(table, self.folder / "table.csv", self.folder / "metrics.json")
        print_results(self.run_folder)

    def trained(self) -> tuple[dict[str, models.Autoencoder], dict[str, dict]]:
        """Return the first seed's models and training histories, by name."""
        trained, histories = {}, {}
        for name in self.preset.builders:
            stem = self.folder / file_stem(name, self.seeds[0])
            trained[name] = load_model(f"{stem}.keras")
            histories[name] = read_json(f"{stem}.json", history=dict)["history"]
        return trained, histories

    def sweep(self) -> None:
        """Train one model per penalty and factor, and plot the Pareto front."""
        import pandas as pd

        from keras_sae import plots

        typer.echo("Sweeping the penalty factors ...")
        parts = []
        runs = len(self.preset.sweeps) * len(FACTORS)
        with progress_bars(runs, self.epochs) as callbacks:
            for name, build in self.preset.sweeps.items():
                folder = self.folder / "sweep" / file_stem(name, self.seeds[0])
                part = evaluation.sweep(
                    build,
                    FACTORS,
                    self.splits.train,
                    self.splits.test,
                    self.epochs,
                    seeds=self.seeds[:1],
                    batch_size=self.batch_size,
                    directory=folder,
                    callbacks=callbacks,
                )
                parts.append(part.assign(model=name))
        table = pd.concat(parts, ignore_index=True)
        save_table(table, self.folder / "sweep.csv", self.folder / "sweep.json")
        with atomic_write(self.folder / "pareto.png") as path:
            plots.pareto(table).savefig(path)

    def write_report(self) -> None:
        """Write `report.html` for the first seed's models."""
        import pandas as pd

        from keras_sae import report

        typer.echo("Writing the report ...")
        trained, histories = self.trained()
        path = report.write_report(
            trained,
            self.splits.test,
            self.folder / "report.html",
            history=histories,
            table=pd.read_csv(self.folder / "table.csv"),
            title=f"Sparse autoencoders on {self.splits.name}",
        )
        typer.echo(f"Interactive report: {path}")


def print_results(folder: app.RunFolder) -> None:
    """Print the metrics of a run and the path of its folder."""
    import pandas as pd

    if folder.finished:
        typer.echo("This run is finished. To train again, add --overwrite.")
    table = evaluation.summarize(pd.read_csv(folder.path / "table.csv"))
    print_table(table.drop(columns="units"), CAPTION)  # to save space
    typer.echo(f"Models, metrics and plots: {folder.path}{os.sep}")


def draw_pictures(
    trained: Mapping[str, models.Autoencoder],
    histories: Mapping[str, dict],
    x: np.ndarray,
    folder: Path,
) -> None:
    """Draw filters, reconstructions, codes, learning curves and generated samples."""
    from keras_sae import plots

    codes = {name: model.encode(x) for name, model in trained.items()}
    targets = {name: target_activation(model) for name, model in trained.items()}
    spread = np.linspace(0, len(x) - 1, min(12, len(x))).astype(int)
    pictures = {
        "filters": plots.filters(trained, count=16, x=x),
        "reconstructions": plots.reconstructions(trained, x[spread]),
        "activations": plots.activations(codes, targets),
        "history": plots.history(histories),
    }
    for model in trained.values():
        if isinstance(model, models.VariationalAutoencoder):
            pictures["samples"] = plots.samples(model)
            if model.decoder.input_shape[-1] > 1:  # a plane needs two dimensions
                pictures["latent_plane"] = plots.latent_plane(model, x, steps=9)
            break
    for name, figure in pictures.items():
        with atomic_write(folder / f"{name}.png") as path:
            figure.savefig(path)
