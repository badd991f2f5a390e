"""Damages payloads at random, a million times; prints what the decoder made of them.

python tests/chaos/fuzz.py --count 1000000
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from damaged_payloads import MUTATIONS, fuzz

SHARE = 20_000
"""Payloads between two lines of progress."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1_000_000)
    count = parser.parse_args().count
    found: Counter[str] = Counter()
    start = time.perf_counter()
    for seed, done in enumerate(range(0, count, SHARE)):
        # Three of four with the checksum that fits: the others do not get past it.
        found += fuzz(MUTATIONS, min(SHARE, count - done), seed % 4 > 0, seed)
    seconds = time.perf_counter() - start
    print(
        f"{found.total():,} payloads in {seconds:.0f} s; decoded to a message: {found['valid']:,}"
    )
    kinds: Counter[str] = Counter()
    for fault, times in found.items():
        kinds[re.sub(r"\d+", "N", fault)] += times
    del kinds["valid"]
    for kind, times in kinds.most_common():
        print(f"{times:>10,}  {kind}")


if __name__ == "__main__":
    main()
