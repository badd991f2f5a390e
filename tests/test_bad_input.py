"""Experiments that cannot run are refused with the field, the value and the rule."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from spatl_ray.errors import ConfigError
from spatl_ray.experiments import experiment_from, load_experiment, presets

BOMB = "a0: &a0 {x: 1}\n" + "".join(
    f"a{i}: &a{i} {{x: [{', '.join(9 * [f'*a{i - 1}'])}]}}\n" for i in range(1, 30)
)
"""Aliases of aliases: 9^29 values on 30 lines."""

MERGED_BOMB = BOMB.replace("x: [", "<<: [")
"""The same, by the key that merges mappings."""


def refused(mapping: dict[str, Any]) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        experiment_from(mapping)
    return caught.value.faults


def test_unknown_key() -> None:
    assert refused({"training": {"learning_rat": 1}, "round": 5}) == (
        "training.learning_rat is no field of training",
        "round is no field of an experiment; did you mean rounds?",
    )


def test_wrong_type() -> None:
    assert refused({"clients": [10]}) == ("clients must be an integer, got [10]",)


@pytest.mark.parametrize("keep", [0, -0.1, 1.5])
def test_keep_outside_of_0_to_1(keep: float) -> None:
    fault = f"algorithm.keep must be in (0, 1], got {keep}"
    assert refused({"algorithm": {"name": "spatl", "keep": keep}}) == (fault,)


def test_sample_ratio_that_samples_nobody() -> None:
    fault = "sample_ratio must sample at least one of 10 clients, got 0.01"
    assert refused({"sample_ratio": 0.01}) == (fault,)


def test_error_feedback_with_senders() -> None:
    (fault,) = refused({"algorithm": {"name": "spatl", "error_feedback": True}})
    assert fault.startswith("algorithm: denominator must be cohort with error_feedback")


def test_error_feedback_with_derived_variates() -> None:
    algorithm = {"name": "spatl", "error_feedback": True, "denominator": "cohort"}
    (fault,) = refused({"algorithm": algorithm})
    assert fault.startswith("algorithm: control.variate must be sent with error_feedback")


CHOICES = "constant, between, lognormal, choice"
OPTIONS = "must hold texts, finite numbers, true, false, null, lists and mappings of them"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"compute": -1}, ("devices.compute must be in [0.001, 1e+18], got -1",)),
        ({"compute": 1e-320}, ("devices.compute must be in [0.001, 1e+18], got 1e-320",)),
        (
            {"compute": "lognormal"},
            ("devices.compute must be a number or a mapping, got 'lognormal'",),
        ),
        ({"name": "edge"}, ("devices.name is no field of devices",)),
        ({"budget_flops": 0}, ("devices.budget_flops must be in [0.001, 1e+18], got 0",)),
        (
            {"budget_bytes_up": {"name": "betwen"}},
            (
                f"devices.budget_bytes_up.name must be one of {CHOICES}, got 'betwen'; "
                "did you mean 'between'?",
            ),
        ),
        (
            {"uplink": {"name": "between", "low": 1, "hgh": 2}},
            (
                "devices.uplink.high must be given",
                "devices.uplink.hgh is no field of between; did you mean devices.uplink.high?",
            ),
        ),
        (
            {"trace": "a.csv", "compute": 1e9, "uplink": 1e6},
            (
                "devices: compute and uplink must not be given with trace, which holds the "
                "devices' figures",
            ),
        ),
    ],
)
def test_devices_that_cannot_be(fields: dict[str, Any], expected: tuple[str, ...]) -> None:
    assert refused({"devices": fields}) == expected


def test_a_number_beyond_all_floats() -> None:
    (fault,) = refused({"devices": {"compute": 10**400}})
    assert fault.startswith("devices.compute must be a number, got 1000")


@pytest.mark.parametrize("count", [2**31, 10**400])
def test_a_count_beyond_all_arrays(count: int) -> None:
    got = count if count < 10**20 else "over 1e20"
    rule = f"must be less than 2147483648, got {got}"
    assert refused({"clients": count, "training": {"steps": count}}) == (
        f"clients {rule}",
        f"training.steps {rule}",
    )


@pytest.mark.parametrize(
    ("mapping", "fault"),
    [
        (
            {"stragglers": {"oversample": 1e308}, "devices": {}},
            "stragglers.oversample must be in [1, 1000], got 1e+308",
        ),
        (
            {"availability": {"name": "periodic", "period": 2**63}},
            "availability.period must be in [2, 2147483648), got 9223372036854775808",
        ),
        (
            {"model": {"options": {"a": [float("nan")]}}},
            f"model.options {OPTIONS}, got [nan] for a",
        ),
        ({"data": {"options": {"a": {1}}}}, f"data.options {OPTIONS}, got {{1}} for a"),
        (
            {"devices": {"budget_flops": 0.5}, "algorithm": "fedavg"},
            "devices.budget_flops must be null without algorithm.selection and algorithm.inference "
            "or algorithm.agent of spatl, which say what is kept for inference, got constant with fedavg",
        ),
        (
            {"training": {"precision": "bf16", "dtype": "float64"}},
            "training: dtype must be float32 with precision bf16, got float64",
        ),
        (
            {
                "devices": {"budget_flops": 0.5},
                "algorithm": {"name": "spatl", "agent": {"measure": "parameters"}},
            },
            "algorithm.agent.measure must be flops with devices.budget_flops, got parameters",
        ),
    ],
)
def test_what_would_break_or_be_ignored_later(mapping: dict[str, Any], fault: str) -> None:
    assert refused(mapping) == (fault,)


ATTACKS = "sign_flip, scaled, gaussian, label_flip"


@pytest.mark.parametrize(
    ("attack", "fault"),
    [
        (
            "sign_flop",
            f"attack.name must be one of {ATTACKS}, got 'sign_flop'; did you mean 'sign_flip'?",
        ),
        ("own:Attack", f"attack.name must be one of {ATTACKS}, got 'own:Attack'"),
        ({"share": 0.2}, f"attack.name must be one of {ATTACKS}, got None"),
        ({"name": "scaled", "share": 0}, "attack.share must be in (0, 1], got 0"),
        ({"name": "scaled", "share": 1.01}, "attack.share must be in (0, 1], got 1.01"),
        (
            {"name": "label_flip", "share": 0.04},
            "attack.share must make at least one of 10 clients hostile, got 0.04",
        ),
        ({"name": "sign_flip", "scale": 0}, "attack.scale must be in (0, 1e+06], got 0"),
        ({"name": "scaled", "scale": -2.0}, "attack.scale must be in (0, 1e+06], got -2.0"),
        ({"name": "gaussian", "scale": 2e6}, "attack.scale must be in (0, 1e+06], got 2000000.0"),
        (
            {"name": "label_flip", "scale": 2.0},
            "attack.scale is no field of label_flip; it is a field of gaussian, scaled, sign_flip",
        ),
    ],
)
def test_attacks_that_cannot_be(attack: Any, fault: str) -> None:
    assert refused({"attack": attack}) == (fault,)


def test_files_that_are_the_data_decide_the_run() -> None:
    """A CIFAR-10 lies anywhere; a Parquet file is another data set."""
    for name, differ in (("parquet", True), ("images", True), ("cifar10", False)):
        ids = {experiment_from({"data": {"name": name, "root": root}}).run_id for root in "ab"}
        assert len(ids) == 1 + differ


def load_fault(path: Path | str, overrides: tuple[str, ...] = ()) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        load_experiment(path, overrides)
    return caught.value.faults


def test_no_such_preset_names_the_nearest() -> None:
    (fault,) = load_fault("fashion_lenett")
    assert "presets " + ", ".join(presets()) in fault
    assert fault.endswith("got 'fashion_lenett'; did you mean 'fashion_lenet'?")


def test_no_such_file() -> None:
    (fault,) = load_fault("nowhere/demo.yaml")
    assert "got 'nowhere/demo.yaml': no such file; did you mean 'demo'?" in fault


def test_a_folder_is_no_experiment(tmp_path: Path) -> None:
    (fault,) = load_fault(tmp_path)
    assert fault.endswith(": a folder")


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("rounds: [1\nclients: 2\n", "must be YAML: line 2, column 8: "),
        ("rounds: 1\n\tclients: 2\n", "must be YAML: line 2, column 1: "),
        ("x: &a [1, *a]\n", "must be YAML: a list or mapping must not hold itself"),
        ("when: 2024-13-45\n", "must be YAML: "),
        (BOMB, "must hold at most 100,000 values that come from aliases, got more"),
        (MERGED_BOMB, "must hold at most 100,000 values that come from aliases, got more"),
        ("- rounds\n", "must hold a mapping of fields at its top level, got a list"),
        ("demo\n", "must hold a mapping of fields at its top level, got a str"),
        ("# nothing\n", "must hold a mapping of fields at its top level, got nothing"),
        ("x: !!python/object/apply:os.getcwd []\n", "must be YAML: line 1, column 4: "),
    ],
)
def test_no_yaml_mapping(tmp_path: Path, text: str, rule: str) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(text, encoding="utf-8")
    (fault,) = load_fault(path)
    assert fault.startswith(f"{path} {rule}")


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_bytes(b"\xff\xfe\x00rounds")
    (fault,) = load_fault(path)
    assert fault.startswith(f"{path} must be a text file that can be read")


def test_a_key_given_twice(tmp_path: Path) -> None:
    path = tmp_path / "twice.yaml"
    path.write_text("rounds: 1\ntraining:\n  lr: 1\n  lr: 2\nrounds: 3\n", encoding="utf-8")
    assert load_fault(path) == (
        f"{path}, line 4: training.lr is given twice; a key must stand once",
        f"{path}, line 5: rounds is given twice; a key must stand once",
    )


def test_malformed_overrides_are_shown_together() -> None:
    faults = load_fault("demo", ("rounds", "=1", "a..b=2", "rounds=[", "clients=3"))
    form = "an override must have the form key=value or a.b=value, got "
    assert faults[:3] == (f"{form}'rounds'", f"{form}'=1'", f"{form}'a..b=2'")
    assert faults[3].startswith("the value of override 'rounds=[' must be YAML: line 1")
    assert len(faults) == 4
