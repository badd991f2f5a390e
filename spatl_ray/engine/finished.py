"""A finished run, taken up again from its files: what each client would receive now."""

from __future__ import annotations

from pathlib import Path

import torch

from spatl_ray.addresses import working_folder
from spatl_ray.aggregation.masked import Weights
from spatl_ray.algorithms.base import ClientView
from spatl_ray.engine.aggregator import Aggregator
from spatl_ray.engine.checks import fleet_of
from spatl_ray.engine.fetch import fetch
from spatl_ray.engine.folders import model_file, state_folder
from spatl_ray.engine.messages import NEVER, Member
from spatl_ray.engine.prepare import prepare
from spatl_ray.engine.recorded import recorded
from spatl_ray.engine.server_file import load_server
from spatl_ray.engine.worker import Worker
from spatl_ray.errors import ConfigError, ResultsError
from spatl_ray.results.reader import last_counted


class FinishedRun:
    """Server and clients after the last round of a run.

    Args:
        folder: the results folder, or an address, from which the run is fetched.
        run_id: of the run.

    Raises:
        SpatlError: there is no such run, it did not finish, its data are not those of the run, or files
            are damaged.

    Attributes:
        experiment: its config.
        worker: holds model, data and clients' states.
        data: the federated data set.
    """

    def __init__(self, folder: str | Path, run_id: str) -> None:
        fetch(folder, run_id)
        self.experiment, row = recorded(folder, run_id)
        if row["status"] != "finished":
            raise ResultsError(f"run {run_id!r} must have finished, got status {row['status']!r}")
        self.data, blueprint = prepare(self.experiment)
        if self.data.fingerprint != row["data_fingerprint"]:
            raise ResultsError(f"the data of run {run_id!r} must be those that it used, got others")
        device = torch.device("cpu")
        spec = self.data.dataset.spec
        self.worker = Worker(self.experiment, self.data, state_folder(self.experiment), device, "")
        if self.worker.store.initial and self.experiment.engine.state_mirror:
            raise ConfigError(
                f"engine.state_mirror must be false for a run whose clients are taken up again, got run "
                f"{run_id!r}: their states lie on the nodes that trained them"
            )
        self._server = Aggregator(self.experiment, spec)
        first, spaces = self._server.arrays(), blueprint.algorithm.spaces()
        saved = load_server(model_file(self.experiment), first, spaces)
        self._server.restore(saved, self.experiment.rounds)

    def client(self, client: int) -> tuple[ClientView, bool]:
        """What a client would see in a further round, and whether it ever trained.

        Raises:
            ConfigError: there is no such client.
            StateError: its state is missing or damaged.
        """
        experiment = self.experiment
        if not 0 <= client < experiment.clients:
            raise ConfigError(f"--client must be in [0, {experiment.clients}), got {client}")
        folder = working_folder(experiment.results.folder)
        last = last_counted(folder, experiment.run_id, client)
        fleet = fleet_of(experiment)
        member = Member(
            client,
            weights=Weights(cohort=1.0, population=1.0),
            last=NEVER if last is None else last,
            device=None if fleet is None else fleet.device(client),
        )
        broadcast = self._server.broadcast(experiment.rounds, [client])
        common = self.worker.rounds.decode(broadcast.common, experiment.rounds)
        rate = experiment.training.lr
        view = self.worker.rounds.view(experiment.rounds, rate, member, common, broadcast)
        return view, last is not None
