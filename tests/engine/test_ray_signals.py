"""What starting Ray leaves of the caller's signal handlers."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from small_runs import small


@pytest.fixture
def before() -> Iterator[Any]:
    """Who listened to SIGTERM, restored afterwards."""
    handler = signal.getsignal(signal.SIGTERM)
    yield handler
    signal.signal(signal.SIGTERM, handler)


@pytest.mark.ray  # Nothing starts, but importing Ray takes seconds.
@pytest.mark.parametrize("has_own", [True, False])
def test_a_callers_sigterm_handler_outlives_the_start_of_ray(
    tmp_path: Path, before: Any, has_own: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`ray.init` sets one that exits at once; where nobody listened, it is better than none."""
    from spatl_ray.engine import ray_cluster

    def callers(*_: object) -> None:
        """The command line's."""

    def rays(*_: object) -> None:
        """Ray's."""

    def init(**_: object) -> None:
        signal.signal(signal.SIGTERM, rays)

    monkeypatch.setattr(ray_cluster.ray, "init", init)
    monkeypatch.setattr(ray_cluster.ray, "is_initialized", lambda: False)
    signal.signal(signal.SIGTERM, callers if has_own else signal.SIG_DFL)
    ray_cluster.RayCluster(small(tmp_path).engine).connect()
    assert signal.getsignal(signal.SIGTERM) is (callers if has_own else rays)
