"""What a selection is decided on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from spatl_ray.arrays import Bits, readonly
from spatl_ray.errors import ConfigError
from spatl_ray.parameters import Array, Arrays, ModelVector, Space
from spatl_ray.training.evaluate import Validate


@dataclass(frozen=True, eq=False)
class Candidate:
    """One client's encoder after local training, and what the client can afford.

    Attributes:
        client, round: whose decision, and when.
        space: the shared parameters, with their channel groups.
        model: the whole local model.
        update: shape (space.size,), what would be sent densely.
        state: the client's state; a selector's own arrays are in it.
        validate: scores a model on the client's own validation split, or on a seeded sample of it;
            None if that is empty.
        generator: the only source of randomness of the decision.
        budget_bytes: bytes that the client may send, or None.
        budget_flops: share of the dense encoder's inference FLOPs that it can afford, or None.
        bytes_of: length of the encoded update that sends the given channels, shape
            (space.channels,); needed with `budget_bytes`.
        gradient_of: gradient of the training loss at a model, over its parameters, on a seeded sample
            of the client's training split; needed by criteria that ask for it.
        episodes: of a selector's search for this decision; None leaves it to the selector, 0 searches not.

    Raises:
        ConfigError: a budget of bytes without `bytes_of`.
    """

    client: int
    round: int
    space: Space
    model: ModelVector
    update: Array
    state: Arrays
    validate: Validate
    generator: np.random.Generator
    budget_bytes: float | None = None
    budget_flops: float | None = None
    bytes_of: Callable[[Bits], int] | None = None
    gradient_of: Callable[[ModelVector], Array] | None = None
    episodes: int | None = None

    def __post_init__(self) -> None:
        # Criteria and selectors only look: what they changed here would be sent.
        object.__setattr__(self, "update", readonly(self.update))
        vectors = (self.model.parameters, self.model.buffers)
        object.__setattr__(self, "model", ModelVector(*map(readonly, vectors)))
        if self.budget_bytes is not None and self.bytes_of is None:
            raise ConfigError(
                f"a candidate's budget_bytes needs bytes_of, got {self.budget_bytes:g} without it"
            )

    @property
    def weights(self) -> Array:
        """The encoder's weights, shape (space.size,)."""
        return self.model.parameters[: self.space.size]

    def gradient(self) -> Array:
        """Gradient of the training loss over the encoder's weights, shape (space.size,).

        Raises:
            ConfigError: there is no `gradient_of`.
        """
        if self.gradient_of is None:
            raise ConfigError(
                "a candidate's gradient_of must be given for a criterion that needs it"
            )
        return self.gradient_of(self.model)[: self.space.size]
