"""Evaluation of clients' models on their own splits and on the global test sample."""

from __future__ import annotations

import time
from dataclasses import replace

from spatl_ray import seeding
from spatl_ray.algorithms.base import ClientView
from spatl_ray.arrays import Bits
from spatl_ray.data.federated import SplitName
from spatl_ray.engine.blueprint import Blueprint
from spatl_ray.engine.flops import training_flops
from spatl_ray.engine.messages import ClientScore, Tuning
from spatl_ray.engine.population import Population
from spatl_ray.models.heads import own_parts
from spatl_ray.models.split import PREDICTOR
from spatl_ray.parameters import Array, ModelVector
from spatl_ray.training.evaluate import Score, evaluate
from spatl_ray.training.local import Job, LocalResult, LocalTask, Phase, Trainer
from spatl_ray.training.recalibrate import RECALIBRATION, recalibrate

PREDICTORS = frozenset({PREDICTOR})

SAMPLE = 256
"""Training samples behind a gradient that a criterion asks for."""

SCORING = 32
"""Training samples behind batch norm's statistics where selections are compared: half as many as in use,
as they are the same for all that are compared."""


class Evaluator:
    """Scores models in the worker's flat model.

    Args:
        blueprint: model and algorithm.
        population: the samples.
        trainer: fits models of clients that never trained, and fine-tunes, where the config asks for it.
    """

    def __init__(self, blueprint: Blueprint, population: Population, trainer: Trainer) -> None:
        self.blueprint = blueprint
        self.population = population
        self.trainer = trainer
        self.options = blueprint.experiment.evaluation
        self._known_flops: dict[frozenset[str] | None, float] = {}

    def score(self, vector: ModelVector, client: int, split: SplitName) -> Score | None:
        """A model on one of the client's own splits; None if that is empty."""
        x, y = self.population.samples(client, split)
        return evaluate(self.blueprint.model, vector, x, y, self.options.batch_size)

    def validate(
        self,
        client: int,
        vector: ModelVector,
        limit: int | None = None,
        channels: Bits | None = None,
    ) -> Score | None:
        """A model on the client's validation split, or a seeded sample of it; None if that is empty.

        Args:
            client: whose split.
            vector: the model.
            limit: samples at most.
            channels: that are kept for inference; None keeps all.
        """
        x, y = self.population.sample(client, "validation", limit)
        if channels is not None and len(y):
            vector = self.kept(vector, channels, client, SCORING)
        return evaluate(self.blueprint.model, vector, x, y, self.options.batch_size)

    def training_gradient(self, client: int, vector: ModelVector) -> Array:
        """Gradient of the training loss at a model, on a seeded sample of the client's training split."""
        return self.trainer.gradient(vector, *self.population.sample(client, "train", SAMPLE))

    def score_global(self, vector: ModelVector) -> Score | None:
        """The global model on the global test sample."""
        x, y = self.population.global_x, self.population.global_y
        return evaluate(self.blueprint.model, vector, x, y, self.options.batch_size)

    def score_global_of(self, vector: ModelVector) -> Score | None:
        """A client's model on as much of the global test set as clients' models are scored on."""
        x, y = self.population.client_global_test
        return evaluate(self.blueprint.model, vector, x, y, self.options.batch_size)

    def kept(
        self, vector: ModelVector, channels: Bits, client: int, samples: int = RECALIBRATION
    ) -> ModelVector:
        """A client's model for inference: all channels but the given ones are removed.

        Their parameters are 0, and batch norm's statistics are taken anew of a seeded sample of the
        client's training split.
        """
        model, layout = self.blueprint.model, self.blueprint.algorithm.layout
        parameters = vector.parameters * layout.parameters.expand(channels)
        model.load(replace(vector, parameters=parameters))
        recalibrate(model.module, self.population.sample(client, "train", samples)[0])
        return model.read()

    def score_kept(self, vector: ModelVector, channels: Bits, client: int) -> Score | None:
        """A client's model for inference on its own test split."""
        return self.score(self.kept(vector, channels, client), client, "test")

    def client(self, view: ClientView, trained: bool) -> list[ClientScore]:
        """The score of a panel member's model; none if it never trained and those are skipped."""
        algorithm = self.blueprint.algorithm
        evaluated_as = "trained" if trained else self.options.untrained
        if evaluated_as == "skip":
            return []
        vector = self._model(view, evaluated_as)
        own, tuning = self._finetuned(vector, view, 1.0 if trained else self.options.transfer_share)
        return [
            ClientScore(
                client=view.client,
                evaluated_as=evaluated_as,
                local_test=self.score(own, view.client, "test"),
                local_validation=self.score(own, view.client, "validation"),
                global_test=self.score_global_of(vector)
                if algorithm.is_personal or not trained
                else None,
                tuning=tuning,
            )
        ]

    def _model(self, view: ClientView, evaluated_as: str) -> ModelVector:
        """The client's model; that of one that never trained is fitted, where the config asks for it."""
        algorithm, options = self.blueprint.algorithm, self.options
        if evaluated_as in ("trained", "initial"):
            return algorithm.personal_model(view.received, view.state)
        start = self.blueprint.initial
        if evaluated_as != "scratch":
            start = algorithm.newcomer_model(view.received, view.state)
        phase = Phase(self._parts(evaluated_as == "transfer"), options.transfer_epochs)
        lr, share = options.transfer_lr, options.transfer_share
        return self._fitted(start, view, evaluated_as, phase, lr, share).end

    def _parts(self, only_predictor: bool) -> frozenset[str] | None:
        """What is fitted: the predictor, or all of the client's own network (None: the whole model)."""
        return PREDICTORS if only_predictor else own_parts(self.blueprint.model.split)

    def _finetuned(
        self, vector: ModelVector, view: ClientView, share: float
    ) -> tuple[ModelVector, Tuning | None]:
        """What is scored on the client's own splits, and what fine-tuning it cost.

        Args:
            vector: the client's model.
            view: what the client sees.
            share: of its training samples.
        """
        options = self.options.finetune
        if options is None:
            return vector, None
        start = time.perf_counter()
        phase = Phase(self._parts(options.parts == "predictor"), options.epochs)
        fitted = self._fitted(vector, view, "finetune", phase, options.lr, share)
        seconds = time.perf_counter() - start
        return fitted.end, Tuning(self._flops(phase.parts) * fitted.samples, seconds)

    def _fitted(
        self,
        vector: ModelVector,
        view: ClientView,
        stream: str,
        phase: Phase,
        lr: float | None,
        share: float,
    ) -> LocalResult:
        """A model trained on the client's training samples, for its evaluation only.

        Not at the round's rate: a decayed one would leave late newcomers as they are.
        """
        key = (self.blueprint.experiment.seed, stream, view.round, view.client)
        samples = self.population.indexed(view.client, "train", share)
        job = Job(LocalTask(vector, phases=(phase,)), samples, seeding.generator(*key))
        with seeding.torch_seeded(*key):
            (result,) = self.trainer.train([job], lr or self.blueprint.experiment.training.lr)
        return result

    def _flops(self, parts: frozenset[str] | None) -> float:
        """FLOPs of training some parts on one sample."""
        if parts not in self._known_flops:
            spec = self.population.data.dataset.spec
            self._known_flops[parts] = training_flops(self.blueprint.model, spec, parts)
        return self._known_flops[parts]
