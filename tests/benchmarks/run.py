"""Measured figures, each beside the bound that it is held to. `make bench`, or a part of it:

    python tests/benchmarks/run.py speed --repeats 3

Times are ratios to bare PyTorch loops that ran in the same minutes: wire, exact sums and results on,
evaluation off, start-up apart; medians over --repeats. Written as a table and to results/bench.parquet.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pandas as pd
import torch
from checkpoints import checkpoints
from figure import Figure
from population import population
from speed import speed
from startup import startup
from summaries import summaries
from trials import trials
from vectors import sums, wire

PARTS: Mapping[str, Callable[[int], Iterator[Figure]]] = {
    "sums": sums,
    "wire": wire,
    "startup": startup,
    "speed": speed,
    "population": population,
    "checkpoints": checkpoints,
    "summaries": summaries,
    "trials": trials,
}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "parts", nargs="*", default=list(PARTS), metavar="PART", help=", ".join(PARTS)
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("results/bench.parquet"))
    arguments = parser.parse_args()
    unknown = set(arguments.parts) - PARTS.keys()
    if unknown:
        parser.error(f"parts must be of {', '.join(PARTS)}, got {', '.join(sorted(unknown))}")
    torch.set_num_threads(1)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    rows = []
    for part in arguments.parts:
        for figure in PARTS[part](arguments.repeats):
            rows.append(figure.row())
            print(_line(figure), flush=True)
            pd.DataFrame(rows).to_parquet(arguments.out)
    print(f"written to {arguments.out}")
    return 0


def _line(figure: Figure) -> str:
    bounds = [("at least", figure.least), ("at most", figure.most)]
    text = ", ".join(f"{word} {bound:g}" for word, bound in bounds if bound is not None)
    verdict = {True: "holds", False: "MISSED", None: ""}[figure.holds]
    return f"{figure.part:<10} {figure.name:<58} {figure.value:9.3f}  {text:<16} {verdict}"


if __name__ == "__main__":
    sys.exit(main())
