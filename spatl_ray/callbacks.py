"""What a run tells while it goes on, and to whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from spatl_ray.config import Experiment

Row = Mapping[str, object]
"""A row of a results table by column, without run_id; None where nothing was measured."""


class Callback:
    """Listens to a run. An own one overrides what it needs; the rest does nothing.

    A run tells, in this order: `preparing`, also before one that is then refused; `run_started`; in
    every round `round_started`, `clients_done` as results come in, then each `event`, `clients_ended`
    and `round_ended`; `run_ended` at last. Callbacks are told one after the other, in the process that
    called `run`, and the run waits for them. They only listen: each is handed
    its own copy of a row, and no number of the run depends on them.

    What a method raises ends the run: status "failed" and the error stand in table `runs`, the rounds
    so far stay readable, the callbacks are told `run_ended`, and the exception goes on to the caller
    of `run`: as it is, with a note that names callback, method and line; from one that is named in
    `results.loggers`, as the cause of a PluginError that names them. KeyboardInterrupt
    ends it as Ctrl-C does: status "interrupted", no exception. What `run_ended` itself raises goes to
    the caller once all were told; the results are closed by then.
    """

    def preparing(self, step: str) -> None:
        """Something that may take seconds begins before the first round.

        Only callbacks handed to `run` are told: those that the config names are made after it was
        checked. What is raised here goes to the caller, and no run begins.

        Args:
            step: what begins, such as "loading data".
        """

    def run_started(self, experiment: Experiment, run_id: str) -> None:
        """The first round is about to begin; data, model and backend are ready.

        Args:
            experiment: all of the config.
            run_id: the run's name in the results.
        """

    def round_started(self, round_: int) -> None:
        """It is a round's turn: the one before is written down, with its checkpoint if one was due.

        Through Ray its clients may train already, unless the round before was evaluated.

        Args:
            round_: the round, from 0.
        """

    def clients_done(self, round_: int, done: int, cohort: int) -> None:
        """Some clients of the round have trained, in whatever order they ended.

        Args:
            round_: the round, from 0.
            done: how many have trained so far.
            cohort: how many take part in the round.
        """

    def event(self, row: Row) -> None:
        """Something noteworthy happened, such as an update that was rejected.

        Args:
            row: of table `events`: time, round, client (None: of no one client), kind, message.
        """

    def clients_ended(self, round_: int, rows: Sequence[Row]) -> None:
        """A round was committed: its clients, by number.

        Args:
            round_: the round, from 0.
            rows: of table `clients`, one for each client that took part or was evaluated. Columns of
                training are None for one that did not take part (`participated` is False), columns of
                evaluation for one that was not evaluated.
        """

    def round_ended(self, row: Row) -> None:
        """A round was committed.

        Args:
            row: of table `rounds`. Columns of evaluation are None in a round without one, the
                simulated seconds without devices.
        """

    def run_ended(self, status: str) -> None:
        """The results are closed; told even if `run_started` was not, because another one raised.

        Args:
            status: "finished", "interrupted" or "failed".
        """
