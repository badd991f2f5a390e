"""Messages of driver and workers through Python's logging, each with the run, round and client it is about.

    log = logger(__name__)
    with about(run_id="3f2a"), about(round=3, client=7):
        log.warning("failed: %s", reason)     # run 3f2a, round 3, client 7: failed: ...

A record has `run_id`, `round` and `client` as attributes (None: of no one), for whoever formats it otherwise.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any

NAMES = {"run_id": "run", "round": "round", "client": "client"}
"""Of what a message can be about, with the word that stands before it."""

LEVEL = "SPATL_LOG"
"""The environment variable that says from which level on workers write: `debug`, `info`, `warning` (so)."""

logging.getLogger("spatl_ray").addHandler(
    logging.NullHandler()
)  # who imports it decides what is shown

_NOWHERE: Mapping[str, object] = MappingProxyType(dict.fromkeys(NAMES))
_where: ContextVar[Mapping[str, object]] = ContextVar("where", default=_NOWHERE)


@contextmanager
def about(**where: object) -> Iterator[None]:
    """What is logged meanwhile, in this thread, is about this.

    Args:
        where: `run_id`, `round`, `client`; what is left out stays as it was.
    """
    token = _where.set({**_where.get(), **where})
    try:
        yield
    finally:
        _where.reset(token)


def set_about(**where: object) -> None:
    """The same from here on, for a process or a thread that is about one thing only."""
    _where.set({**_where.get(), **where})


class _Logger(logging.LoggerAdapter[logging.Logger]):
    """Says what each message is about."""

    def process(
        self, msg: Any, kwargs: MutableMapping[str, Any]
    ) -> tuple[Any, MutableMapping[str, Any]]:
        """The message with its place before it, and the place as attributes of the record."""
        where = _where.get()
        parts = [f"{word} {where[n]}" for n, word in NAMES.items() if where[n] is not None]
        text = f"{', '.join(parts)}: {msg}" if parts else msg
        return text, {**kwargs, "extra": {**where, **kwargs.get("extra", {})}}


def logger(name: str) -> _Logger:
    """A module's logger."""
    return _Logger(logging.getLogger(name), {})


def write_to_stderr() -> None:
    """Have a worker's process write its messages to where Ray keeps its output."""
    own = logging.getLogger("spatl_ray")
    if any(isinstance(handler, logging.StreamHandler) for handler in own.handlers):
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    own.addHandler(handler)
    level = os.environ.get(LEVEL, "warning").upper()
    own.setLevel(level if level in logging.getLevelNamesMapping() else logging.WARNING)
