"""Which data, and who holds what of it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Discriminator, Tag, model_validator

from spatl_ray.config.base import (
    Count,
    Fraction,
    NonNegative,
    Options,
    Own,
    Positive,
    Share,
    Strict,
    tag,
)


class Split(Strict):
    """How each client's own samples are divided; the three fractions sum to 1."""

    train: Fraction = 0.8
    validation: Share = 0.1
    test: Share = 0.1

    @model_validator(mode="after")
    def _sums_to_one(self) -> Split:
        total = self.train + self.validation + self.test
        if abs(total - 1) > 1e-9:
            raise ValueError(f"train + validation + test must be 1, got {total:g}")
        return self


class Data(Strict):
    """Which data set, where its files are, and how much of it is used.

    Attributes:
        name: a built-in one (`spatl list` names them), or `package.module:loader` for an own one.
        root: folder or file; else SPATL_DATA, ./data, and the system's data folders.
        samples: size of a seeded subset of the training samples, or None for all.
        split: how each client's own samples are divided.
        options: keyword arguments of the loader.
    """

    name: str = "digits"
    root: str | None = None
    samples: Count | None = None
    split: Split = Split()
    options: Options = {}


class Iid(Strict):
    """A random permutation in equal shares."""

    name: Literal["iid"] = "iid"


class Dirichlet(Strict):
    """Label skew: each class is cut by p ~ Dir(beta) (Li, Diao, Chen, He, ICDE 2022)."""

    name: Literal["dirichlet"] = "dirichlet"
    beta: Positive = 0.5
    min_size: Count = 10


class Classes(Strict):
    """Each client holds samples of k classes (Li, Diao, Chen, He, ICDE 2022)."""

    name: Literal["classes"] = "classes"
    k: Count = 2


class Quantity(Strict):
    """Size skew: a permutation cut by p ~ Dir(beta) (Li, Diao, Chen, He, ICDE 2022)."""

    name: Literal["quantity"] = "quantity"
    beta: Positive = 0.5
    min_size: Count = 10


class Mixed(Strict):
    """Label and size skew: two classes a client, each cut by Dir(beta) between its owners."""

    name: Literal["mixed"] = "mixed"
    beta: Positive = 0.5


class Shards(Strict):
    """Samples sorted by label, k shards a client (McMahan et al., AISTATS 2017)."""

    name: Literal["shards"] = "shards"
    k: Count = 2


class FeatureNoise(Strict):
    """Feature skew: client i of n gets Gaussian noise of standard deviation s i / (n - 1)."""

    name: Literal["feature_noise"] = "feature_noise"
    s: NonNegative = 0.1


class Fcube(Strict):
    """Each of 4 clients holds an octant of the cube and its mirror (data set fcube)."""

    name: Literal["fcube"] = "fcube"


class Writers(Strict):
    """The data set's natural owners: writers, speakers; `min_size` leaves small ones out."""

    name: Literal["writers"] = "writers"
    min_size: Count = 1


class OwnPartition(Own):
    """An own partition by dotted name; its `options` are handed to it."""


Partition = Annotated[
    Annotated[Iid, Tag("iid")]
    | Annotated[Dirichlet, Tag("dirichlet")]
    | Annotated[Classes, Tag("classes")]
    | Annotated[Quantity, Tag("quantity")]
    | Annotated[Mixed, Tag("mixed")]
    | Annotated[Shards, Tag("shards")]
    | Annotated[FeatureNoise, Tag("feature_noise")]
    | Annotated[Fcube, Tag("fcube")]
    | Annotated[Writers, Tag("writers")]
    | Annotated[OwnPartition, Tag("own")],
    Discriminator(tag),
]
