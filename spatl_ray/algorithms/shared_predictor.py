"""One good model for everybody beside the personal ones: a second predictor, which is averaged.

Personal predictors gain on their clients' own data and lose on the global test set. The shared one is
trained with them, on the same features, and travels with the encoder; with it the encoder is the
federation's global model. It costs a few hundred parameters. The encoder learns from the personal ones
alone, or from the sum of both losses. SPATL's control variates cover it: under label skew an averaged head
drifts as any averaged layer.

Related: Chen, Chao, "On bridging generic and personalized federated learning for image classification",
ICLR 2022 (Fed-RoD), whose generic head is trained on the encoder, too, with a balanced loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from torch import Tensor

from spatl_ray.algorithms.base import (
    BUFFERS,
    LOCAL,
    LOCAL_BUFFERS,
    MODEL,
    Algorithm,
    ClientView,
    Setting,
)
from spatl_ray.models.heads import SHARED_PREDICTOR, check_heads, with_shared_predictor
from spatl_ray.models.split import SplitModel
from spatl_ray.parameters import Array, Arrays, ModelVector, Space
from spatl_ray.training.local import LocalTask
from spatl_ray.training.loss import Loss, load_loss
from spatl_ray.update import ClientState


class SharedPredictor(Algorithm):
    """Base of algorithms with a local predictor that may have a shared one beside it.

    `has_shared_predictor` is False for a run without; then this changes nothing.
    """

    has_shared_predictor = False
    both_train = False

    def extend(self, model: SplitModel) -> SplitModel:
        """The model, with a second predictor if that is asked for."""
        if not self.has_shared_predictor:
            return model
        return with_shared_predictor(model, self.both_train)

    def bind(self, setting: Setting) -> None:
        """Take the run's setting and loss."""
        super().bind(setting)
        if self.has_shared_predictor:
            check_heads(setting.model, setting.spec)
            self._loss = partial(both_losses, load_loss(setting.training.loss))

    def tasks(self, view: ClientView) -> Sequence[LocalTask]:
        """The tasks, with both predictors' losses."""
        tasks = super().tasks(view)
        if not self.has_shared_predictor:
            return tasks
        return tuple(replace(task, loss=self._loss) for task in tasks)

    def global_model(self, server: Arrays) -> ModelVector | None:
        """Encoder and shared predictor; None without, or if buffers of the encoder are local."""
        if not self.has_shared_predictor:
            return super().global_model(server)
        whole = self.newcomer_model(server, {})
        return whole if whole.buffers.size == self.layout.buffers.size else None

    def newcomer_model(self, received: Arrays, state: ClientState) -> ModelVector:
        """Encoder and shared predictor, which is the start of the newcomer's own one.

        Its own initial predictor knows nothing; the shared one fits the received encoder.
        """
        if not self.has_shared_predictor:
            return super().newcomer_model(received, state)
        layout = self.layout
        own = {**state, LOCAL: _of_shared(received[MODEL], layout.shared)}
        if BUFFERS in received:
            own[LOCAL_BUFFERS] = _of_shared(received[BUFFERS], layout.shared_buffers)
        return self.personal_model(received, own)


def both_losses(loss_of: Loss, output: Tensor, labels: Tensor) -> Tensor:
    """The own predictor's loss, with the gradients of the sum of both.

    Args:
        loss_of: the config's loss.
        output: logits of both, shape (batch, 2 classes).
        labels: shape (batch,).
    """
    own, shared = (loss_of(logits, labels) for logits in output.chunk(2, dim=1))
    return own + (shared - shared.detach())


def _of_shared(vector: Array, space: Space) -> Array:
    """The shared predictor's values of a server's vector, in the order of the own one's."""
    spans = space.ranges(frozenset({SHARED_PREDICTOR}))
    return np.concatenate([vector[:0], *(vector[span] for span in spans)])
