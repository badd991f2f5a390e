"""The exception tree.

SpatlError
+-- ConfigError        an experiment that cannot run: every fault, each with field, value and rule
+-- DataError          a data set or a partition that cannot be had
+-- ModelError         a module that cannot be split, flattened or coupled
+-- WireError          bytes that are no valid message
+-- AggregationError   sums or messages outside of what can be combined exactly
+-- StateError         a client-state file that is missing, damaged or of another run
+-- ResultsError       a results folder that is taken, or cannot be written or read
+-- PluginError        an own part, named by package.module:Name, that raised
+-- EngineError        a backend that cannot start, or a round in which nothing could be done
    +-- LostError      a process or a node that is gone: the run goes on from its last checkpoint
"""

from __future__ import annotations

from collections.abc import Sequence


class SpatlError(Exception):
    """Base of every error that this package raises on purpose."""


class ConfigError(SpatlError):
    """An experiment that cannot run.

    Attributes:
        faults: one line a fault, each naming field, value and rule.
    """

    def __init__(self, faults: str | Sequence[str]) -> None:
        self.faults: tuple[str, ...] = (faults,) if isinstance(faults, str) else tuple(faults)
        super().__init__("\n".join(self.faults))

    def __reduce__(self) -> tuple[type[ConfigError], tuple[tuple[str, ...]]]:
        return type(self), (self.faults,)


class DataError(SpatlError):
    """A data set or a partition that cannot be had."""


class ModelError(SpatlError):
    """A module that cannot be split, flattened or coupled."""


class WireError(SpatlError):
    """Bytes that are no valid message."""


class AggregationError(SpatlError):
    """Sums or messages outside of what can be combined exactly."""


class StateError(SpatlError):
    """A client-state file that is missing, damaged or of another run."""


class ResultsError(SpatlError):
    """A results folder that is taken, or cannot be written or read."""


class PluginError(SpatlError):
    """An own part, named by package.module:Name, that raised; `__cause__` is what."""


class EngineError(SpatlError):
    """A backend that cannot start, or a round in which nothing could be done."""


class LostError(EngineError):
    """A process or a node that is gone, with what it held."""
