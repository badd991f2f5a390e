"""Who holds what, as a picture: each client's shares of the classes, and its number of samples."""

from __future__ import annotations

import importlib
import textwrap
from pathlib import Path
from typing import Any

import numpy as np

from spatl_ray.data.dealing import Integers
from spatl_ray.errors import ConfigError, ResultsError

ROWS = 100
"""Clients that a picture can show one by one."""

COUNTS = 12
"""Clients and classes up to which the samples are written into the cells."""

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


def save_picture(counts: Integers, title: str, path: Path) -> None:
    """Draw who holds what and write it in the format of the path's ending.

    Args:
        counts: samples of each class that each client holds, shape (clients, classes).
        title: what is shown, e.g. data set and partition.
        path: the file; its folder is made, an existing one is replaced.

    Raises:
        ConfigError: see `check_picture`.
        ResultsError: the file cannot be written.
    """
    check_picture(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draw(counts, title).savefig(path, dpi=150)
    except OSError as error:
        raise ResultsError(f"the picture {path} cannot be written: {error}") from error


def draw(counts: Integers, title: str) -> Any:
    """The picture as a matplotlib Figure: a heat map of shares beside the sizes.

    Up to 100 clients have a row each, in their order. Of more, the rows are 100 clients at even
    steps in the order of their largest class, and the sizes are those of all clients, descending.

    Args:
        counts: shape (clients, classes), a sample at least in each row.
        title: what is shown.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    clients = len(counts)
    rows = np.arange(clients) if clients <= ROWS else _sample(counts)
    height = 1.3 + 3.1 * min(max(len(rows) / 10, 0.6), 1.25)
    figure = _matplotlib("figure").Figure(figsize=(8, height), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    figure.suptitle(textwrap.fill(_title(title, clients), 90), fontsize=11)
    colours = _heat_map(left, counts[rows])
    # Beyond the sizes, so that the bars stand right beside their rows.
    bar = figure.colorbar(colours, ax=right, ticks=[0, 0.01, 0.05, 0.1, 0.25, 0.5, 1], fraction=0.1)
    bar.set_label("share of the client's samples")
    if clients <= ROWS:
        left.set_ylabel("client")
        _bars(right, counts.sum(axis=1))
    else:
        left.set_ylabel(f"{ROWS} of the clients, by largest class")
        left.set_yticks([])
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


def _sample(counts: Integers) -> Integers:
    """Clients at even steps in the order of largest class, then of its share."""
    shares = counts / counts.sum(axis=1, keepdims=True)
    order = np.lexsort((-shares.max(axis=1), shares.argmax(axis=1)))
    steps = np.linspace(0, len(counts) - 1, ROWS).round().astype(np.int64)
    return order[steps]


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


def _bars(axes: Any, sizes: Integers) -> None:
    """The sizes, a bar a client, in the rows of the heat map."""
    # Gaps between very many bars would only be a pattern of their own.
    axes.barh(np.arange(len(sizes)), sizes, color=BAR, height=0.8 if len(sizes) <= 30 else 1.0)
    axes.set_ylim(len(sizes) - 0.5, -0.5)
    axes.set_yticks([])
    axes.set_xlabel("samples")
    _plain(axes, axes.xaxis)


def _curve(axes: Any, sizes: Integers) -> None:
    """The sizes of all clients, from the largest to the smallest."""
    axes.plot(np.arange(1, len(sizes) + 1), np.sort(sizes)[::-1], color=BAR)
    axes.set_xlim(1, len(sizes))
    axes.set_ylim(bottom=0)
    axes.set_xlabel("clients, from the largest to the smallest")
    axes.set_ylabel("samples")
    _plain(axes, axes.yaxis)


def _plain(axes: Any, samples: Any) -> None:
    """No frame on the far sides, and whole numbers on the axis of samples."""
    ticker = _matplotlib("ticker")
    axes.spines[["top", "right"]].set_visible(False)
    samples.set_major_locator(ticker.MaxNLocator(5, integer=True, steps=(1, 2, 5, 10)))
    samples.set_major_formatter(ticker.StrMethodFormatter("{x:,.0f}"))


def _whole_ticks(axis: Any, number: int) -> None:
    """A tick for each if they are few, else at round numbers."""
    if number <= COUNTS:
        axis.set_ticks(np.arange(number))
    else:
        axis.set_major_locator(_matplotlib("ticker").MaxNLocator(11, integer=True))
