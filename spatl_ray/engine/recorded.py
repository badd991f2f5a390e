"""An earlier run, as its results tell it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from spatl_ray import faults
from spatl_ray.addresses import full_name, working_folder
from spatl_ray.config import Experiment
from spatl_ray.config.base import NonNegative, Strict
from spatl_ray.data.federated import FederatedData
from spatl_ray.engine.checkpoint import Checkpoint
from spatl_ray.engine.folders import checkpoint_folder
from spatl_ray.errors import ResultsError, StateError
from spatl_ray.results.inventory import refuse_lost_rows
from spatl_ray.results.mappings import mapping_of, text_of
from spatl_ray.results.reader import read_run
from spatl_ray.results.remote import Remote

Amount = Annotated[int, Field(ge=0)]


def recorded(folder: str | Path, run_id: str) -> tuple[Experiment, Mapping[str, Any]]:
    """The experiment of a run, and its row of table `runs`.

    Args:
        folder: the results folder, wherever it lies now, or an address whose run was fetched.
        run_id: of the run.

    Raises:
        ResultsError: there is no such run, its row is damaged or of another version, or a file that
            decides its numbers has changed since.
    """
    row = read_run(working_folder(folder), run_id)
    for column in ("status", "data_fingerprint"):
        text_of(row, run_id, column)
    config = _config(row, run_id)
    results = config.results.model_copy(update={"folder": full_name(folder)})
    experiment = config.model_copy(update={"results": results})
    if experiment.run_id != run_id:
        raise ResultsError(
            f"run {run_id!r} must still be of its config, got one that is {experiment.run_id!r} "
            "now: a file that it names has changed"
        )
    return experiment, row


def _config(row: Mapping[str, Any], run_id: str) -> Experiment:
    """The config that a row holds."""
    values = mapping_of(row, run_id, "config")
    try:
        return Experiment.model_validate_json(row["config"])
    except ValidationError as error:
        raise ResultsError(
            f"column 'config' of run {run_id!r} in table runs must be an experiment of this version, "
            f"got {'; '.join(faults.texts(error, values))}"
        ) from error


class _Ledger(Strict):
    """What adds up over rounds."""

    bytes_up: Amount
    bytes_down: Amount
    simulated: NonNegative | None


class _Carried(BaseModel):
    """What a run that goes on takes of a checkpoint's facts."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    run_id: str
    ledger: _Ledger
    someone_trained: bool
    lost: Amount
    state_folders: list[str] = []
    rows: dict[str, Amount] = {}


def _check_facts(checkpoint: Checkpoint, place: str) -> None:
    """Refuse a checkpoint that does not hold what a run goes on with.

    Raises:
        StateError: it is such a checkpoint, in the folder `place`.
    """
    try:
        _Carried.model_validate(dict(checkpoint.facts))
    except ValidationError as error:
        wrong = [
            f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}, got {fault['input']!r:.60}"
            for fault in error.errors(include_url=False)
        ]
        raise StateError(
            f"{place}/round-{checkpoint.round:06d}.ckpt must hold the facts of a checkpoint of this "
            f"version, got {'; '.join(wrong)}"
        ) from error


@dataclass(frozen=True)
class BrokenOff:
    """A run that is to go on.

    Attributes:
        run_id: its name.
        data_fingerprint: of the data that it used; None accepts others.
        checkpoint: to go on from; None begins again.
        faults: what is wrong with newer checkpoints.
        fingerprint: of the workers that it began with; None accepts others.
        remote: where its results are, if that is at an address.
    """

    run_id: str
    data_fingerprint: str | None
    checkpoint: Checkpoint | None
    faults: Sequence[str] = ()
    fingerprint: str | None = None
    remote: Remote | None = None

    @property
    def first(self) -> int:
        """The first round to come."""
        return 0 if self.checkpoint is None else self.checkpoint.round + 1

    def check(self, experiment: Experiment, data: FederatedData) -> None:
        """Refuse to go on with something else.

        Raises:
            ResultsError: other data, a checkpoint of another run, or rows from before it are gone.
            StateError: the checkpoint's facts are not those of one.
        """
        if self.checkpoint is not None:
            _check_facts(self.checkpoint, checkpoint_folder(experiment))
        if self.checkpoint is not None and self.checkpoint.facts.get("run_id") != self.run_id:
            raise ResultsError(
                f"the checkpoint must be of run {self.run_id!r}, got one of "
                f"{self.checkpoint.facts.get('run_id')!r}"
            )
        if experiment.run_id != self.run_id:
            raise ResultsError(
                f"run {self.run_id!r} must go on with its own data, got those of run {experiment.run_id!r}"
            )
        if self.data_fingerprint not in (None, data.fingerprint):
            raise ResultsError(
                f"run {self.run_id!r} must go on with the data that it began with (fingerprint "
                f"{self.data_fingerprint}), got others ({data.fingerprint}); --force goes on anyway"
            )
        if self.checkpoint is not None:
            folder = working_folder(experiment.results.folder)
            refuse_lost_rows(folder, self.run_id, self.first, self.checkpoint.facts.get("rows", {}))
