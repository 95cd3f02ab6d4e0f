"""The bar that a search shows."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def shown(oracle: Any) -> Iterator[None]:
    """Shows how many trials have ended and the best score, while the block runs.

    Args:
        oracle: A guarded oracle.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

    columns = "{task.description}", BarColumn(), MofNCompleteColumn()
    # Not stdout: there keras-tuner prints lines of its own, which are dropped.
    console = Console(stderr=True)
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        task = progress.add_task("search", total=oracle.max_trials)

        def moved() -> None:
            best = oracle.get_best_trials(1)
            score = f", best {best[0].score:.4g}" if best else ""
            ended = len(oracle.ended("COMPLETED")) + len(oracle.ended("FAILED"))
            progress.update(task, completed=ended, description=f"search{score}")

        oracle.on_progress = moved
        moved()
        try:
            yield
        finally:
            del oracle.on_progress
