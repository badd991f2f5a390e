"""A run as Ray's own metrics, which its dashboard, Prometheus and Grafana show while it goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from spatl_ray.callbacks import Callback, Row
from spatl_ray.config import Experiment
from spatl_ray.errors import ConfigError

if TYPE_CHECKING:
    from ray.util.metrics import Counter, Gauge

TAGS = ("run", "algorithm")

COUNTED: Mapping[str, str] = {
    "spatl_rounds": "communication rounds that were committed",
    "spatl_clients": "clients that trained",
    "spatl_failures": "clients that failed, were late, or whose update was rejected",
    "spatl_bytes_up": "bytes that clients sent",
    "spatl_bytes_down": "bytes that clients were sent",
    "spatl_events": "events, such as a process that was lost",
}
"""Counters; Prometheus adds _total to their names."""

SHOWN: Mapping[str, str] = {
    "spatl_queue": "clients of the round that have not trained yet",
    "spatl_clients_per_second": "clients of the last round by its seconds",
    "spatl_efficiency": "share of the workers' time in the last round's training that clients trained",
    "spatl_train_loss": "mean loss of the last round's local training",
    "spatl_accuracy": "accuracy on the clients' own test splits, or on the global one, if that is all",
    "spatl_seconds_train": "of the last round",
    "spatl_seconds_aggregate": "of the last round",
    "spatl_seconds_evaluate": "of the last round",
    "spatl_seconds_total": "of the last round",
}
"""Gauges."""

ACCURACIES = ("panel_local_test_accuracy_mean", "local_test_accuracy_mean", "global_test_accuracy")
FAILURES = ("failed", "late", "rejected")


class RayMetrics(Callback):
    """Reports `COUNTED` and `SHOWN` to Ray, tagged with run and algorithm.

    Efficiency is the sum of the clients' seconds by (workers that trained them x seconds_train).

    Args:
        experiment: the config.

    Raises:
        ConfigError: the run has no Ray.
    """

    def __init__(self, experiment: Experiment) -> None:
        if experiment.engine.backend != "ray":
            raise ConfigError(
                "results.loggers must not name ray_metrics without Ray, got it with engine.backend "
                f"{experiment.engine.backend!r}"
            )
        self._counters: dict[str, Counter] = {}
        self._gauges: dict[str, Gauge] = {}
        self._busy = self._workers = 0.0

    def run_started(self, experiment: Experiment, run_id: str) -> None:
        """Make the metrics; Ray is there by now."""
        from ray.util.metrics import Counter, Gauge

        tags = {"run": run_id, "algorithm": experiment.algorithm.name}
        self._counters = {name: Counter(name, text, TAGS) for name, text in COUNTED.items()}
        self._gauges = {name: Gauge(name, text, TAGS) for name, text in SHOWN.items()}
        for metric in (*self._counters.values(), *self._gauges.values()):
            metric.set_default_tags(tags)

    def clients_done(self, round_: int, done: int, cohort: int) -> None:
        """Show how many are to come."""
        self._show("spatl_queue", cohort - done)

    def event(self, row: Row) -> None:
        """Count it."""
        self._count("spatl_events", 1)

    def clients_ended(self, round_: int, rows: Sequence[Row]) -> None:
        """Sum up what clients took, until the round's own seconds are known."""
        trained = [row for row in rows if row["participated"]]
        self._busy = sum(_number(row.get("seconds")) for row in trained)
        self._workers = float(len({row.get("actor") for row in trained}))

    def round_ended(self, row: Row) -> None:
        """Report a round."""
        clients = _number(row["participants"])
        self._count("spatl_rounds", 1)
        self._count("spatl_clients", clients)
        self._count("spatl_failures", sum(_number(row[name]) for name in FAILURES))
        for name in ("bytes_up", "bytes_down"):
            self._count(f"spatl_{name}", _number(row[name]))
        for name in ("seconds_train", "seconds_aggregate", "seconds_evaluate", "seconds_total"):
            self._show(f"spatl_{name}", row[name])
        self._show("spatl_train_loss", row["train_loss"])
        accuracies = (row[name] for name in ACCURACIES if row[name] is not None)
        self._show("spatl_accuracy", next(accuracies, None))
        if seconds := _number(row["seconds_total"]):
            self._show("spatl_clients_per_second", clients / seconds)
        if there := self._workers * _number(row["seconds_train"]):
            self._show("spatl_efficiency", self._busy / there)

    def _count(self, name: str, more: float) -> None:
        if self._counters and more > 0:
            self._counters[name].inc(more)

    def _show(self, name: str, value: object) -> None:
        if self._gauges and isinstance(value, int | float):
            self._gauges[name].set(value)


def _number(value: object) -> float:
    """0 for what was not measured."""
    return float(value) if isinstance(value, int | float) else 0.0
