"""Devices: seconds in closed form, what each draw gives, budgets, and traces."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spatl_ray.config import Between, Choice, Devices, Lognormal
from spatl_ray.errors import ConfigError, DataError
from spatl_ray.federation.devices import Device, Fleet, Times, fastest_round, make_fleet

SPEEDS = "flops_per_second,uplink_bytes_per_second,downlink_bytes_per_second"
FIELDS = ("flops_per_second", "uplink", "downlink", "latency")

speeds = st.floats(1e-3, 1e15)
sizes = st.integers(0, 10**12)


def plain(**fields: object) -> Devices:
    """Devices of constants, other than what is given."""
    return Devices.model_validate({"compute": 1e9, "uplink": 1e6, "downlink": 4e6, **fields})


def test_seconds_are_work_over_speed_and_latency_a_message() -> None:
    device = Device(2e9, 1e6, 4e6, 0.25)
    assert device.seconds(5e9, 3_000_000, 2_000_000) == Times(2.5, 3.25, 0.75)
    assert device.seconds(5e9, 3_000_000, 2_000_000).total == 6.5


def test_no_message_takes_no_latency() -> None:
    assert Device(2e9, 1e6, 4e6, 0.25).seconds(0.0, 0, 4) == Times(0.0, 0.0, 0.250001)
    assert Device(2e9, 1e6, 4e6, 0.25).seconds(1e9, 1, 0) == Times(0.5, 0.250001, 0.0)


@given(
    speed=st.lists(st.tuples(speeds, speeds, speeds, st.floats(0, 100)), min_size=1, max_size=5),
    flops=st.floats(0, 1e18),
    up=sizes,
    down=sizes,
)
def test_no_round_beats_the_fastest(
    speed: list[tuple[float, ...]], flops: float, up: int, down: int
) -> None:
    """And one of these bytes equals it, up to rounding."""
    fleet = Fleet(*np.array(speed).T)
    least = fastest_round(fleet, np.full(len(speed), flops), up, down)
    without = fastest_round(fleet, np.full(len(speed), flops), 0, down)
    for client, bound in enumerate(least):
        device = fleet.device(client)
        assert device.seconds(flops, up, down).total == pytest.approx(bound, rel=1e-12)
        assert device.seconds(flops, 0, down).total == without[client] <= bound


def test_a_device_travels() -> None:
    device = make_fleet(plain(budget_flops=0.5), 3, 0).device(1)
    assert device == Device(1e9, 1e6, 4e6, 0.0, 0.5, None)
    assert all(type(getattr(device, field)) is float for field in (*FIELDS, "budget_flops"))
    assert pickle.loads(pickle.dumps(device)) == device


@pytest.mark.parametrize("client", [-1, 3])
def test_a_client_without_a_device_is_an_error(client: int) -> None:
    with pytest.raises(DataError, match=rf"client must be in \[0, 3\), got {client}"):
        make_fleet(plain(), 3, 0).device(client)


def test_constants() -> None:
    fleet = make_fleet(plain(latency=0.5, budget_bytes_up=1000), 4, 0)
    assert [getattr(fleet, field).tolist() for field in FIELDS] == [
        [1e9] * 4,
        [1e6] * 4,
        [4e6] * 4,
        [0.5] * 4,
    ]
    assert fleet.budget_flops is None
    assert fleet.budget_bytes_up is not None
    assert fleet.budget_bytes_up.tolist() == [1000] * 4


def test_between_is_uniform() -> None:
    values = make_fleet(plain(compute=Between(low=2.0, high=6.0)), 20_000, 0).flops_per_second
    assert values.min() >= 2
    assert values.max() <= 6
    # The standard deviation is 4 / sqrt(12), of the mean 0.0082.
    assert values.mean() == pytest.approx(4, abs=0.05)
    assert values.std() == pytest.approx(4 / 12**0.5, abs=0.03)


def test_lognormal_is_normal_in_its_logarithm() -> None:
    values = make_fleet(plain(uplink=Lognormal(median=1e6, sigma=0.7)), 20_000, 0).uplink
    logs = np.log(values / 1e6) / 0.7
    # Standard deviations: 0.007 of the mean, 0.005 of the deviation.
    assert logs.mean() == pytest.approx(0, abs=0.045)
    assert logs.std() == pytest.approx(1, abs=0.03)


def test_lognormal_without_spread_is_its_median() -> None:
    fleet = make_fleet(plain(downlink=Lognormal(median=3e5, sigma=0.0)), 5, 0)
    assert fleet.downlink.tolist() == [3e5] * 5


@pytest.mark.parametrize(
    ("shares", "expected"),
    [
        (None, (1 / 3, 1 / 3, 1 / 3)),
        ((1, 2, 5), (1 / 8, 1 / 4, 5 / 8)),
        ((1e308,) * 3, (1 / 3,) * 3),
    ],
)
def test_choice_deals_classes_by_their_shares(
    shares: tuple[float, ...] | None, expected: tuple[float, ...]
) -> None:
    spec = plain(compute=Choice(values=(1e8, 1e9, 1e10), shares=shares))
    values = make_fleet(spec, 20_000, 0).flops_per_second
    found = [(values == each).mean() for each in (1e8, 1e9, 1e10)]
    assert sum(found) == pytest.approx(1)
    assert found == pytest.approx(expected, abs=0.02)


def test_each_figure_has_a_stream_of_its_own() -> None:
    """Changing how one is drawn moves no other; equal draws are not equal figures."""
    drawn = make_fleet(Devices(budget_flops=Between(low=0.1, high=1.0)), 50, 3)
    other = make_fleet(
        Devices(compute=Choice(values=(1.0, 2.0)), budget_flops=Between(low=0.1, high=1.0)), 50, 3
    )
    assert not np.array_equal(drawn.flops_per_second, other.flops_per_second)
    for field in ("uplink", "downlink", "budget_flops"):
        assert np.array_equal(getattr(drawn, field), getattr(other, field))
    figures = [drawn.flops_per_second, drawn.uplink, drawn.downlink]
    assert np.abs(np.corrcoef(np.log(figures)) - np.eye(3)).max() < 0.5


def test_the_seed_decides() -> None:
    first, again, other = (make_fleet(Devices(), 50, seed).uplink for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize(
    "field", ["compute", "uplink", "downlink", "budget_flops", "budget_bytes_up"]
)
@pytest.mark.parametrize("sigma", [1e6, 300.0])
def test_figures_that_make_no_times_are_refused(field: str, sigma: float) -> None:
    """Of 1e6, 0 and infinity are drawn; of 300, speeds that make the time of 1e12 FLOPs infinite."""
    spec = plain(**{field: Lognormal(median=1.0, sigma=sigma)})
    rule = rf"devices\.{field} must be in \[1e-100, 1e\+100\] for every client, drew \S+ for client"
    with pytest.raises(ConfigError, match=rule):
        make_fleet(spec, 20, 0)


def test_a_drawn_budget_above_all_flops_is_all_of_them() -> None:
    free = make_fleet(plain(budget_bytes_up=Lognormal(median=0.8, sigma=0.5)), 200, 0)
    share = make_fleet(plain(budget_flops=Lognormal(median=0.8, sigma=0.5)), 200, 0).budget_flops
    assert free.budget_bytes_up is not None
    assert free.budget_bytes_up.max() > 1
    assert share is not None
    assert share.max() == 1
    assert (share > 0).all()
    assert 0 < (share < 1).sum() < 200


@pytest.mark.parametrize(
    ("draw", "least"),
    [
        (50, 50),
        (Between(low=1.5, high=3.0), 1.5),
        (Choice(values=(75, 25)), 25),
        (Lognormal(median=60, sigma=0.0), 60),
    ],
)
def test_percentages_are_no_shares(draw: object, least: float) -> None:
    rule = rf"devices\.budget_flops must be a share in \(0, 1\], got at least {least:g} "
    with pytest.raises(ConfigError, match=rule):
        make_fleet(plain(budget_flops=draw), 5, 0)


def from_text(path: Path, content: str, clients: int = 3, **fields: object) -> Fleet:
    file = path / "devices.csv"
    file.write_text(content)
    return make_fleet(Devices.model_validate({"trace": str(file), **fields}), clients, 0)


def test_a_trace_with_clients_gives_each_its_own(tmp_path: Path) -> None:
    content = f"client,{SPEEDS},latency_seconds\n2,3e9,30,300,0\n0,1e9,10,100,0.5\n1,2e9,20,200,1\n"
    fleet = from_text(tmp_path, content, latency=9.0, budget_flops=0.25)
    assert fleet.device(0) == Device(1e9, 10, 100, 0.5, 0.25)
    assert fleet.device(1) == Device(2e9, 20, 200, 1.0, 0.25)
    assert fleet.device(2) == Device(3e9, 30, 300, 0.0, 0.25)


def test_a_trace_without_clients_deals_whole_rows(tmp_path: Path) -> None:
    rows = [(1e9, 10.0, 100.0), (2e9, 20.0, 200.0), (3e9, 30.0, 300.0)]
    columns = dict(zip(SPEEDS.split(","), map(list, zip(*rows, strict=True)), strict=True))
    file = tmp_path / "devices.parquet"
    pq.write_table(pa.table(columns), file)
    spec = Devices(trace=str(file), latency=0.125)
    fleet, again = (make_fleet(spec, 3000, 7) for _ in range(2))
    dealt = list(zip(fleet.flops_per_second, fleet.uplink, fleet.downlink, strict=True))
    assert set(dealt) == set(rows)
    assert all(900 < dealt.count(row) < 1100 for row in rows)
    assert fleet.latency.tolist() == [0.125] * 3000
    assert np.array_equal(fleet.uplink, again.uplink)
    assert not np.array_equal(fleet.uplink, make_fleet(spec, 3000, 8).uplink)


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (
            f"{SPEEDS}\n1,1,1\n1,0,1\n",
            r"row 2: uplink_bytes_per_second must be in \[0.001, 1e\+18\], got 0",
        ),
        (f"{SPEEDS}\n1e-320,1,1\n", r"row 1: flops_per_second must be in .*, got 1e-320"),
        (f"{SPEEDS}\n-5,1,1\n", r"row 1: flops_per_second must be in \[0.001, 1e\+18\], got -5"),
        (f"{SPEEDS}\n1,1,\n", "row 1: downlink_bytes_per_second must be a number, got nothing"),
        (f"{SPEEDS}\n1,1e999,1\n", "row 1: uplink_bytes_per_second must be a finite number"),
        (
            f"{SPEEDS},latency_seconds\n1,1,1,-1\n",
            r"row 1: latency_seconds must be in \[0, 1e\+09\], got -1",
        ),
        ("flops_per_second\n1\n", "must have a column uplink_bytes_per_second, got the columns"),
        (
            f"client,{SPEEDS},latency\n0,1,1,1,0.5\n",
            "columns must be among .*, latency_seconds, client, got 'latency'",
        ),
        (f"Client,{SPEEDS}\n0,1,1,1\n", "columns must be among .*, client, got 'Client'"),
        (f"{SPEEDS}\n1,1\n", "must be a readable file"),
        (f"client,{SPEEDS}\n3,1,1,1\n", r"row 1: client must be in \[0, 3\), got 3"),
        (f"client,{SPEEDS}\n0,1,1,1\n1.5,1,1,1\n", "row 2: client must be a whole number, got 1.5"),
        (
            f"client,{SPEEDS}\n1,1,1,1\n0,1,1,1\n1,2,2,2\n",
            "row 3: client must stand in one row only, got 1",
        ),
        (
            f"client,{SPEEDS}\n1,1,1,1\n",
            r"client must be each of 0 to 2, got no row for client 0 \(2 are missing\)",
        ),
    ],
)
def test_a_broken_trace_is_refused(tmp_path: Path, content: str, rule: str) -> None:
    with pytest.raises(DataError, match=rf"devices\.trace \S*devices\.csv: {rule}"):
        from_text(tmp_path, content)


def test_a_trace_of_another_kind_is_refused() -> None:
    rule = r"devices\.trace must name a file that ends in \.csv or \.parquet, got 'fleet\.json'"
    with pytest.raises(ConfigError, match=rule):
        make_fleet(Devices(trace="fleet.json"), 3, 0)
