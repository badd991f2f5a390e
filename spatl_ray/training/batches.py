"""Which samples a step sees."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.int64]


def full_length(n: int, size: int, drop_last: bool) -> int:
    """Samples of an epoch: all n, or those of its full batches if there is one."""
    return n - n % size if drop_last and n > size else n


def draw_batches(
    n: int,
    size: int,
    drop_last: bool,
    epochs: int | None,
    steps: int | None,
    generator: np.random.Generator,
) -> Iterator[Rows]:
    """Row indices a step: shuffled anew each epoch, whose last batch may be smaller.

    Args:
        n: number of samples, at least one.
        size: samples a step.
        drop_last: leave the smaller last batch of an epoch out, unless it is the only one.
        epochs: passes over the samples, unless `steps` is given.
        steps: number of batches, over as many epochs as it takes.
        generator: draws the order of the samples.
    """
    end = full_length(n, size, drop_last)
    left = steps if steps is not None else (epochs or 0) * -(-end // size)
    while left > 0:
        order = generator.permutation(n)[:end]
        for start in range(0, end, size)[:left]:
            yield order[start : start + size]
            left -= 1


def processed_samples(
    samples: Rows, size: int, drop_last: bool, epochs: int | None, steps: int | None
) -> Rows:
    """Samples that `draw_batches` gives in all, with repetition, for clients of these sizes.

    Args:
        samples: samples of each client, shape (clients,).
        size, drop_last, epochs, steps: as there.
    """
    shortened = drop_last & (samples > size)
    end = samples - np.where(shortened, samples % size, 0)
    if steps is None:
        return (epochs or 0) * end
    passes, rest = np.divmod(steps, -(-end // size))
    processed: Rows = passes * end + np.minimum(rest * size, end)
    return processed
