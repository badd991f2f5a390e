"""Own algorithms that the contracts must carry without a change in the engine.

Each is a published method, or a mechanism that a later feature needs, in a few lines on the hooks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from spatl_ray import config
from spatl_ray.aggregation.masked import Accumulator, Weight
from spatl_ray.algorithms.base import (
    DELTA,
    LOCAL,
    MODEL,
    Algorithm,
    ClientView,
    Proposal,
    Totals,
)
from spatl_ray.algorithms.spatl import Spatl
from spatl_ray.models.split import ENCODER, PREDICTOR, SplitModel
from spatl_ray.parameters import Array, Arrays, ModelVector
from spatl_ray.selection.selector import Candidate, Selection
from spatl_ray.training.local import LocalResult, LocalTask, Phase
from spatl_ray.update import WHOLE, ClientState, Part, Parts, Update, element_mask, keep

Options = Mapping[str, Any]


class Shared(Algorithm):
    """Everything is shared."""

    def __init__(self, options: Options) -> None:
        self.options = options

    def is_shared(self, part: str) -> bool:
        return True


class FedDyn(Shared):
    """Acar et al., ICLR 2021: a dual variable a client, and their mean on the server."""

    def start_server(self, model: ModelVector) -> Arrays:
        return {**super().start_server(model), "h": np.zeros(self.layout.shared.size)}

    def start_client(self, model: ModelVector) -> Arrays:
        return {**super().start_client(model), "dual": np.zeros(self.layout.shared.size)}

    def tasks(self, view: ClientView) -> Sequence[LocalTask]:
        (task,) = super().tasks(view)
        x, alpha = view.received[MODEL], self.options["alpha"]
        return (replace(task, offset=-view.state["dual"], mu=alpha, anchor=x),)

    def commit(self, view: ClientView, proposal: Proposal, update: Update) -> ClientState:
        moved = update.parts[DELTA].values.astype(np.float64)
        return {**proposal.private, "dual": view.state["dual"] - self.options["alpha"] * moved}

    def accumulators(self) -> tuple[Accumulator, ...]:
        drift = Accumulator("drift", self.layout.shared, Weight.POPULATION, None)
        return (*super().accumulators(), drift)

    def terms(self, update: Update, received: Arrays, lr: float) -> Parts:
        return {**super().terms(update, received, lr), "drift": update.parts[DELTA]}

    def step(self, server: Arrays, totals: Totals, accepted: frozenset[int]) -> Arrays:
        new = dict(super().step(server, totals, accepted))
        h = totals["drift"].apply(server["h"], -self.options["alpha"])
        return {**new, MODEL: new[MODEL] - h / self.options["alpha"], "h": h}


class FedBabu(Shared):
    """Oh et al., ICLR 2022: the head stays as it was initialised while the body is trained."""

    def tasks(self, view: ClientView) -> Sequence[LocalTask]:
        (task,) = super().tasks(view)
        return (replace(task, phases=(Phase(frozenset({ENCODER})),)),)


class Ditto(Shared):
    """Li et al., ICML 2021: a personal model beside FedAvg's, pulled towards it."""

    @property
    def is_personal(self) -> bool:
        return True

    def start_client(self, model: ModelVector) -> Arrays:
        return {"v": model.parameters.copy(), "v_buffers": model.buffers.copy()}

    def personal_model(self, received: Arrays, state: ClientState) -> ModelVector:
        return ModelVector(state["v"], state["v_buffers"])

    def global_model(self, server: Arrays) -> ModelVector:
        return super().personal_model(server, {})

    def tasks(self, view: ClientView) -> Sequence[LocalTask]:
        personal = self.personal_model(view.received, view.state)
        pulled = LocalTask(personal, mu=self.options["lam"], anchor=view.received[MODEL])
        return (LocalTask(self.global_model(view.received)), pulled)

    def propose(self, view: ClientView, results: Sequence[LocalResult]) -> Proposal:
        common, personal = results
        own = {"v": personal.end.parameters, "v_buffers": personal.end.buffers}
        return Proposal(self.moved(view, common.end, WHOLE), own)


class Differences(Shared):
    """FedAvg whose downlink carries only what changed since the client last trained.

    Server and client both remember what the client has; both do so only if its update counted.
    """

    def start_server(self, model: ModelVector) -> Arrays:
        known = np.full((self.setting.clients, self.layout.shared.size), np.nan)
        return {**super().start_server(model), "known": known}

    def start_client(self, model: ModelVector) -> Arrays:
        return {"had": np.zeros(self.layout.shared.size, dtype=model.parameters.dtype)}

    def broadcast(self, server: Arrays) -> Parts:
        return {}

    def personal(self, server: Arrays, client: int) -> Parts:
        changed = server["known"][client] != server[MODEL]
        space, kind = self.layout.shared, self.setting.downlink
        return {MODEL: keep(server[MODEL], element_mask(changed), space, kind)}

    def receive(self, parts: Parts, state: ClientState) -> Arrays:
        model: Array = state["had"].copy()
        model[parts[MODEL].mask.positions(self.layout.shared)] = parts[MODEL].values
        return {MODEL: model}

    def started_from(self, server: Arrays, parts: Parts, client: int) -> Arrays:
        return {MODEL: server[MODEL]}

    def propose(self, view: ClientView, results: Sequence[LocalResult]) -> Proposal:
        proposal = super().propose(view, results)
        return replace(proposal, private={"had": view.received[MODEL]})

    def step(self, server: Arrays, totals: Totals, accepted: frozenset[int]) -> Arrays:
        known = server["known"].copy()
        known[sorted(accepted)] = server[MODEL]
        return {**super().step(server, totals, accepted), "known": known}


class TwoHeads(nn.Module):
    """Both heads' logits side by side in training; the local head's in evaluation."""

    def __init__(self, local: nn.Module, shared: nn.Module) -> None:
        super().__init__()
        self.local, self.shared = local, shared

    def forward(self, features: Tensor) -> Tensor:
        own: Tensor = self.local(features)
        return torch.cat([own, self.shared(features)], dim=1) if self.training else own


def both_heads(output: Tensor, labels: Tensor) -> Tensor:
    """The sum of both heads' cross entropies."""
    own, common = output.chunk(2, dim=1)
    return functional.cross_entropy(own, labels) + functional.cross_entropy(common, labels)


class DualPredictor(Algorithm):
    """A local predictor and a shared one on one encoder: a personal and a global model at once."""

    def __init__(self, options: Options) -> None:
        self.options = options

    def extend(self, model: SplitModel) -> SplitModel:
        head = model.module.predictor
        twin = nn.Linear(head.in_features, head.out_features, dtype=head.weight.dtype)
        twin.load_state_dict(head.state_dict())
        model.module.predictor = TwoHeads(head, twin)
        return SplitModel(
            model.module, {"predictor.local": PREDICTOR, "predictor.shared": "shared_predictor"}
        )

    def is_shared(self, part: str) -> bool:
        return part != PREDICTOR

    def tasks(self, view: ClientView) -> Sequence[LocalTask]:
        (task,) = super().tasks(view)
        return (replace(task, loss=both_heads),)

    def global_model(self, server: Arrays) -> ModelVector:
        (span,) = self.layout.shared.ranges(frozenset({"shared_predictor"}))
        return self.personal_model(server, {LOCAL: server[MODEL][span]})


class Counting:
    """A selector with a state of its own a client: it alternates between two halves."""

    def start(self) -> Arrays:
        return {"turns": np.zeros(1)}

    def select(self, candidate: Candidate) -> Selection:
        turn = candidate.state["turns"] + 1
        bits = np.arange(candidate.space.channels) % 2 == int(turn[0]) % 2
        return Selection(bits, state={"turns": turn})


class WithAgentState(Spatl):
    """SPATL with a selector that learns."""

    def __init__(self, options: Options) -> None:
        super().__init__(config.Spatl.model_validate(options))

    def bind(self, setting: Any) -> None:
        super().bind(setting)
        self.selector = Counting()


class Saboteur(Shared):
    """FedAvg in which chosen clients send NaN, infinity or huge values, or raise."""

    def propose(self, view: ClientView, results: Sequence[LocalResult]) -> Proposal:
        proposal = super().propose(view, results)
        what = self.options.get(str(view.client))
        if what == "raise":
            raise RuntimeError("the client broke")
        if what is None:
            return proposal
        delta = proposal.parts[DELTA]
        values = delta.values.copy()
        values[0] = {"nan": np.nan, "inf": np.inf, "huge": 1e30}[what]
        return replace(proposal, parts={**proposal.parts, DELTA: Part(delta.mask, values)})


class NoTask(Shared):
    """Averaging in which one client (option `client`) cannot tell what it trains."""

    def __init__(self, options: Options) -> None:
        self.client = options["client"]

    def tasks(self, view: ClientView) -> Sequence[LocalTask]:
        if view.client == self.client:
            raise RuntimeError("no task")
        return super().tasks(view)


class Draws(Shared):
    """Averaging whose clients begin at a point that torch draws."""

    def __init__(self, options: Options) -> None:
        self.options = options

    def tasks(self, view: ClientView) -> Sequence[LocalTask]:
        (task,) = super().tasks(view)
        noise = torch.randn(len(task.start.parameters)).numpy()
        start = replace(task.start, parameters=task.start.parameters + 0.01 * noise)
        return (replace(task, start=start),)
