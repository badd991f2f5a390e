"""A measured figure and what it is held to."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Figure:
    """One measured number.

    Attributes:
        part: of the benchmark.
        name: what was measured.
        value: the number.
        least: bound from below, or None.
        most: bound from above, or None.
    """

    part: str
    name: str
    value: float
    least: float | None = None
    most: float | None = None

    @property
    def holds(self) -> bool | None:
        """Whether it is within its bounds; None without any."""
        if self.least is None and self.most is None:
            return None
        above = self.least is None or self.value >= self.least
        return above and (self.most is None or self.value <= self.most)

    def row(self) -> dict[str, Any]:
        """For the table."""
        return {**asdict(self), "holds": self.holds}
