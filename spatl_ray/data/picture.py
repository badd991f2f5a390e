"""Who holds what, as a picture: each client's shares of the classes, its samples, and its noise."""

from __future__ import annotations

import importlib
import itertools
import re
import textwrap
from pathlib import Path
from typing import Any

import numpy as np

from spatl_ray import seeding
from spatl_ray.arrays import Doubles, Integers
from spatl_ray.config import Experiment
from spatl_ray.errors import ConfigError, ResultsError

ROWS = 100
"""Clients that a picture can show one by one."""

COUNTS = 12
"""Clients and classes up to which the samples are written into the cells."""

TICKS = 11
"""Rows whose client is named, where not all clients are shown."""

COLOURS = "Blues"
BAR = "#4878a8"


def check_picture(path: Path) -> None:
    """Refuse a picture that could not be written, before any work.

    Raises:
        ConfigError: matplotlib is not installed, or writes no such files.
    """
    figure = _matplotlib("figure").Figure()
    kinds = sorted(figure.canvas.get_supported_filetypes())
    if path.suffix[1:].lower() not in kinds:
        endings = ", ".join(f".{kind}" for kind in kinds)
        raise ConfigError(f"--picture must end in one of {endings}, got {str(path)!r}")


def free_name(dataset: str, experiment: Experiment) -> Path:
    """partition-DATA SET-PARTITION-CLIENTS.png in the current folder, numbered if that is taken."""
    partition = experiment.partition.name.rpartition(":")[2]
    stem = re.sub(r"[^\w.-]+", "_", f"partition-{dataset}-{partition}-{experiment.clients}")
    numbered = (Path(f"{stem}-{number}.png") for number in itertools.count(2))
    names = itertools.chain([Path(f"{stem}.png")], numbered)
    return next(path for path in names if not path.exists())


def save_picture(counts: Integers, title: str, path: Path, noise: Doubles | None = None) -> None:
    """Draw who holds what and write it in the format of the path's ending.

    Args:
        counts: samples of each class that each client holds, shape (clients, classes).
        title: what is shown, e.g. data set and partition.
        path: the file; its folder is made, an existing one is replaced.
        noise: see `draw`.

    Raises:
        ConfigError: see `check_picture`.
        ResultsError: the file cannot be written.
    """
    check_picture(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draw(counts, title, noise).savefig(path, dpi=150)
    except OSError as error:
        raise ResultsError(f"the picture {path} cannot be written: {error}") from error


def draw(counts: Integers, title: str, noise: Doubles | None = None) -> Any:
    """The picture as a matplotlib Figure: a heat map of shares beside the sizes.

    Up to 100 clients have a row each. Of more, the rows are 100 of them, one drawn from each
    hundredth, and the sizes are those of all clients, descending. Rows are in the order of the
    clients: any order by what they hold would draw a pattern where there is none.

    Args:
        counts: shape (clients, classes), a sample at least in each row.
        title: what is shown.
        noise: standard deviation of the noise on each client's features, shape (clients,), or None;
            drawn as a bar for each row.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    clients = len(counts)
    rows = np.arange(clients) if clients <= ROWS else _sample(clients)
    height = 1.3 + 3.1 * min(max(len(rows) / 10, 0.6), 1.25)
    figure = _matplotlib("figure").Figure(figsize=(8, height), layout="constrained")
    widths = (3, 2) if noise is None else (3, 1, 2)
    left, *middle, right = figure.subplots(1, len(widths), width_ratios=widths)
    figure.suptitle(textwrap.fill(_title(title, clients), 90), fontsize=11)
    colours = _heat_map(left, counts[rows])
    # Beyond the sizes, so that the bars stand right beside their rows.
    bar = figure.colorbar(
        colours, ax=right, ticks=[0, 0.01, 0.05, 0.1, 0.25, 0.5, 1], fraction=0.1, aspect=25
    )
    bar.set_label("share of the client's samples")
    left.set_ylabel("client")
    if noise is not None:
        _bars(middle[0], noise[rows])
        middle[0].set_xlabel("noise (std)")
    if clients <= ROWS:
        _bars(right, counts.sum(axis=1))
        right.set_xlabel("samples")
        _whole_numbers(right.xaxis)
    else:
        _name_rows(left, rows)
        _curve(right, counts.sum(axis=1))
    return figure


def _matplotlib(module: str) -> Any:
    """A module of matplotlib, which only pictures need."""
    try:
        return importlib.import_module(f"matplotlib.{module}")
    except ImportError as error:
        raise ConfigError(
            "--picture needs matplotlib, which is not installed: pip install 'spatl_ray[analysis]', "
            "or give --no-picture"
        ) from error


def _title(title: str, clients: int) -> str:
    shown = f" ({ROWS} shown)" if clients > ROWS else ""
    return f"{title}: {clients:,} client{'s' if clients != 1 else ''}{shown}"


def _sample(clients: int) -> Integers:
    """One client of each hundredth, in their order; drawn, for even steps could hit every second kind."""
    starts = np.arange(ROWS + 1) * clients // ROWS
    return seeding.generator(0, "picture").integers(starts[:-1], starts[1:])


def _name_rows(axes: Any, rows: Integers) -> None:
    """The clients' numbers at some rows."""
    ticks = np.linspace(0, len(rows) - 1, TICKS).round().astype(np.int64)
    axes.set_yticks(ticks, [f"{client:,}" for client in rows[ticks]])


def _heat_map(axes: Any, counts: Integers) -> Any:
    """Shares of the classes, a row a client, in colours that are the same in all pictures."""
    shares = counts / counts.sum(axis=1, keepdims=True)
    # The root spreads the small shares that many classes leave each.
    scale = _matplotlib("colors").PowerNorm(0.5, vmin=0, vmax=1)
    image = axes.imshow(shares, aspect="auto", cmap=COLOURS, norm=scale, interpolation="nearest")
    axes.set_xlabel("class")
    _whole_ticks(axes.xaxis, counts.shape[1])
    _whole_ticks(axes.yaxis, counts.shape[0])
    if max(counts.shape) <= COUNTS and counts.max() < 100_000:
        _write_counts(axes, counts, shares)
    return image


def _write_counts(axes: Any, counts: Integers, shares: np.ndarray) -> None:
    """The samples of each cell that holds any, light on dark."""
    for (row, column), count in np.ndenumerate(counts):
        if count:
            colour = "white" if shares[row, column] > 0.35 else "black"
            axes.text(column, row, f"{count}", ha="center", va="center", fontsize=7, color=colour)


def _bars(axes: Any, values: Integers | Doubles) -> None:
    """A bar a client, in the rows of the heat map."""
    # Gaps between very many bars would only be a pattern of their own.
    axes.barh(np.arange(len(values)), values, color=BAR, height=0.8 if len(values) <= 30 else 1.0)
    axes.set_ylim(len(values) - 0.5, -0.5)
    axes.set_xlim(0, max(1.05 * values.max(), 1e-3))
    axes.set_yticks([])
    _frameless(axes)


def _curve(axes: Any, sizes: Integers) -> None:
    """The sizes of all clients, from the largest to the smallest."""
    axes.plot(np.arange(1, len(sizes) + 1), np.sort(sizes)[::-1], color=BAR)
    axes.set_xlim(1, len(sizes))
    axes.set_ylim(bottom=0)
    axes.set_xlabel("clients, from the largest to the smallest")
    axes.set_ylabel("samples")
    _frameless(axes)
    _whole_numbers(axes.yaxis)


def _frameless(axes: Any) -> None:
    """No frame on the far sides."""
    axes.spines[["top", "right"]].set_visible(False)


def _whole_numbers(samples: Any) -> None:
    """Whole numbers on the axis of samples."""
    ticker = _matplotlib("ticker")
    samples.set_major_locator(ticker.MaxNLocator(5, integer=True, steps=(1, 2, 5, 10)))
    samples.set_major_formatter(ticker.StrMethodFormatter("{x:,.0f}"))


def _whole_ticks(axis: Any, number: int) -> None:
    """A tick for each if they are few, else at round numbers."""
    if number <= COUNTS:
        axis.set_ticks(np.arange(number))
    else:
        axis.set_major_locator(_matplotlib("ticker").MaxNLocator(11, integer=True))
