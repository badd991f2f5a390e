"""What hostile clients do: one kind of attack a run."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag

from spatl_ray.config.base import Fraction, Strict, tag

Scale = Annotated[float, Field(gt=0, le=1e6)]


class _Hostile(Strict):
    """Attributes common to all attacks.

    Attributes:
        share: of all clients of the federation, to the nearest client, that are hostile; the seed draws them.
    """

    share: Fraction = 0.2


class SignFlip(_Hostile):
    """Sends -scale times its update (Li, Xu, Chen, Giannakis, Ling, "RSA", AAAI 2019).

    Attributes:
        scale: factor; with a share h of hostile clients, a mean about stands still at (1 - h) / h.
    """

    name: Literal["sign_flip"] = "sign_flip"
    scale: Scale = 4.0


class Scaled(_Hostile):
    """Sends scale times its update (Bagdasaryan et al., AISTATS 2020, model replacement).

    Attributes:
        scale: factor; from the number of a cohort's clients on, one of them alone decides a mean.
    """

    name: Literal["scaled"] = "scaled"
    scale: Scale = 100.0


class Gaussian(_Hostile):
    """Sends normal noise instead of its update (Blanchard et al., NeurIPS 2017).

    Attributes:
        scale: standard deviation, over the root mean square of the update that it stands for; so the
            expected squared norm is scale^2 times that update's, whatever the model and learning rate.
    """

    name: Literal["gaussian"] = "gaussian"
    scale: Scale = 100.0


class LabelFlip(_Hostile):
    """Trains on labels C - 1 - y (Tolpekin et al., ESORICS 2020; Fang et al., USENIX Security 2020)."""

    name: Literal["label_flip"] = "label_flip"


Attack = Annotated[
    Annotated[SignFlip, Tag("sign_flip")]
    | Annotated[Scaled, Tag("scaled")]
    | Annotated[Gaussian, Tag("gaussian")]
    | Annotated[LabelFlip, Tag("label_flip")],
    Discriminator(tag),
]
