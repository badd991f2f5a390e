"""Which of a client's two slots is read, and which is written."""

from __future__ import annotations

from pathlib import Path

from spatl_ray.errors import StateError


def slot_of(rounds: list[int | None], written: int, path: Path, client: int) -> int:
    """The slot that holds the state of round `written`."""
    if written not in rounds:
        raise StateError(
            f"{path}: the state of client {client} after round {written} is not there; the two "
            f"slots hold those after rounds {rounds[0]} and {rounds[1]}"
        )
    return rounds.index(written)


def slot_beside(rounds: list[int | None], round_: int, last: int, path: Path, client: int) -> int:
    """The slot to write into: not the one of round `last`. What is in it was never committed."""
    _refuse_late(rounds, round_, path, client)
    return 0 if last < 0 else 1 - slot_of(rounds, last, path, client)


def older_slot(rounds: list[int | None], round_: int, path: Path, client: int) -> int:
    """The slot with the older state, or with none."""
    _refuse_late(rounds, round_, path, client)
    ages = [-1 if written is None else written for written in rounds]
    return ages.index(min(ages))


def _refuse_late(rounds: list[int | None], round_: int, path: Path, client: int) -> None:
    """Raise if a slot holds the state after a later round."""
    if any(written is not None and written > round_ for written in rounds):
        raise StateError(
            f"{path}: the state of client {client} after round {round_} comes too late: the two "
            f"slots hold those after rounds {rounds[0]} and {rounds[1]}"
        )
