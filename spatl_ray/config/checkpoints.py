"""When a run saves where it is, and where to."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from spatl_ray.addresses import refuse_secrets
from spatl_ray.config.base import Count, NonNegative, Strict


class Checkpoints(Strict):
    """When a run saves where it is, so that `spatl resume` goes on from there.

    Attributes:
        every: a checkpoint after so many rounds; 0 takes none.
        seconds: but not sooner than so long after the last one.
        keep: the last so many stay, in case one is damaged.
        folder: of the files: a folder, or a place that Arrow knows, such as `s3://bucket/path`; None takes
            one in the results.
    """

    every: Annotated[int, Field(ge=0)] = 1
    seconds: NonNegative = 10.0
    keep: Count = 2
    folder: Annotated[str, Field(min_length=1), AfterValidator(refuse_secrets)] | None = None
