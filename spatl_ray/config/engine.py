"""What runs an experiment, and where its results go."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from spatl_ray.addresses import refuse_other_than_s3
from spatl_ray.config.base import Count, NonNegative, Positive, Strict, one_of

MOST_ACTORS = 10_000
"""On a GPU: Ray counts parts of one in ten-thousandths."""

LEAST_PART = 1 / MOST_ACTORS
"""Of a CPU or GPU, that Ray can reserve."""


class Engine(Strict):
    """What runs the clients.

    Attributes:
        backend: `ray`, or `serial` (one process, no Ray: the reference).
        workers: number of ClientActors; None takes one a CPU core (or as many as the GPUs hold). A run that
            goes on after a loss takes fewer if no more fit.
        num_cpus: CPUs a ClientActor reserves.
        num_gpus: GPUs a ClientActor reserves; a fraction shares one.
        actors_per_gpu: ClientActors that share a GPU, instead of num_gpus; `auto` measures before the first
            round, on each kind of GPU, how many fit into its memory and still make it faster.
        wait_for_workers: seconds to wait for a cluster that grows until it holds all workers (one, if their
            number is None); 0 refuses at once what it does not hold now.
        device: to train on; `auto` is cuda if any of a GPU is reserved, else cpu.
        allow_mixed: let workers of different CPU capability or software run together, and go on with a run
            that others began, which gives up bit-identical results.
        address: of a running Ray cluster, or None to start Ray on this machine.
        state_cache: bytes of client states that each worker keeps in memory, those that it used last; clients
            are placed where theirs is, if no other worker waits for that.
        state_folder: of client states, or None for one in the results folder. With several nodes it must be
            one that they share, if states are not mirrored; what only one node's disk holds would be lost
            with it.
        state_mirror: each node keeps states in a folder of its own in that place, for instance on its own
            disk, and a second node keeps a copy; a round counts when all copies are there.
        on_client_failure: what is done about a client that raises, takes too long, or takes its process
            along: `retry` it once, `skip` it in this round, or `abort` the run.
        client_timeout: seconds after which a client is given up, or None; with it, who takes part depends on
            how fast the machine is. Not for a serial run outside of the main thread: it could stop none.
        profile: write down what took from when to when in each process: results/profiles/RUN.json.
    """

    backend: Literal["ray", "serial"] = "ray"
    workers: Count | None = None
    num_cpus: NonNegative = 1.0
    num_gpus: NonNegative = 0.0
    actors_per_gpu: Literal["auto"] | Annotated[int, Field(ge=1, le=MOST_ACTORS)] | None = None
    wait_for_workers: NonNegative = 0.0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    allow_mixed: bool = False
    address: str | None = None
    state_cache: Annotated[int, Field(ge=0, lt=2**63)] = 64 * 2**20
    state_folder: Annotated[str, Field(min_length=1)] | None = None
    state_mirror: bool = False
    on_client_failure: Literal["retry", "skip", "abort"] = "skip"
    client_timeout: Positive | None = None
    profile: bool = False

    @model_validator(mode="after")
    def _mirrors_need_nodes(self) -> Self:
        if self.state_mirror and self.backend == "serial":
            raise ValueError("state_mirror must be false with backend serial, which has one node")
        return self

    @model_validator(mode="after")
    def _parts_are_such_as_ray_counts(self) -> Self:
        for name, part in (("num_cpus", self.num_cpus), ("num_gpus", self.num_gpus)):
            if 0 < part < LEAST_PART:
                raise ValueError(f"{name} must be 0, or {LEAST_PART:g} or more, got {part:g}")
        return self

    @model_validator(mode="after")
    def _gpus_are_shared_one_way(self) -> Self:
        actors = self.actors_per_gpu
        if self.num_gpus > 1 and self.num_gpus % 1:
            raise ValueError(f"num_gpus must be a whole number above 1, got {self.num_gpus:g}")
        if actors is not None and self.num_gpus:
            raise ValueError(
                f"num_gpus must be 0 with actors_per_gpu={actors}, which says the same, got {self.num_gpus:g}"
            )
        if actors == "auto" and self.backend == "serial":
            raise ValueError(
                "actors_per_gpu must not be auto with backend serial, which is one process"
            )
        if actors == "auto" and self.wait_for_workers:
            raise ValueError(
                "wait_for_workers must be 0 with actors_per_gpu=auto, which is measured on GPUs that are "
                f"there, got {self.wait_for_workers:g}"
            )
        return self


Logger = Annotated[str, one_of("tensorboard", "ray_metrics")]


class Results(Strict):
    """Where the tables go.

    Attributes:
        folder: one folder an experiment, or s3://BUCKET/PATH; several runs share it.
        overwrite: replace a run of the same id that is already there.
        loggers: what else is told of the run: `tensorboard`, `ray_metrics`, own ones (`package.module:Name`).
        flush_seconds: rows are written with the first round that ends this long after the last write.
        sweep_id: the search or sweep that the run belongs to, or None; a column of table `runs`.
        trial_id: the trial of that search, or None; a column of table `runs`.
    """

    folder: Annotated[str, AfterValidator(refuse_other_than_s3)] = "results"
    overwrite: bool = False
    loggers: tuple[Logger, ...] = ()
    flush_seconds: NonNegative = 10.0
    sweep_id: str | None = None
    trial_id: str | None = None

    @field_validator("loggers", mode="before")
    @classmethod
    def _from_list(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value
