"""From scores to columns of the results tables."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from spatl_ray.engine.messages import ClientReport, ClientScore, Evaluation
from spatl_ray.training.evaluate import Score

Row = dict[str, object]


def evaluation_columns(reports: Iterable[ClientReport], evaluation: Evaluation | None) -> Row:
    """The accuracy columns; those of clients that never trained are apart."""
    scores = () if evaluation is None else evaluation.clients
    trained = [s for s in scores if s.evaluated_as == "trained"]
    others = [s for s in scores if s.evaluated_as != "trained"]
    own = _own(trained)
    one = None if evaluation is None else evaluation.global_test
    return {
        "global_test_accuracy": (
            one.accuracy if one else mean(accuracy(s.global_test) for s in trained)
        ),
        "global_test_loss": one.loss if one else mean(loss(s.global_test) for s in trained),
        "local_test_clients": None if evaluation is None else len(own),
        "local_test_accuracy_mean": mean(own),
        "local_test_accuracy_p10": float(np.percentile(own, 10)) if own else None,
        "local_test_loss_mean": mean(loss(s.local_test) for s in trained),
        "local_validation_accuracy_mean": mean(accuracy(s.local_validation) for s in trained),
        "after_local_test_accuracy_mean": mean(accuracy(r.after_local) for r in reports),
        "after_global_test_accuracy_mean": mean(accuracy(r.after_global) for r in reports),
        "inference_local_test_accuracy_mean": mean(accuracy(r.inference_local) for r in reports),
        "untrained_clients": None if evaluation is None else len(others),
        "untrained_local_test_accuracy_mean": mean(accuracy(s.local_test) for s in others),
        "untrained_global_test_accuracy_mean": mean(accuracy(s.global_test) for s in others),
        **_finetune_sums(scores),
    }


def _finetune_sums(scores: Iterable[ClientScore]) -> Row:
    """What fine-tuning before evaluation cost, over the panel; empty without it."""
    told = [score.tuning for score in scores if score.tuning is not None]
    return {
        "finetune_flops": math.fsum(t.flops for t in told) if told else None,
        "seconds_finetune": math.fsum(t.seconds for t in told) if told else None,
    }


def panel_columns(evaluation: Evaluation | None, panel: int) -> Row:
    """The own-split mean over the whole panel, the same clients in every round and algorithm.

    Null as long as a member is left out, because it never trained and those are skipped.
    """
    scores = () if evaluation is None else evaluation.clients
    is_whole = evaluation is not None and len(scores) == panel
    own = _own(scores) if is_whole else []
    return {
        "panel_clients": len(own) if is_whole else None,
        "panel_local_test_accuracy_mean": mean(own),
    }


def _own(scores: Iterable[ClientScore]) -> list[float]:
    """The accuracies on own test splits, of those that have one."""
    return [s.local_test.accuracy for s in scores if s.local_test is not None]


def score_columns(score: ClientScore | None) -> Row:
    """How a client's model does; empty for one that was not evaluated."""
    local = None if score is None else score.local_test
    validation = None if score is None else score.local_validation
    global_test = None if score is None else score.global_test
    tuning = None if score is None else score.tuning
    return {
        "local_test_accuracy": accuracy(local),
        "local_test_loss": loss(local),
        "local_validation_accuracy": accuracy(validation),
        "global_test_accuracy": accuracy(global_test),
        "global_test_loss": loss(global_test),
        "evaluated_as": None if score is None else score.evaluated_as,
        "finetune_flops": None if tuning is None else tuning.flops,
        "seconds_finetune": None if tuning is None else tuning.seconds,
    }


def accuracy(score: Score | None) -> float | None:
    """Its accuracy, if there is a score."""
    return None if score is None else score.accuracy


def loss(score: Score | None) -> float | None:
    """Its loss, if there is a score and the loss is a number."""
    return None if score is None else finite(score.loss)


def finite(value: float | None) -> float | None:
    """The value if it is a number, else None."""
    return value if value is not None and math.isfinite(value) else None


def mean(values: Iterable[float | None]) -> float | None:
    """The mean of what is known and finite, correctly rounded; None if there is nothing."""
    known = [v for v in values if v is not None and math.isfinite(v)]
    return math.fsum(known) / len(known) if known else None
