"""A client's trained round: what it would send, what it took, and what is told of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from spatl_ray.aggregation.verdict import Verdict
from spatl_ray.algorithms.base import CONTROL, DELTA, Algorithm, ClientView, Proposal
from spatl_ray.arrays import l2_norm
from spatl_ray.engine.messages import ClientReport, GroupTask, Member
from spatl_ray.engine.report import layer_reports, selection_report, sent_share
from spatl_ray.federation.devices import Times
from spatl_ray.training.local import LocalResult
from spatl_ray.update import Update


class DivergedError(Exception):
    """A client's training ended in NaN or infinity: it has nothing to send."""

    def __init__(self, text: str, results: Sequence[LocalResult], samples: int) -> None:
        super().__init__(text)
        self.results = results
        self.samples = samples


@dataclass(frozen=True, eq=False)
class Outcome:
    """A client's trained round, before its verdict."""

    member: Member
    view: ClientView
    results: tuple[LocalResult, ...]
    proposal: Proposal
    sent: Update
    payload: bytes
    times: Times | None
    seconds: float


def simulated_times(
    task: GroupTask, member: Member, processed: int, bytes_up: int, bytes_down: int
) -> Times | None:
    """Simulated seconds of a client's round; the download is free for who has the broadcast already."""
    if member.device is None:
        return None
    down = 0 if member.informed else bytes_down
    return member.device.seconds(task.flops * processed, bytes_up, down)


def check_finite(results: Sequence[LocalResult], samples: int) -> None:
    """Stop a client whose training diverged, before it keeps or sends anything of it."""
    for result in results:
        end = result.end
        if not (np.isfinite(end.parameters).all() and np.isfinite(end.buffers).all()):
            text = f"local training diverged: the model holds NaN or infinity, loss {result.loss:g}"
            raise DivergedError(text, results, samples)


def verdict_if_late(outcome: Outcome, elapsed: float, deadline: float | None) -> Verdict | None:
    """The verdict on an update that arrives after the deadline; None for one in time."""
    times = outcome.times
    if deadline is None or times is None or elapsed + times.total <= deadline:
        return None
    arrives = elapsed + times.total
    return Verdict("late", reason=f"after {arrives:g} s, the deadline is {deadline:g} s")


def report_of(
    outcome: Outcome, status: str, reason: str, bytes_down: int, algorithm: Algorithm
) -> ClientReport:
    """The report of a client that trained; who ran it is not in it yet."""
    results, sent, state = outcome.results, outcome.sent.parts, outcome.view.state
    return ClientReport(
        client=outcome.member.client,
        status=status,
        reason=reason,
        samples=outcome.view.samples,
        steps=sum(r.steps for r in results),
        train_loss=results[0].loss,
        bytes_up=len(outcome.payload),
        bytes_down=bytes_down,
        density=sent_share(sent, algorithm.spaces(), algorithm.layout),
        processed=sum(r.samples for r in results),
        times=outcome.times,
        seconds=outcome.seconds,
        selection=selection_report(outcome.proposal),
        update_norm=l2_norm(sent[DELTA].values) if DELTA in sent else None,
        control_norm=l2_norm(state[CONTROL]) if CONTROL in state else None,
        layers=layer_reports(outcome.proposal, algorithm.layout),
    )


def report_of_failed(
    error: Exception, task: GroupTask, member: Member, bytes_down: int
) -> ClientReport:
    """The report of a client that did not train to the end, or has nothing to send."""
    if not isinstance(error, DivergedError):
        why = f"{type(error).__name__}: {error}"
        return ClientReport(member.client, status="failed", reason=why, bytes_down=bytes_down)
    processed = sum(r.samples for r in error.results)
    return ClientReport(
        member.client,
        status="rejected",
        reason=str(error),
        samples=error.samples,
        steps=sum(r.steps for r in error.results),
        bytes_down=bytes_down,
        has_update=False,
        processed=processed,
        times=simulated_times(task, member, processed, 0, bytes_down),
    )
