"""From reports and scores to rows of the results tables."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from spatl_ray.arrays import Bits
from spatl_ray.config import Engine, Experiment
from spatl_ray.data.federated import FederatedData
from spatl_ray.data.heterogeneity import held_counts
from spatl_ray.engine.environment import software
from spatl_ray.engine.messages import (
    ClientReport,
    Evaluation,
    Facts,
    RoundOutcome,
    SelectionReport,
)
from spatl_ray.engine.scores import Row as Row
from spatl_ray.engine.scores import (
    accuracy,
    evaluation_columns,
    finite,
    mean,
    panel_columns,
    score_columns,
)
from spatl_ray.federation.devices import Times

HOLDERS = 100
"""Clients whose samples of each class stand in table `runs`: as many as a picture can show."""


def run_row(experiment: Experiment, data: FederatedData, facts: list[Facts]) -> Row:
    """The row of table `runs`, without what the writer adds."""
    partition = experiment.partition.model_dump(exclude={"name"})
    partition.update(partition.pop("options", {}))
    arguments = ", ".join(f"{k}={_short(v)}" for k, v in partition.items())
    return {
        "name": experiment.name,
        "algorithm": experiment.algorithm.name,
        "dataset": data.dataset.name,
        "partition": experiment.partition.name + (f"({arguments})" if arguments else ""),
        "model": experiment.model.name,
        "seed": experiment.seed,
        "clients": experiment.clients,
        "sample_ratio": experiment.sample_ratio,
        "rounds": experiment.rounds,
        "shared_parameters": facts[0].shared,
        "local_parameters": facts[0].local,
        "config_hash": experiment.config_hash,
        "data_fingerprint": data.fingerprint,
        "holdings": json.dumps(held_counts(data, HOLDERS).tolist()),
        "config": experiment.model_dump_json(),
        "versions": json.dumps(software(experiment)),
        "hardware": json.dumps([dict(f.hardware) for f in facts]),
        "fingerprint": facts[0].fingerprint,
        "sweep_id": experiment.results.sweep_id,
        "trial_id": experiment.results.trial_id,
    }


def _short(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


@dataclass
class Ledger:
    """What adds up over rounds."""

    bytes_up: int = 0
    bytes_down: int = 0
    simulated: float | None = None


def round_row(
    round_: int,
    lr: float,
    outcome: RoundOutcome,
    evaluation: Evaluation | None,
    ledger: Ledger,
    seconds: float,
    simulated: float | None = None,
    probed: Mapping[int, int] | None = None,
    panel: int = 0,
) -> Row:
    """The row of table `rounds`; `ledger` is brought forward.

    Args:
        round_: the round.
        lr: its learning rate.
        outcome: its reports.
        evaluation: its scores, if it was evaluated.
        ledger: what adds up.
        seconds: that it took here.
        simulated: seconds that it took on the clients' devices.
        probed: bytes that candidates received who were not drawn.
        panel: how many clients the evaluation panel has.
    """
    reports = outcome.clients
    up, down = sum(r.bytes_up for r in reports), sum(r.bytes_down for r in reports)
    down += sum((probed or {}).values())
    if simulated is not None:
        ledger.simulated = (ledger.simulated or 0.0) + simulated
    ledger.bytes_up += up
    ledger.bytes_down += down
    counts = {
        s: sum(r.status == s for r in reports)
        for s in ("accepted", "clipped", "rejected", "failed", "late")
    }
    return {
        "round": round_,
        "participants": len(reports),
        **counts,
        "train_loss": mean(r.train_loss for r in reports),
        **evaluation_columns(reports, evaluation),
        **panel_columns(evaluation, panel),
        "bytes_up": up,
        "bytes_down": down,
        "bytes_up_cumulative": ledger.bytes_up,
        "bytes_down_cumulative": ledger.bytes_down,
        "density": mean(r.density for r in reports),
        **_selection_means(reports),
        "update_cosine_mean": outcome.drift.cosine,
        "control_norm": outcome.drift.control_norm,
        "lr": lr,
        "simulated_seconds": simulated,
        "simulated_seconds_cumulative": ledger.simulated,
        "seconds_train": outcome.seconds_train,
        "seconds_aggregate": outcome.seconds_aggregate,
        "seconds_evaluate": 0.0 if evaluation is None else evaluation.seconds,
        "seconds_total": seconds,
    }


def client_rows(
    round_: int,
    outcome: RoundOutcome,
    evaluation: Evaluation | None,
    flops: float,
    probed: Mapping[int, int] | None = None,
    hostile: Bits | None = None,
) -> list[Row]:
    """Rows of table `clients`: whoever took part, was evaluated or was asked for a loss.

    Args:
        round_: the round.
        outcome: its reports.
        evaluation: its scores, if it was evaluated.
        flops: of training on one sample.
        probed: bytes that candidates received who were not drawn.
        hostile: which clients are, shape (clients,); None without an attack.
    """
    probed = probed or {}
    reports = {r.client: r for r in outcome.clients}
    scores = {} if evaluation is None else {s.client: s for s in evaluation.clients}
    rows = []
    for client in sorted(reports.keys() | scores.keys() | probed.keys()):
        took_part, scored = reports.get(client), scores.get(client)
        rows.append(
            {
                "round": round_,
                "client": client,
                "hostile": None if hostile is None else bool(hostile[client]),
                **_report_columns(
                    took_part or ClientReport(client, "", bytes_down=probed.get(client, 0)),
                    took_part is not None,
                    flops,
                ),
                **score_columns(scored),
            }
        )
    return rows


def _report_columns(report: ClientReport, participated: bool, flops: float) -> Row:
    """What a client's training cost and gave; empty for one that did not take part."""
    trained = participated and report.steps > 0
    return {
        "participated": participated,
        "status": report.status if participated else None,
        "samples": report.samples if trained else None,
        "steps": report.steps if trained else None,
        "train_loss": finite(report.train_loss),
        "after_local_test_accuracy": accuracy(report.after_local),
        "after_global_test_accuracy": accuracy(report.after_global),
        "inference_local_test_accuracy": accuracy(report.inference_local),
        "bytes_up": report.bytes_up,
        "bytes_down": report.bytes_down,
        "density": report.density,
        **_selection_columns(report.selection),
        "update_norm": finite(report.update_norm),
        "control_norm": report.control_norm,
        "flops": flops * report.processed if report.processed else None,
        **_times_columns(report.times),
        "actor": report.actor if participated else None,
        "seconds": report.seconds if trained else None,
    }


def _selection_columns(selection: SelectionReport | None) -> Row:
    """What a client's selection came to; empty without one."""
    s = selection
    return {
        "inference_flops_share": None if s is None else s.flops_share,
        "selection_reward": None if s is None else s.reward,
        "selection_evaluations": None if s is None else s.evaluations,
        "seconds_selection": None if s is None else s.seconds,
    }


def _selection_means(reports: Sequence[ClientReport]) -> Row:
    """Means over the clients that selected, and the share of their training time that it took."""
    told = [r.selection for r in reports if r.selection is not None]
    seconds = sum(r.seconds for r in reports if r.selection is not None)
    return {
        "inference_flops_share_mean": mean(s.flops_share for s in told),
        "selection_reward_mean": mean(s.reward for s in told),
        "selection_evaluations": sum(s.evaluations for s in told) if told else None,
        "selection_share": sum(s.seconds for s in told) / seconds if seconds else None,
    }


def _times_columns(times: Times | None) -> Row:
    """Simulated seconds on the client's device."""
    return {
        "simulated_seconds_train": None if times is None else times.train,
        "simulated_seconds_uplink": None if times is None else times.uplink,
        "simulated_seconds_downlink": None if times is None else times.downlink,
        "simulated_seconds": None if times is None else times.total,
    }


def layer_rows(round_: int, outcome: RoundOutcome) -> list[Row]:
    """Rows of table `layers`."""
    return [
        {
            "round": round_,
            "client": report.client,
            "layer": layer.layer,
            "channels": layer.channels,
            "channels_kept": layer.channels_kept,
            "keep_ratio": layer.channels_kept / layer.channels,
            "inference_channels_kept": layer.inference_channels_kept,
            "inference_keep_ratio": (
                None
                if layer.inference_channels_kept is None
                else layer.inference_channels_kept / layer.channels
            ),
            "values": layer.values,
            "bytes": layer.bytes,
        }
        for report in outcome.clients
        for layer in report.layers
    ]


def event_rows(round_: int, outcome: RoundOutcome, now: object) -> list[Row]:
    """Rows of table `events`: clients that failed, were rejected or clipped.

    Late updates have their column: where more clients are asked than needed, they are the rule.
    """
    return [
        {
            "time": now,
            "round": round_,
            "client": report.client,
            "kind": f"client {report.status}"
            if report.status == "failed"
            else f"update {report.status}",
            "message": report.reason,
        }
        for report in outcome.clients
        if report.status not in ("accepted", "late")
    ]


def nothing_accepted(round_: int, now: object) -> Row:
    """The event of a round that moved nothing."""
    message = "no update of this round was accepted: the model stays as it was"
    return {"time": now, "round": round_, "client": None, "kind": "idle round", "message": message}


def resumed(first: int, faults: Sequence[str], now: object) -> list[Row]:
    """The events of a run that goes on with round `first`; `faults` are those of checkpoints."""
    return [of_run("resumed", f"from round {first} on", now), *_passed_over(faults, now)]


def recovered(round_: int, first: int, lost: str, faults: Sequence[str], now: object) -> list[Row]:
    """The events of a run that lost something in a round and goes on with round `first`."""
    message = f"in round {round_}, from round {first} on: {lost}"
    return [of_run("recovered", message, now), *_passed_over(faults, now)]


def shrunk(engine: Engine, facts: Sequence[Facts], now: object) -> list[Row]:
    """The events of a run that goes on with less than it began with; `facts` are of its workers."""
    events = []
    if len(facts) < (engine.workers or 0):
        message = f"{len(facts)} of {engine.workers}: the cluster does not hold more"
        events.append(of_run("fewer workers", message, now))
    nodes = {fact.hardware.get("node") for fact in facts}
    if engine.state_mirror and facts[0].has_states and len(nodes) < 2:
        message = "one node is left: its disk alone holds the clients' states"
        events.append(of_run("no mirror", message, now))
    return events


def _passed_over(faults: Sequence[str], now: object) -> list[Row]:
    return [of_run("damaged checkpoint", fault, now) for fault in faults]


def of_run(kind: str, message: str, now: object) -> Row:
    """An event of the run, not of a round."""
    return {"time": now, "round": None, "client": None, "kind": kind, "message": message}


def few_clients(round_: int, there: int, wanted: int, now: object) -> Row:
    """The event of a round with a smaller cohort than wanted."""
    message = f"{there} of {wanted} wanted clients were drawn: no more were available, or chosen"
    return {"time": now, "round": round_, "client": None, "kind": "few clients", "message": message}
