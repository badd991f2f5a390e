"""The one source of randomness: generators keyed by (seed, stream, round, client).

A key, not a history, decides what is drawn. So the same client in the same round draws the same
numbers on any worker, in any order, and again after a retry.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from spatl_ray.errors import ConfigError

ANY = 0xFFFFFFFF
"""Stands for "no particular round" or "no particular client" in a key."""


def _sequence(seed: int, stream: str, round_: int, client: int) -> np.random.SeedSequence:
    """The seed sequence of a key; `stream` enters by its CRC-32, which no Python version changes.

    Each component is one 32-bit word: of longer ones, different keys could give the same words.
    """
    key = {"seed": seed, "round": round_, "client": client}
    faults = [f"{k} must be in [0, 2**32), got {v}" for k, v in key.items() if not 0 <= v <= ANY]
    if faults:
        raise ConfigError(faults)
    return np.random.SeedSequence([seed, zlib.crc32(stream.encode()), round_, client])


def generator(seed: int, stream: str, round_: int = ANY, client: int = ANY) -> np.random.Generator:
    """A NumPy generator (PCG64) for the key (seed, stream, round, client).

    Args:
        seed: the experiment's seed, in [0, 2**32).
        stream: what the numbers are for, e.g. "cohort", "partition", "batches".
        round_: the round, or `ANY`.
        client: the client, or `ANY`.

    Raises:
        ConfigError: a number outside of [0, 2**32).
    """
    return np.random.Generator(np.random.PCG64(_sequence(seed, stream, round_, client)))


@contextmanager
def torch_seeded(seed: int, stream: str, round_: int = ANY, client: int = ANY) -> Iterator[None]:
    """Seed torch's global generator for what takes no other (module initialisation, dropout).

    The generators of the CPU and of every initialised CUDA device are restored on leaving.
    """
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=devices):
        word = _sequence(seed, stream, round_, client).generate_state(1, np.uint64)[0]
        torch.manual_seed(int(word >> np.uint64(1)))
        yield
