"""A server on this machine, from which tests download as from a data set's true source."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any


@dataclass(frozen=True)
class Mirror:
    """A folder that an HTTP server serves.

    Attributes:
        folder: what is served.
        url: where, with a slash at its end.
    """

    folder: Path
    url: str


class Quiet(SimpleHTTPRequestHandler):
    """Serves files without a log line a request."""

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextmanager
def serving(folder: Path) -> Iterator[Mirror]:
    """Serve `folder` while the context lasts."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = Thread(target=server.serve_forever, args=[0.01])
    thread.start()
    yield Mirror(folder, f"http://127.0.0.1:{server.server_port}/")
    server.shutdown()
    thread.join()
    server.server_close()
