"""Each client trains alone: the floor of every comparison of personalised models."""

from __future__ import annotations

from spatl_ray import config
from spatl_ray.algorithms.base import Algorithm


class LocalOnly(Algorithm):
    """Nothing is shared, so that no message is sent and no byte travels."""

    def __init__(self, options: config.LocalOnly) -> None:
        pass

    def is_shared(self, part: str) -> bool:
        """No part is shared."""
        return False
