"""What is read from the table of a comparison."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


def summarize(table: Any) -> Any:
    """Takes the mean of every figure over the seeds, and its standard deviation.

    Args:
        table: What `compare` returned.

    Returns:
        A `pandas.DataFrame`, a row a model in their order; of a figure `f` the
        columns `f` (mean) and `f_spread` (standard deviation, NaN for one seed).

    Example:

    >>> import pandas as pd
    >>> from keras_sae import evaluation
    >>> table = pd.DataFrame({"model": ["a", "a"], "seed": [0, 1], "l0": [1.0, 3.0]})
    >>> evaluation.summarize(table).round(3).to_dict("records")
    [{'model': 'a', 'l0': 2.0, 'l0_spread': 1.414}]
    """
    groups = table.drop(columns="seed").groupby("model", sort=False)
    mean, spread = groups.mean(), groups.std().add_suffix("_spread")
    columns = [name for pair in zip(mean, spread, strict=True) for name in pair]
    return mean.join(spread)[columns].reset_index()


def active_units(table: Any) -> Any:
    """Returns how many units are active a sample, in every row of a table.

    That is `l0`, or `expected_l0` where a code is bounded and never exactly zero.

    Args:
        table: What `compare` or `sweep` returned.

    Returns:
        A `pandas.Series`, NaN where a row has neither.

    Example:

    >>> import pandas as pd
    >>> from keras_sae import evaluation
    >>> table = pd.DataFrame({"l0": [8.0, None], "expected_l0": [None, 3.5]})
    >>> evaluation.active_units(table).tolist()
    [8.0, 3.5]
    """
    import pandas as pd

    neither = pd.Series(float("nan"), table.index)
    return table.get("l0", neither).fillna(table.get("expected_l0", neither))


def pareto_front(
    table: "pd.DataFrame", x: str = "l0", y: str = "reconstruction"
) -> "pd.DataFrame":
    """Return the rows of a table that no other row beats on both metrics.

    A row is beaten by one that is at least as good in both and better in one.
    Smaller is better.

    Args:
        table: A `pandas.DataFrame` with the columns `x` and `y`.
        x: Name of the first metric.
        y: Name of the second metric.

    Returns:
        Rows of `table` by increasing `x`. Rows with a missing value are left out.

    Example:

    >>> import pandas as pd
    >>> from keras_sae import evaluation
    >>> table = pd.DataFrame({"l0": [1, 2, 3], "reconstruction": [3, 1, 2]})
    >>> evaluation.pareto_front(table)["l0"].tolist()
    [1, 2]
    """
    rows = table.dropna(subset=[x, y]).sort_values([x, y])
    best = rows[y].cummin()
    sparsest = rows[x].groupby(best).transform("min")
    return rows[(rows[y] == best) & (rows[x] == sparsest)]
