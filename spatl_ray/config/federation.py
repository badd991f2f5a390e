"""Who takes part in a round, when, and on what kind of device."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from spatl_ray.config.base import Count, Fraction, NonNegative, Own, Positive, Strict, tag


class Uniform(Strict):
    """Every available client is as likely as any other."""

    name: Literal["uniform"] = "uniform"


class BySamples(Strict):
    """Without replacement, each draw with probability in proportion to training samples."""

    name: Literal["samples"] = "samples"


class RoundRobin(Strict):
    """One seeded order over and over: counts differ by at most one while everybody is available.

    Where somebody is missing, the available clients that were asked the fewest times.
    """

    name: Literal["round_robin"] = "round_robin"


class PowerOfChoice(Strict):
    """The highest losses among drawn candidates (Cho, Wang, Joshi, arXiv 2010.01243).

    Attributes:
        candidates: d, drawn in proportion to training samples; at least the cohort. Who of them is
            taken depends on their losses, a bias that no weight undoes.
        loss: a candidate's loss is that of its `last` training (infinite before the first; known as soon
            as its round ends, also if its update is late; costs nothing), or that of the `current`
            model (costs each candidate the broadcast).
    """

    name: Literal["power_of_choice"] = "power_of_choice"
    candidates: Count
    loss: Literal["last", "current"] = "last"


class OwnSampler(Own):
    """An own sampler by dotted name; its `options` are handed to the class."""


Sampler = Annotated[
    Annotated[Uniform, Tag("uniform")]
    | Annotated[BySamples, Tag("samples")]
    | Annotated[RoundRobin, Tag("round_robin")]
    | Annotated[PowerOfChoice, Tag("power_of_choice")]
    | Annotated[OwnSampler, Tag("own")],
    Discriminator(tag),
]


class Always(Strict):
    """Every client can take part in every round."""

    name: Literal["always"] = "always"


class Random(Strict):
    """A client can take part in a round with probability p, independently of everything else."""

    name: Literal["random"] = "random"
    p: Fraction = 0.5


class Periodic(Strict):
    """A client can take part in `share` of each `period`, from a seeded start of its own.

    Attributes:
        period: rounds, such as those of a day.
        share: of the period in which a client is there.
    """

    name: Literal["periodic"] = "periodic"
    period: Annotated[int, Field(ge=2, lt=2**31)] = 24
    share: Fraction = 0.5


class Traced(Strict):
    """Who can take part, from a file.

    Attributes:
        file: CSV or Parquet with columns client, first_round, last_round (both included) and no
            others: one row for each time a client is there; a client without a row never is.
        period: rounds after which the file starts again, or None.
    """

    name: Literal["trace"] = "trace"
    file: str
    period: Annotated[int, Field(ge=1, lt=2**31)] | None = None


class Newcomers(Strict):
    """Some clients never take part, the others always: what is made for clients that come later?

    Newcomers are not of the federation's objective: their weight p_i is 0. They are evaluated as
    `evaluation.untrained` says, if they are of the panel.

    Attributes:
        share: of all clients that are newcomers, a seeded choice, rounded to the nearest number of them;
            `sample_ratio` is of all clients, too.
    """

    name: Literal["newcomers"] = "newcomers"
    share: Annotated[float, Field(gt=0, lt=1)] = 0.2


Availability = Annotated[
    Annotated[Always, Tag("always")]
    | Annotated[Random, Tag("random")]
    | Annotated[Periodic, Tag("periodic")]
    | Annotated[Traced, Tag("trace")]
    | Annotated[Newcomers, Tag("newcomers")],
    Discriminator(tag),
]


SLOWEST, FASTEST = 1e-3, 1e18
"""Bounds on the figures of a device: so that no time is infinite."""

MOST_LATENCY = 1e9
"""Seconds."""

Figure = Annotated[float, Field(ge=SLOWEST, le=FASTEST)]


class Constant(Strict):
    """The same value for every client."""

    name: Literal["constant"] = "constant"
    value: Figure


class Between(Strict):
    """Uniform in [low, high]."""

    name: Literal["between"] = "between"
    low: Figure
    high: Figure

    @model_validator(mode="after")
    def _ordered(self) -> Between:
        if self.low > self.high:
            raise ValueError(f"low must be at most high, got {self.low:g} and {self.high:g}")
        return self


class Lognormal(Strict):
    """median exp(sigma z), z standard normal: the long tail that measured devices have."""

    name: Literal["lognormal"] = "lognormal"
    median: Figure
    sigma: NonNegative = 0.5


class Choice(Strict):
    """One of some values, such as classes of devices, each with its share of the clients."""

    name: Literal["choice"] = "choice"
    values: tuple[Figure, ...]
    shares: tuple[Positive, ...] | None = None

    @field_validator("values", "shares", mode="before")
    @classmethod
    def _from_list(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    @model_validator(mode="after")
    def _matching(self) -> Choice:
        if not self.values:
            raise ValueError("values must hold at least one value, got none")
        if self.shares is not None and len(self.shares) != len(self.values):
            raise ValueError(
                f"shares must be as many as values ({len(self.values)}), got {len(self.shares)}"
            )
        return self


Draw = Annotated[
    Annotated[Constant, Tag("constant")]
    | Annotated[Between, Tag("between")]
    | Annotated[Lognormal, Tag("lognormal")]
    | Annotated[Choice, Tag("choice")],
    Discriminator(tag),
]


class Devices(Strict):
    """What clients' devices can do; each client's figures are drawn once. A number is a constant.

    Attributes:
        compute: floating-point operations a second that training reaches.
        uplink: bytes a second to the server.
        downlink: bytes a second from the server.
        latency: seconds that each message takes on top; of a trace without such a column too.
        trace: CSV or Parquet file with a row a device, instead of compute, uplink and downlink,
            which must not be given then: columns flops_per_second, uplink_bytes_per_second,
            downlink_bytes_per_second, and if wanted latency_seconds. With a column client, row by
            row each client's own device; without, every client gets a drawn row. No other columns.
        budget_flops: share in (0, 1] of the dense model's inference FLOPs that a client can afford;
            only with an algorithm that selects what is kept for inference.
        budget_bytes_up: bytes that a client may send in a round.
    """

    compute: Draw = Lognormal(median=5e9)
    uplink: Draw = Lognormal(median=1e6)
    downlink: Draw = Lognormal(median=5e6)
    latency: Annotated[float, Field(ge=0, le=MOST_LATENCY)] = 0.0
    trace: str | None = None
    budget_flops: Draw | None = None
    budget_bytes_up: Draw | None = None

    @field_validator(
        "compute", "uplink", "downlink", "budget_flops", "budget_bytes_up", mode="before"
    )
    @classmethod
    def _from_number(cls, value: Any) -> Any:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return {"name": "constant", "value": value} if number else value

    @model_validator(mode="after")
    def _drawn_or_traced(self) -> Devices:
        # A recorded experiment says every default, and must read back.
        given = [name for name in ("compute", "uplink", "downlink") if self._is_own(name)]
        if self.trace is not None and given:
            raise ValueError(
                f"{' and '.join(given)} must not be given with trace, which holds the "
                "devices' figures"
            )
        return self

    def _is_own(self, name: str) -> bool:
        default = type(self).model_fields[name].default
        return name in self.model_fields_set and getattr(self, name) != default


class Stragglers(Strict):
    """When the server stops waiting, in simulated time; what comes later does not count.

    Attributes:
        deadline: simulated seconds from the start of a round, or None.
        oversample: so many times the cohort is asked; the first to answer make the cohort.
    """

    deadline: Positive | None = None
    oversample: Annotated[float, Field(ge=1, le=1000)] = 1.0
