"""Samples that activate the units of a model most."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from keras_sae.activations import ActivationStore
from keras_sae.models import Autoencoder, sparse_codes
from keras_sae.types import Data
from keras_sae.utils.validation import positive_integer

if TYPE_CHECKING:
    import pandas as pd

_ENTRY = np.dtype(
    [("unit", "i8"), ("sample", "i8"), ("activation", "f8"), ("priority", "f8")]
)
# New entries are merged when they outnumber both this limit and the kept entries.
_MERGED_AT_ONCE = 2**20


def top_examples(
    model: Autoencoder,
    data: Data,
    units: Sequence[int] | None = None,
    count: int = 16,
    *,
    quantiles: int = 0,
    batch_size: int = 256,
    seed: int = 0,
) -> "pd.DataFrame":
    """Return the samples that activate each unit most.

    These samples show what a unit responds to, but they may follow a clearer pattern
    than the other samples that activate it. Set `quantiles` to see examples from the
    whole range of a unit's activations.

    Only one batch of the data and its codes is kept in memory at a time.

    Args:
        model: A `keras_sae.models.Autoencoder`.
        data: Array of shape `(samples, *input_shape)`, a dataset of batches, or a
            `keras_sae.activations.ActivationStore`.
        units: Indices of the units. None means all units.
        count: Maximum number of samples per unit and group.
        quantiles: Number of groups in addition to `"top"`. At most `count * quantiles`
            of a unit's non-zero activations are drawn at random, and divided by
            magnitude into groups of equal size. With `quantiles=4`, the groups are
            quartiles.
        batch_size: Samples per batch, if `data` is an array.
        seed: Random seed for drawing the activations of the `quantiles` groups.

    Returns:
        A data frame, ordered by unit, group and descending magnitude. Its columns are
        `unit`, `group` (`"top"`, or percentages such as `"75-100%"`), `sample` (index
        in the data) and `activation`. If a unit has several positions, the activation
        is the one with the largest magnitude. For an `ActivationStore`, `sample` is the
        index of a row, and an additional column `origin` contains the tuple that
        `ActivationStore.origin` returns for the row. Samples with an activation of zero
        are left out, so a dead unit has no rows.

    Raises:
        ValueError: A unit does not exist, `count` is not positive, or `data` does not
            match the model.

    Example:

    >>> import numpy as np
    >>> from keras_sae import evaluation, models
    >>> x = np.random.default_rng(0).random((20, 6), dtype="float32")
    >>> model = models.shallow((6,), 4, "l1")
    >>> table = evaluation.top_examples(model, x, units=[2], count=3)
    >>> list(table.columns)
    ['unit', 'group', 'sample', 'activation']
    """
    import pandas as pd

    positive_integer("count", count)
    width = int(model.decoder.input_shape[-1])
    chosen = np.zeros(width, bool)
    wanted = np.arange(width) if units is None else np.asarray(units, "int64")
    if ((wanted < 0) | (wanted >= width)).any():
        raise ValueError(
            f"`units` must lie between 0 and {width - 1}. Received: units={units!r}."
        )
    chosen[wanted] = True
    rng, samples = np.random.default_rng(seed), 0
    top, spread = _Largest(width, count), _Largest(width, count * quantiles)
    for code in sparse_codes.batches(model, data, batch_size):
        batch = _entries(code, width)
        batch = batch[chosen[batch["unit"]]]
        batch["sample"] += samples
        samples += code.shape[0]
        top.add(batch)
        if quantiles:
            batch["priority"] = rng.random(len(batch))
            spread.add(batch)
    found = [(top.merged(), "top")]
    if quantiles:
        # Rank the sampled activations of each unit, and divide the ranks into groups.
        sample = spread.merged()
        sample["priority"] = abs(sample["activation"])
        sample, rank = _ranked(sample)
        number = np.bincount(sample["unit"], minlength=width)[sample["unit"]]
        group = quantiles - 1 - rank * quantiles // number
        for n in reversed(range(quantiles)):
            label = f"{100 * n / quantiles:.3g}-{100 * (n + 1) / quantiles:.3g}%"
            found.append((sample[group == n], label))
    columns = ["unit", "sample", "activation"]
    parts = [
        pd.DataFrame({name: part[name] for name in columns}).assign(group=label)
        for part, label in found
    ]
    table = pd.concat(parts).sort_values("unit", kind="stable", ignore_index=True)
    table = table[["unit", "group", "sample", "activation"]]
    if isinstance(data, ActivationStore):
        table["origin"] = list(map(tuple, data.origin(table["sample"]).tolist()))
    return table


class _Largest:
    """The `count` entries per unit with the largest priorities.

    If two priorities are equal, the entry of the earlier sample is kept.
    """

    def __init__(self, units: int, count: int) -> None:
        self.count = count
        self.kept, self.new = np.empty(0, _ENTRY), [np.empty(0, _ENTRY)]
        self.smallest = np.full(units, -np.inf)  # -inf for fewer than `count` entries

    def add(self, entries: np.ndarray) -> None:
        """Add the entries of a batch."""
        is_larger = entries["priority"] > self.smallest[entries["unit"]]
        self.new.append(entries[is_larger])
        if sum(map(len, self.new)) > max(_MERGED_AT_ONCE, len(self.kept)):
            self.merged()

    def merged(self) -> np.ndarray:
        """Merge the new entries. Return the kept ones, sorted by unit and priority."""
        entries, rank = _ranked(np.concatenate([self.kept, *self.new]))
        last = entries[rank == self.count - 1]
        self.smallest[last["unit"]] = last["priority"]
        self.kept, self.new = entries[rank < self.count], []
        return self.kept


def _ranked(entries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sort entries by unit and descending priority, and rank them within each unit."""
    keys = (entries["sample"], -entries["priority"], entries["unit"])
    entries = entries[np.lexsort(keys)]
    first = np.searchsorted(entries["unit"], entries["unit"])
    return entries, np.arange(len(entries)) - first


def _entries(code: sparse.csr_array, width: int) -> np.ndarray:
    """Return the non-zero activations of a batch, one per sample and unit."""
    if code.shape[1] > width:  # several positions per unit
        values = code.toarray().reshape(code.shape[0], -1, width)
        best = abs(values).argmax(axis=1, keepdims=True)
        code = sparse.csr_array(np.take_along_axis(values, best, axis=1)[:, 0])
    cells = code.tocoo()
    entries = np.empty(cells.nnz, _ENTRY)
    entries["unit"], entries["sample"] = cells.col, cells.row
    entries["activation"], entries["priority"] = cells.data, abs(cells.data)
    return entries
