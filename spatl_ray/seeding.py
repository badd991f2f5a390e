"""The one source of randomness: generators keyed by (seed, stream, round, client).

A key, not a history, decides what is drawn. So the same client in the same round draws the same
numbers on any worker, in any order, and again after a retry.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

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
    # An array of words is taken as it is; a list costs five times the time.
    words = np.array([seed, zlib.crc32(stream.encode()), round_, client], dtype=np.uint32)
    return np.random.SeedSequence(words)


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
    """Seed torch's global generators for what takes no other (module initialisation, dropout).

    The generators of the CPU and of every initialised CUDA device are restored on leaving.
    """
    # Here, not at the top: without it, NumPy's generators are there at once (for `spatl list`).
    import torch

    # Not torch.manual_seed: before CUDA is initialised it keeps a formatted stack for each call.
    generators = [torch.default_generator]
    if torch.cuda.is_initialized():
        generators += torch.cuda.default_generators
    states = [generator.get_state() for generator in generators]
    word = _sequence(seed, stream, round_, client).generate_state(1, np.uint64)[0]
    try:
        for generator in generators:
            generator.manual_seed(int(word >> np.uint64(1)))
        yield
    finally:
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)
