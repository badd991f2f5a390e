"""The tables of a results folder: columns, units, keys, and which columns are measured.

Accuracies are fractions in [0, 1]; what is not known is null. "local_" is the client's own split,
"global_" the global test set. In table rounds, "local_test_" is the mean over those panel clients
(`local_test_clients`) that have trained, "panel_local_test_" over the whole fixed panel
(`panel_clients`), with those that never have. "after_" is right after local training; without it,
the model that the client received: the new shared part, joined with the client's own part.

"hostile" tells the clients of an attack apart from the others; it is null without one.

"inference_flops_share" is of the dense network's FLOPs, for one sample's inference; "selection_reward"
the accuracy, on the client's validation sample, of what its selection agent keeps; "seconds_selection"
are part of "seconds", and "selection_share" is how large a part over all clients of the round.

"update_norm" is the L2 norm of the parameters' movement that a client sent. "update_cosine_mean" is the
mean cosine of these movements d_i with their weighted sum, weighted by their lengths, which is
|sum_i w_i d_i| / sum_i w_i |d_i|: 1 if all clients pull the same way. "control_norm" is that of c_i before
the client's round in table clients, and of the server's c after the round in table rounds. "holdings" in
table runs are the samples of each class that the first 100 clients hold, a list a client.

"finetune_flops" and "seconds_finetune" are what fine-tuning copies of the models for an evaluation cost
(`evaluation.finetune`). They are in neither "flops" nor "seconds" of table clients; in table rounds the
seconds of all clients add up, and are part of "seconds_evaluate" with one worker.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import pyarrow as pa

from spatl_ray.errors import ResultsError

SCHEMA_VERSION = 1
"""Goes up when a column changes its name, type, unit or meaning."""

VERSION_KEY = b"spatl_schema_version"

_TIME = pa.timestamp("us", tz="UTC")


def _field(
    name: str, kind: pa.DataType, unit: str, required: bool = False, measured: bool = False
) -> pa.Field:
    """A column; `measured` ones depend on machine or clock and are exempt from bit comparison."""
    metadata = {"unit": unit, "measured": "true" if measured else "false"}
    return pa.field(name, kind, nullable=not required, metadata=metadata)


def _text(name: str, *, required: bool = True, measured: bool = False) -> pa.Field:
    return _field(name, pa.string(), "text", required, measured)


def _json(name: str) -> pa.Field:
    return _field(name, pa.string(), "JSON", required=True, measured=True)


def _time(name: str, *, required: bool = True) -> pa.Field:
    return _field(name, _TIME, "UTC", required, measured=True)


def _round(*, required: bool = True) -> pa.Field:
    return _field("round", pa.int32(), "1", required)


def _count(name: str, kind: pa.DataType, *, required: bool = True) -> pa.Field:
    return _field(name, kind, "1", required)


def _counts(*names: str) -> list[pa.Field]:
    return [_count(name, pa.int32()) for name in names]


def _bytes(*names: str) -> list[pa.Field]:
    return [_field(name, pa.int64(), "bytes", required=True) for name in names]


def _fractions(*names: str) -> list[pa.Field]:
    return [_field(name, pa.float64(), "fraction") for name in names]


def _number(name: str, unit: str = "1") -> pa.Field:
    return _field(name, pa.float64(), unit)


def _seconds(*names: str) -> list[pa.Field]:
    return [_field(name, pa.float64(), "seconds", measured=True) for name in names]


def _simulated(*names: str) -> list[pa.Field]:
    """Seconds on the clients' devices: computed from the config, so the same on any machine."""
    return [_field(name, pa.float64(), "seconds") for name in names]


_RUNS = [
    *(_text(name) for name in ("run_id", "name", "algorithm", "dataset", "partition", "model")),
    _count("seed", pa.int64()),
    _count("clients", pa.int64()),
    _field("sample_ratio", pa.float64(), "fraction", required=True),
    _count("rounds", pa.int64()),
    _count("shared_parameters", pa.int64()),
    _count("local_parameters", pa.int64()),
    _text("config_hash"),
    _text("data_fingerprint"),
    _field("holdings", pa.string(), "JSON"),
    *(_json(name) for name in ("config", "versions", "hardware")),
    _text("fingerprint", measured=True),
    *(_text(name, required=False, measured=True) for name in ("sweep_id", "trial_id")),
    _time("start"),
    _time("end", required=False),
    _text("status"),
    _text("error", required=False),
]

_ROUNDS = [
    _text("run_id"),
    _round(),
    *_counts("participants", "accepted", "clipped", "rejected", "failed", "late"),
    _number("train_loss"),
    *_fractions("global_test_accuracy"),
    _number("global_test_loss"),
    _count("local_test_clients", pa.int32(), required=False),
    *_fractions("local_test_accuracy_mean", "local_test_accuracy_p10"),
    _number("local_test_loss_mean"),
    *_fractions(
        "local_validation_accuracy_mean",
        "after_local_test_accuracy_mean",
        "after_global_test_accuracy_mean",
        "inference_local_test_accuracy_mean",
    ),
    _count("untrained_clients", pa.int32(), required=False),
    *_fractions("untrained_local_test_accuracy_mean", "untrained_global_test_accuracy_mean"),
    _number("finetune_flops", "flop"),
    *_seconds("seconds_finetune"),
    _count("panel_clients", pa.int32(), required=False),
    *_fractions("panel_local_test_accuracy_mean"),
    *_bytes("bytes_up", "bytes_down", "bytes_up_cumulative", "bytes_down_cumulative"),
    *_fractions("density", "inference_flops_share_mean", "selection_reward_mean"),
    _count("selection_evaluations", pa.int64(), required=False),
    _field("selection_share", pa.float64(), "fraction", measured=True),
    *_fractions("update_cosine_mean"),
    _number("control_norm"),
    _number("lr"),
    *_simulated("simulated_seconds", "simulated_seconds_cumulative"),
    *_seconds("seconds_train", "seconds_aggregate", "seconds_evaluate", "seconds_total"),
]

_CLIENTS = [
    _text("run_id"),
    _round(),
    _count("client", pa.int64()),
    _field("hostile", pa.bool_(), "1"),
    _field("participated", pa.bool_(), "1", required=True),
    _text("status", required=False),
    _count("samples", pa.int64(), required=False),
    _count("steps", pa.int64(), required=False),
    _number("train_loss"),
    *_fractions("local_test_accuracy"),
    _number("local_test_loss"),
    *_fractions("local_validation_accuracy", "global_test_accuracy"),
    _number("global_test_loss"),
    *_fractions(
        "after_local_test_accuracy", "after_global_test_accuracy", "inference_local_test_accuracy"
    ),
    _text("evaluated_as", required=False),
    _number("finetune_flops", "flop"),
    *_seconds("seconds_finetune"),
    *_bytes("bytes_up", "bytes_down"),
    *_fractions("density", "inference_flops_share", "selection_reward"),
    _count("selection_evaluations", pa.int64(), required=False),
    *_seconds("seconds_selection"),
    _number("update_norm"),
    _number("control_norm"),
    _number("flops", "flop"),
    *_simulated(
        "simulated_seconds_train",
        "simulated_seconds_uplink",
        "simulated_seconds_downlink",
        "simulated_seconds",
    ),
    _text("actor", required=False, measured=True),
    *_seconds("seconds"),
]

_LAYERS = [
    _text("run_id"),
    _round(),
    _count("client", pa.int64()),
    _text("layer"),
    _count("channels", pa.int64()),
    _count("channels_kept", pa.int64(), required=False),
    *_fractions("keep_ratio"),
    _count("inference_channels_kept", pa.int64(), required=False),
    *_fractions("inference_keep_ratio"),
    _count("values", pa.int64()),
    *_bytes("bytes"),
]

_EVENTS = [
    _text("run_id"),
    _time("time"),
    _round(required=False),
    _count("client", pa.int64(), required=False),
    _text("kind"),
    _text("message"),
]

_METADATA = {VERSION_KEY: str(SCHEMA_VERSION).encode()}

TABLES: Mapping[str, pa.Schema] = {
    "runs": pa.schema(_RUNS, _METADATA),
    "rounds": pa.schema(_ROUNDS, _METADATA),
    "clients": pa.schema(_CLIENTS, _METADATA),
    "layers": pa.schema(_LAYERS, _METADATA),
    "events": pa.schema(_EVENTS, _METADATA),
}

KEYS: Mapping[str, tuple[str, ...]] = {
    "rounds": ("round",),
    "clients": ("round", "client"),
    "layers": ("round", "client", "layer"),
}
"""The columns that, within a run, name one row; events have none."""

CHOICES: Mapping[tuple[str, str], frozenset[str]] = {
    ("runs", "status"): frozenset({"running", "finished", "interrupted", "failed"}),
    ("clients", "status"): frozenset({"accepted", "clipped", "rejected", "failed", "late"}),
    ("clients", "evaluated_as"): frozenset(
        {"trained", "initial", "transfer", "finetune", "scratch"}
    ),
}
"""The texts that a column may hold."""


def schema(table: str) -> pa.Schema:
    """The columns of a table.

    Raises:
        ResultsError: there is no such table.
    """
    if table not in TABLES:
        raise ResultsError(f"table must be one of {', '.join(TABLES)}, got {table!r}")
    return TABLES[table]


@cache
def file_schema(table: str) -> pa.Schema:
    """The columns inside a table's files: all but run_id, which stands in the path."""
    whole = schema(table)
    return whole.remove(whole.get_field_index("run_id"))


def unmeasured(table: str) -> list[str]:
    """The columns that two runs of one experiment must share bit for bit.

    Raises:
        ResultsError: there is no such table.
    """
    return [field.name for field in schema(table) if field.metadata[b"measured"] == b"false"]
