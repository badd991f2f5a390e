"""What a client's messages hold, in bytes by part, each way: mean over the messages of a run.

    PYTHONPATH=. python tests/benchmarks/message_parts.py fashion_resnet20 rounds=5 wire.uplink=int4

The experiment is run in this process, and what each part adds to the length of an encoded message is noted.
It is meant for all clients in each round: one that missed some is sent what it missed, too.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from analysis.formats import to_markdown
from spatl_ray import load_experiment, run
from spatl_ray.engine import aggregator, local_rounds
from spatl_ray.engine.held import Held
from spatl_ray.parameters import Arrays
from spatl_ray.update import Broadcast, Parts, Update
from spatl_ray.wire.codec import encode
from spatl_ray.wire.values import value_bytes

Message = Broadcast | Update

FRAME = {"up": 31, "down, first": 15, "down, later": 15}
"""Bytes of a message beside its parts."""


def by_part(message: Message, *known: Any) -> Iterator[tuple[str, int]]:
    """What each part adds: its values, and its mask with the fields that name it."""
    before = FRAME["up"] if isinstance(message, Update) else FRAME["down, first"]
    for count, (name, part) in enumerate(message.parts.items(), 1):
        first = dict(list(message.parts.items())[:count])
        length = len(encode(_with(message, first), *known))
        values = len(value_bytes(part))
        yield f"{name}: values", values
        yield f"{name}: mask and fields", length - before - values
        before = length


def _with(message: Message, parts: Mapping[str, Any]) -> Message:
    if isinstance(message, Broadcast):
        return Broadcast(message.round, parts)
    return Update(message.round, message.client, message.steps, message.samples, parts)


class Ledger:
    """Bytes by direction and part of every message that it was told of."""

    def __init__(self) -> None:
        self.bytes: dict[str, Counter[str]] = defaultdict(Counter)
        self.messages: Counter[str] = Counter()

    def note(self, kind: str, message: Message, *known: Any, counts: bool = True) -> None:
        """Note a message; a second half of one that was noted before does not count."""
        self.messages[kind] += counts
        if message.parts:
            self.bytes[kind].update(dict(by_part(message, *known)))

    def table(self) -> pd.DataFrame:
        """Mean bytes a message."""
        means = {
            kind: {name: total / self.messages[kind] for name, total in of.items()}
            for kind, of in self.bytes.items()
        }
        return pd.DataFrame(means).fillna(0).round(1)


def watch(ledger: Ledger, is_held: bool) -> None:
    """Tell the ledger of what is sent.

    With differences to what clients hold, a round's message is the differences and what is sent as it is;
    else it is the common broadcast.
    """

    def sent(message: Update, *known: Any) -> bytes:
        ledger.note("up", message, *known)
        return encode(message, *known)

    def common(message: Broadcast, *known: Any) -> bytes:
        if not is_held and message.parts:
            ledger.note("down, first" if message.round == 0 else "down, later", message, *known)
        return encode(message, *known)

    local_rounds.encode = sent  # type: ignore[attr-defined, assignment]
    aggregator.encode = common  # type: ignore[attr-defined, assignment]
    if is_held:
        _watch_held(ledger)


def _watch_held(ledger: Ledger) -> None:
    differences, sizes = Held.differences, Held.sizes

    def noted(self: Held, before: Arrays, server: Arrays) -> Parts:
        parts = differences(self, before, server)
        ledger.note("down, later", Broadcast(1, parts), self.algorithm.spaces())
        return parts

    def sized(self: Held, server: Arrays, round_: int, *others: Any) -> dict[int, int]:
        kind, parts = (
            ("down, later", self._rest(server)) if round_ else ("down, first", self.whole(server))
        )
        ledger.note(kind, Broadcast(round_, parts), self.algorithm.spaces(), counts=round_ == 0)
        return sizes(self, server, round_, *others)

    Held.differences, Held.sizes = noted, sized  # type: ignore[method-assign, assignment]


def main(name: str, *overrides: str) -> None:
    ledger = Ledger()
    with tempfile.TemporaryDirectory() as folder:
        given = [*overrides, f"results.folder={folder}", "engine.backend=serial"]
        experiment = load_experiment(name, given)
        if experiment.wire.broadcast == "changed":
            raise SystemExit(
                "error: wire.broadcast must not be 'changed': each client is sent its own"
            )
        watch(ledger, is_held=experiment.wire.broadcast != "full")
        run(experiment)
    if not ledger.bytes:
        raise SystemExit("error: algorithm must send something, got one whose messages are empty")
    table = ledger.table()
    table.loc["all, with a frame of 15 or 31"] = table.sum() + [
        FRAME[kind] for kind in table.columns
    ]
    print(to_markdown(table.reset_index(names="part")))


if __name__ == "__main__":
    main(*sys.argv[1:])
