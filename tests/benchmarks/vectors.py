"""Wire format and exact sums, against memcpy and against the entropy of the masks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial as bind
from time import perf_counter

import numpy as np
from figure import Figure

from spatl_ray.aggregation.masked import Accumulator, Partial, Weight, Weights
from spatl_ray.parameters import ChannelGroup, Space, make_space
from spatl_ray.update import Mask, Update, channel_mask, element_mask, keep
from spatl_ray.wire.codec import decode_update, encode

LAYERS, CHANNELS, ROW = 11, 1024, 1024
"""11 million parameters."""

COHORT = 8
"""Updates of 22 MB each."""

WEIGHTS = Weights(1e-3, 1e-3)

DENSITIES = (0.5, 0.1, 0.01)


def seconds(action: Callable[[], object], repeats: int) -> float:
    """The median time of an action."""
    times = []
    for _ in range(repeats):
        start = perf_counter()
        action()
        times.append(perf_counter() - start)
    return float(np.median(times))


def sums(repeats: int) -> Iterator[Figure]:
    """Aggregation of a cohort's masked updates, each of which is copied before it is added.

    Both read a payload that the core's cache does not hold, as a server does.
    """
    space, vector, mask = _half_of_the_channels()
    update, payload = _encoded(space, vector, mask)
    sources = [np.frombuffer(payload, np.uint8).copy() for _ in range(COHORT)]
    targets = [np.zeros_like(source) for source in sources]
    updates = [decode_update(source.tobytes(), {"delta": space}) for source in sources]
    partial = Partial((Accumulator("delta", space, Weight.COHORT, "senders"),), levels=1)
    copies, additions = [], []
    for _ in range(repeats):
        for source, target, update in zip(sources, targets, updates, strict=True):
            copies.append(seconds(bind(np.copyto, target, source), 1))
            additions.append(seconds(bind(partial.add, update.parts, WEIGHTS), 1))
    copied, added = (len(payload) / float(np.median(each)) for each in (copies, additions))
    yield Figure("sums", "memcpy, GB/s", copied / 1e9)
    yield Figure("sums", "masked updates, bytes/s of memcpy's", added / copied, least=0.2)


def wire(repeats: int) -> Iterator[Figure]:
    """Speed of the codec, and the size of masks."""
    space, vector, mask = _half_of_the_channels()
    update, payload = _encoded(space, vector, mask)
    spaces = {"delta": space}
    encoded = _rate(payload, lambda: encode(update, spaces), repeats)
    decoded = _rate(payload, lambda: decode_update(payload, spaces), repeats)
    yield Figure("wire", "encode, GB/s", encoded / 1e9, least=1.0)
    yield Figure("wire", "decode, GB/s", decoded / 1e9, least=1.0)
    extra = 8 * (len(payload) - update.parts["delta"].values.nbytes)
    # One bit a channel, and a header of fixed length.
    yield Figure("wire", "bits a channel of a channel mask", extra / space.channels, most=1.05)
    generator = np.random.default_rng(0)
    for density in DENSITIES:
        name = f"random mask of density {density:g}, bytes of the entropy's"
        yield Figure("wire", name, _of_entropy(generator, density), most=1.15)


def _half_of_the_channels() -> tuple[Space, np.ndarray, Mask]:
    generator = np.random.default_rng(0)
    groups = tuple(ChannelGroup(f"{i}", CHANNELS, i * CHANNELS) for i in range(LAYERS))
    tensors = [(f"{i}.weight", "encoder", (CHANNELS, ROW), i) for i in range(LAYERS)]
    space = make_space(tensors, groups)
    vector = generator.standard_normal(space.size, dtype=np.float32)
    return space, vector, channel_mask(generator.random(space.channels) < 0.5)


def _of_entropy(generator: np.random.Generator, density: float) -> float:
    """Bytes of a random mask over the entropy bound."""
    space = make_space([("weight", "encoder", (1 << 20,), -1)])
    kept = generator.random(space.size) < density
    update, payload = _encoded(space, np.ones(space.size, np.float32), element_mask(kept))
    size, p = len(payload) - update.parts["delta"].values.nbytes, kept.mean()
    return float(size / (-(p * np.log2(p) + (1 - p) * np.log2(1 - p)) * space.size / 8))


def _rate(payload: bytes, action: Callable[[], object], repeats: int) -> float:
    """Payload bytes a second."""
    return len(payload) / seconds(action, 3 * repeats)


def _encoded(space: Space, vector: np.ndarray, mask: Mask) -> tuple[Update, bytes]:
    update = Update(0, 0, 1, 1, {"delta": keep(vector, mask, space, "float32")})
    return update, encode(update, {"delta": space})
