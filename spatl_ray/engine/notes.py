"""What is told of a run's hardware in table `events`."""

from __future__ import annotations

from collections.abc import Sequence

from spatl_ray.engine.messages import Facts
from spatl_ray.engine.rows import Row, of_run


def shared_gpus(facts: Sequence[Facts], now: object) -> list[Row]:
    """An event for each kind of GPU on which was measured how many actors share it best.

    Args:
        facts: of the workers.
        now: when.
    """
    kinds = {
        str(fact.hardware["gpu"]): str(fact.hardware["shared"])
        for fact in facts
        if "shared" in fact.hardware
    }
    return [
        of_run("shared GPUs", f"{kind or 'GPU'}: {text}", now)
        for kind, text in sorted(kinds.items())
    ]
