"""Who holds what, as text."""

from __future__ import annotations

from collections.abc import Sequence

from spatl_ray import config
from spatl_ray.arrays import Doubles, Integers
from spatl_ray.data.heterogeneity import heterogeneity

FEW = 20
"""Clients up to which a text shows each one's samples."""

BLOCK = 10
"""Classes side by side."""


def partition_text(partition: config.Partition) -> str:
    """A partition and its parameters, e.g. "dirichlet(beta=0.5, min_size=10)"."""
    arguments = partition.model_dump(exclude={"name"})
    arguments.update(arguments.pop("options", {}))
    shown = ", ".join(f"{name}={value}" for name, value in arguments.items())
    return f"{partition.name}({shown})" if shown else partition.name


def figures_text(counts: Integers, noise: Doubles | None = None) -> str:
    """The figures of heterogeneity, aligned, one a line.

    Args:
        counts: samples of each class that each client holds, shape (clients, classes).
        noise: standard deviation of the noise on each client's features, shape (clients,), if any.
    """
    found = heterogeneity(counts)
    lines = [
        ("earth mover's distance of labels", f"{found.distance_mean:.3f}", "mean, from 0 to 2"),
        ("", f"{found.distance_p90:.3f}", "90th percentile"),
        ("Gini coefficient of sizes", f"{found.gini:.3f}", "0 if all are equal"),
        ("samples a client", f"{found.smallest:,}", "smallest"),
        ("", f"{found.median:,.1f}".removesuffix(".0"), "median"),
        ("", f"{found.largest:,}", "largest"),
        ("classes a client", f"{found.classes_mean:.4g}", f"mean, of {counts.shape[1]}"),
    ]
    if noise is not None:
        lines += [
            ("noise on the features", f"{noise.min():.4g}", "standard deviation, smallest"),
            ("", f"{noise.max():.4g}", "largest"),
        ]
    wide = max(len(value) for _, value, _ in lines)
    return "\n".join(f"{name:<34}{value:>{wide}}  {note}" for name, value, note in lines)


def holdings_text(counts: Integers) -> str:
    """Who holds how many samples, in all and of each class; ten classes side by side at most.

    Args:
        counts: shape (clients, classes).
    """
    sizes = counts.sum(axis=1)
    blocks = ["samples of each class"]
    for first in range(0, counts.shape[1], BLOCK):
        part = counts[:, first : first + BLOCK]
        heading = ["client", "all", *(str(first + c) for c in range(part.shape[1]))]
        rows = [[str(i), f"{sizes[i]:,}", *map("{:,}".format, part[i])] for i in range(len(part))]
        blocks.append(_aligned([heading, *rows]))
    return "\n".join(blocks)


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    """Columns flush right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    )
