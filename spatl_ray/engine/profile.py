"""What took from when to when in each process, as a trace that a browser shows.

The file has the trace event format (https://ui.perfetto.dev and chrome://tracing open it): a row a
process, spans inside each other as they were entered.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from spatl_ray.errors import ResultsError
from spatl_ray.places import write_whole

MICROSECONDS = 1e6


@dataclass(frozen=True)
class Span:
    """Something that was done, in seconds since the epoch."""

    name: str
    start: float
    end: float


class Spans:
    """Notes spans of one process, if it is on; else it costs next to nothing."""

    def __init__(self, on: bool) -> None:
        self._on = on
        self._noted: list[Span] = []

    def of(self, name: str) -> AbstractContextManager[None]:
        """While entered, what is done has this name."""
        return self._noting(name) if self._on else nullcontext()

    @contextmanager
    def _noting(self, name: str) -> Iterator[None]:
        start = time.time()
        try:
            yield
        finally:
            self._noted.append(Span(name, start, time.time()))

    def take(self) -> tuple[Span, ...]:
        """What was noted since the last call."""
        noted, self._noted = tuple(self._noted), []
        return noted


class Profile:
    """Spans of all processes of a run, as its driver gathers them.

    Args:
        on: whether anything is noted.

    Attributes:
        spans: of the driver.
    """

    def __init__(self, on: bool) -> None:
        self.spans = Spans(on)
        self._on = on
        self._tracks: dict[str, list[Span]] = defaultdict(list)

    def take(self, others: Callable[[], Mapping[str, Sequence[Span]]]) -> None:
        """Keep what the processes did since the last call; `others` tells it of all but the driver."""
        if self._on:
            for name, spans in ("driver", self.spans.take()), *others().items():
                self._tracks[name].extend(spans)

    def write(self, path: Path) -> None:
        """Write what was kept, if anything was.

        Raises:
            ResultsError: it cannot be written.
        """
        if self._tracks:
            write_trace(path, self._tracks)


def write_trace(path: Path, tracks: Mapping[str, Sequence[Span]]) -> None:
    """Write a trace; times are from the first span on.

    Args:
        path: of the JSON file.
        tracks: spans by process.

    Raises:
        ResultsError: it cannot be written.
    """
    zero = min((span.start for spans in tracks.values() for span in spans), default=0.0)
    events: list[dict[str, object]] = []
    for number, (name, spans) in enumerate(tracks.items()):
        place = {"pid": number, "tid": 0}
        events.append({"ph": "M", "name": "process_name", "args": {"name": name}, **place})
        for span in spans:
            start, length = span.start - zero, span.end - span.start
            when = {"ts": start * MICROSECONDS, "dur": length * MICROSECONDS}
            events.append({"ph": "X", "name": span.name, **when, **place})
    try:
        write_whole(path, json.dumps({"traceEvents": events}).encode())
    except OSError as error:
        raise ResultsError(f"the profile {path} cannot be written: {error}") from error
