"""Clients' devices: how fast they compute and talk, and what they can afford."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spatl_ray import config, seeding
from spatl_ray.arrays import Doubles, Integers
from spatl_ray.config.federation import FASTEST, MOST_LATENCY, SLOWEST
from spatl_ray.errors import ConfigError, DataError
from spatl_ray.federation.figures import figure, lowest
from spatl_ray.federation.trace import Trace, read_trace

SPEEDS = ("flops_per_second", "uplink_bytes_per_second", "downlink_bytes_per_second")
"""Columns of a trace: compute, uplink, downlink."""


@dataclass(frozen=True)
class Times:
    """Simulated seconds of a client's round."""

    train: float
    uplink: float
    downlink: float

    @property
    def total(self) -> float:
        """From the broadcast's first byte to the update's last."""
        return self.train + self.downlink + self.uplink


@dataclass(frozen=True, slots=True)
class Device:
    """What a client's device can do; small, for it travels in messages.

    Attributes:
        flops_per_second: floating-point operations a second that training reaches.
        uplink: bytes a second to the server.
        downlink: bytes a second from the server.
        latency: seconds that each message takes on top.
        budget_flops: affordable share of the dense model's inference FLOPs, in (0, 1], or None.
        budget_bytes_up: bytes that it may send in a round, or None.
    """

    flops_per_second: float
    uplink: float
    downlink: float
    latency: float
    budget_flops: float | None = None
    budget_bytes_up: float | None = None

    def seconds(self, flops: float, bytes_up: int, bytes_down: int) -> Times:
        """work / speed, and the latency for each message that has bytes.

        Args:
            flops: floating-point operations of training.
            bytes_up: length of the update.
            bytes_down: length of the broadcast.
        """
        return Times(
            train=flops / self.flops_per_second,
            uplink=bytes_up / self.uplink + (self.latency if bytes_up else 0.0),
            downlink=bytes_down / self.downlink + (self.latency if bytes_down else 0.0),
        )


@dataclass(frozen=True, eq=False)
class Fleet:
    """The devices of all clients: the fields of `Device` as arrays of shape (clients,)."""

    flops_per_second: Doubles
    uplink: Doubles
    downlink: Doubles
    latency: Doubles
    budget_flops: Doubles | None = None
    budget_bytes_up: Doubles | None = None

    def device(self, client: int) -> Device:
        """One client's device."""
        if not 0 <= client < len(self.latency):
            raise DataError(f"client must be in [0, {len(self.latency)}), got {client}")
        flops, data = self.budget_flops, self.budget_bytes_up
        return Device(
            float(self.flops_per_second[client]),
            float(self.uplink[client]),
            float(self.downlink[client]),
            float(self.latency[client]),
            None if flops is None else float(flops[client]),
            None if data is None else float(data[client]),
        )


def fastest_round(fleet: Fleet, flops: Doubles, bytes_up: int, bytes_down: int) -> Doubles:
    """Each client's simulated seconds of a round: download, training, upload.

    Args:
        fleet: the devices.
        flops: floating-point operations of training, shape (clients,).
        bytes_up: length of the update, the same for all.
        bytes_down: length of the broadcast.
    """
    download = bytes_down / fleet.downlink + (fleet.latency if bytes_down else 0.0)
    upload = bytes_up / fleet.uplink + (fleet.latency if bytes_up else 0.0)
    least: Doubles = flops / fleet.flops_per_second + download + upload
    return least


def make_fleet(spec: config.Devices, clients: int, seed: int) -> Fleet:
    """Every client's device. Each figure has a random stream of its own.

    A drawn `budget_flops` above 1 is cut to 1.

    Args:
        spec: the draws, or the trace.
        clients: number N of clients.
        seed: the experiment's.

    Raises:
        ConfigError: a figure that is drawn beyond what times can be made of, shares in
            `budget_flops` that can only be above 1, or a trace that is neither CSV nor Parquet.
        DataError: a trace that cannot be read, or breaks a rule.
    """
    figures = _drawn if spec.trace is None else _traced
    compute, uplink, downlink, latency = figures(spec, clients, seed)
    share = _optional("budget_flops", spec.budget_flops, clients, seed)
    if spec.budget_flops is not None and share is not None:
        if lowest(spec.budget_flops) > 1:
            raise ConfigError(
                "devices.budget_flops must be a share in (0, 1], got at least "
                f"{lowest(spec.budget_flops):g} for every client"
            )
        share = np.minimum(share, 1.0)
    data = _optional("budget_bytes_up", spec.budget_bytes_up, clients, seed)
    return Fleet(compute, uplink, downlink, latency, share, data)


def _drawn(spec: config.Devices, clients: int, seed: int) -> tuple[Doubles, ...]:
    compute = figure("compute", spec.compute, clients, seed)
    uplink = figure("uplink", spec.uplink, clients, seed)
    downlink = figure("downlink", spec.downlink, clients, seed)
    return compute, uplink, downlink, np.full(clients, spec.latency)


def _optional(field: str, draw: config.Draw | None, clients: int, seed: int) -> Doubles | None:
    return None if draw is None else figure(field, draw, clients, seed)


def _traced(spec: config.Devices, clients: int, seed: int) -> tuple[Doubles, ...]:
    """The rows of a file: each client's own, or a drawn one.

    Raises:
        ConfigError, DataError: see `make_fleet`.
    """
    trace = read_trace("devices.trace", str(spec.trace), SPEEDS, ("latency_seconds", "client"))
    rows = _rows(trace, clients, seed)
    speeds = [_speed(trace, column)[rows] for column in SPEEDS]
    if not trace.has("latency_seconds"):
        return *speeds, np.full(clients, spec.latency)
    latency = trace.numbers("latency_seconds")
    good = (latency >= 0) & (latency <= MOST_LATENCY)
    trace.require("latency_seconds", good, f"be in [0, {MOST_LATENCY:g}]")
    return *speeds, latency[rows]


def _speed(trace: Trace, column: str) -> Doubles:
    values = trace.numbers(column)
    good = (values >= SLOWEST) & (values <= FASTEST)
    trace.require(column, good, f"be in [{SLOWEST:g}, {FASTEST:g}]")
    return values


def _rows(trace: Trace, clients: int, seed: int) -> Integers:
    """The row of each client, shape (clients,)."""
    if not trace.has("client"):
        return seeding.generator(seed, "devices trace").integers(len(trace), size=clients)
    client = trace.integers("client", clients)
    named, rows = np.unique(client, return_index=True)
    once = np.zeros(len(trace), np.bool_)
    once[rows] = True
    trace.require("client", once, "stand in one row only")
    if len(named) < clients:
        missing = np.setdiff1d(np.arange(clients), named)
        raise DataError(
            f"{trace.where}: client must be each of 0 to {clients - 1}, got no row for client "
            f"{missing[0]} ({len(missing)} are missing)"
        )
    return rows
