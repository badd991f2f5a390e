"""The command `spatl`: run, validate, look into and list experiments."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from spatl_ray import arguments as arguments_of
from spatl_ray.addresses import full_name, is_address
from spatl_ray.config import EVERYTHING, Experiment
from spatl_ray.errors import ConfigError, SpatlError
from spatl_ray.experiments import load_experiment
from spatl_ray.listing import print_all

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

    from spatl_ray.engine.summary import RunSummary
    from spatl_ray.progress import Progress

OK, FAILED, INTERRUPTED = 0, 2, 130
"""Exit statuses; 130 is what a shell gives for Ctrl-C."""
HANGUP: int | None = getattr(signal, "SIGHUP", None)
"""What a closed terminal sends; Windows has none."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, *([] if HANGUP is None else [HANGUP]))
"""What ends a command, with exit status 128 and its number: 130, 143, 129.

Without it, what a batch system, `kill` or a closed terminal stops would be "running" for ever in
table `runs`.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status.

    Args:
        argv: the arguments, or None for those of the process.
    """
    arguments = _parsed(argv)
    termination = _Termination()
    try:
        with termination:
            status: int = arguments.command(arguments)
        return termination.status if status == INTERRUPTED else status
    except SpatlError as error:
        _say(error, with_traceback=arguments.traceback)
        return FAILED
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return termination.status
    except BrokenPipeError:
        # The reader, such as `head`, has seen enough; the interpreter's last flush must not complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK


class _Termination:
    """While entered, the first signal of `SIGNALS` ends the command as Ctrl-C does.

    After it all of them are ignored, also when left: the process is ending, and another Ctrl-C must
    not cut short how the results are closed. `status` is the exit status that says which one it was.
    """

    def __init__(self) -> None:
        self.status = INTERRUPTED
        self._came = False
        self._before: dict[int, Any] = {}
        # Asked now: a terminal that was closed no longer says that it is one.
        self._terminals = [each for each in (sys.stdout, sys.stderr) if each and each.isatty()]

    def __enter__(self) -> None:
        if threading.current_thread() is not threading.main_thread():  # others may not set handlers
            return
        for number in SIGNALS:
            handler = signal.getsignal(number)
            if handler not in (signal.SIG_IGN, None):  # nohup and a shell's "&" ignore some
                self._before[number] = handler
                signal.signal(number, self._stop)

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            if not self._came:
                signal.signal(number, handler)

    def _stop(self, number: int, _: object) -> None:
        if self._came:  # One more, before all were ignored.
            return
        self._came, self.status = True, 128 + number
        for each in self._before:
            signal.signal(each, signal.SIG_IGN)
        if number == HANGUP:
            self._leave_terminals()
        raise KeyboardInterrupt

    def _leave_terminals(self) -> None:
        """Writing to a closed terminal fails; what ends a run still says so."""
        for terminal in self._terminals:
            os.dup2(os.open(os.devnull, os.O_WRONLY), terminal.fileno())


def _parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    """The arguments; overrides may stand behind options too, which argparse alone refuses."""
    parser = _parser()
    arguments, rest = parser.parse_known_args(argv)
    strange = [text for text in rest if text.startswith("-") or "overrides" not in arguments]
    if strange:
        parser.error(f"unrecognized arguments: {' '.join(strange)}")
    if rest:
        arguments.overrides = [*arguments.overrides, *rest]
    return arguments


def _say(error: SpatlError, with_traceback: bool) -> None:
    """One "error:" line a fault."""
    if with_traceback:
        traceback.print_exception(error)
    faults = error.faults if isinstance(error, ConfigError) else (str(error),)
    for fault in faults:
        print(f"error: {fault}", file=sys.stderr)


def _run(arguments: argparse.Namespace) -> int:
    profiled = ["engine.profile=true"] if arguments.profile else []
    experiment = load_experiment(arguments.source, [*arguments.overrides, *profiled])
    _find_own_modules()

    def start(progress: Progress) -> RunSummary:
        from spatl_ray.engine.run import run

        return run(experiment, callbacks=(progress,))

    status = _watched(start)
    from spatl_ray.engine.folders import profile_file

    trace = profile_file(experiment)
    if experiment.engine.profile and trace.exists():
        print(f"for ui.perfetto.dev or chrome://tracing: {trace}")
    return status


def _resume(arguments: argparse.Namespace) -> int:
    _tell_own_code(arguments)

    def start(progress: Progress) -> RunSummary:
        from spatl_ray.engine.resume import resume

        folder, run_id = arguments.folder, arguments.run_id
        force, address = arguments.force, arguments.address
        return resume(folder, run_id, callbacks=(progress,), force=force, address=address)

    return _watched(start)


def _watched(start: Callable[[Progress], RunSummary]) -> int:
    """A run under the eyes of a person."""
    # Here, not at the top: `spatl list` is to answer at once.
    from spatl_ray.progress import Progress

    progress = Progress()
    try:
        progress.preparing("importing torch")
        summary = start(progress)
    finally:
        progress.close()
    print(f"results of run {summary.run_id} are in {summary.results}")
    results = shlex.quote(summary.results)
    if summary.status == "interrupted":
        place = "" if summary.results == full_name("results") else f" --folder {results}"
        print(f"to go on: spatl resume {summary.run_id}{place}")
        return INTERRUPTED
    print(f"to plot them: python analysis/plots.py {results}")
    return OK


def _find_own_modules() -> None:
    """Own classes may lie in the current folder, which a console script does not search.

    Last: a file of that folder must not stand for one of Python or of what is installed.
    """
    folder = os.getcwd()
    if folder not in sys.path:
        sys.path.append(folder)


def _tell_own_code(arguments: argparse.Namespace) -> None:
    """Of a recorded run, which may lie in the current folder."""
    from spatl_ray.engine.trust import own_code

    _find_own_modules()
    for line in own_code(arguments.folder, arguments.run_id, Path.cwd(), arguments.trust):
        print(line, file=sys.stderr)


def _validate(arguments: argparse.Namespace) -> int:
    experiment = load_experiment(arguments.source, arguments.overrides)
    _find_own_modules()
    from spatl_ray.engine.prepare import prepare

    prepare(experiment)
    shown = experiment.model_dump(mode="json", context=EVERYTHING)
    print(yaml.safe_dump(shown, sort_keys=False), end="")
    cohort, asked, rounds = experiment.cohort_size, experiment.asked_size, experiment.rounds
    more = f", of {asked} that are asked" if asked > cohort else ""
    print(f"# run id: {experiment.run_id}")
    print(f"# cohort: {cohort} of {experiment.clients} clients a round{more}")
    most = "" if experiment.availability.name == "always" else "at most "
    trained = f"{most}{rounds * asked} client rounds of {_length(experiment)}"
    print(f"# cost: {rounds} rounds, {trained}")
    return OK


def _length(experiment: Experiment) -> str:
    training = experiment.training
    if training.steps is not None:
        return f"{training.steps} local steps"
    return f"{training.epochs} local epochs"


def _partition(arguments: argparse.Namespace) -> int:
    experiment = load_experiment(arguments.source, arguments.overrides)
    _find_own_modules()
    from spatl_ray.data.datasets import load_dataset
    from spatl_ray.data.federated import federate
    from spatl_ray.data.heterogeneity import held_counts, noise_stds
    from spatl_ray.data.picture import check_picture, free_name, save_picture
    from spatl_ray.data.report import FEW, figures_text, holdings_text, partition_text

    if not arguments.no_picture:
        check_picture(arguments.picture or Path("partition.png"))
    dataset = load_dataset(experiment.data, experiment.seed)
    data = federate(dataset, experiment)
    counts, noise = held_counts(data), noise_stds(data)
    title = f"{dataset.name}, {partition_text(experiment.partition)}"
    clients, held = f"{len(counts):,} clients", f"{counts.sum():,} of {len(dataset.train_y):,}"
    print(f"{title}, seed {experiment.seed}: {clients}, {held} training samples\n")
    print(figures_text(counts, noise))
    if data.transform is not None and noise is None:
        print("features differ, too: the partition changes what each client sees; not shown")
    if len(counts) <= FEW:
        print(f"\n{holdings_text(counts)}")
    if not arguments.no_picture:
        path = arguments.picture or free_name(dataset.name, experiment)
        save_picture(counts, title, path, noise)
        print(f"\npicture: {path}")
    return OK


def _export(arguments: argparse.Namespace) -> int:
    _tell_own_code(arguments)
    from spatl_ray.engine.export import export_client, report_text

    run_id, client, folder = arguments.run_id, arguments.client, full_name(arguments.folder)
    above = Path() if is_address(folder) else Path(folder)
    out = arguments.out or above / "exports" / f"{run_id}-client-{client}"
    numbers = (arguments.epochs, arguments.repeats, arguments.episodes)
    rows = export_client(folder, run_id, client, out, *numbers)
    print(f"{report_text(rows)}\n\nmodel.pt2, model.safetensors and report.json are in {out}")
    return OK


def _pretrain_agent(arguments: argparse.Namespace) -> int:
    _find_own_modules()
    from spatl_ray.progress import StageProgress

    with StageProgress() as progress:
        progress.told("importing torch", 0, 0, {})
        from spatl_ray.selection.pretraining_run import pretrain, pretraining_from

        made = pretrain(pretraining_from(arguments.overrides), arguments.out, progress.told)
    reached = {name: made[name] for name in made if str(name).startswith("accuracy")}
    print(f"agent: {arguments.out}")
    for name, value in reached.items():
        print(f"  {name.replace('_', ' '):<24} {value:.3f}")
    print(f"learning curve: {arguments.out.with_suffix('.parquet')}, .png")
    return OK


def _submit(arguments: argparse.Namespace) -> int:
    from spatl_ray.submit import connected, experiment_command, send

    run_id = None
    if arguments.command_line is not None:
        if arguments.source or arguments.overrides:
            raise ConfigError("--command must stand alone, without an experiment and its overrides")
        command = arguments.command_line
    elif arguments.source:
        command, run_id = experiment_command(arguments.source, arguments.overrides)
    else:
        raise ConfigError("an experiment, or --command, must be given")
    client = connected(arguments.address)
    job = send(client, command, run_id)
    print(f"job {job}" + (f" of run {run_id}" if run_id else ""))
    if arguments.detach:
        print(f"to follow it: spatl job {job} --address {client.get_address()}")
        return OK
    return _followed(client, job)


def _job(arguments: argparse.Namespace) -> int:
    from spatl_ray.submit import connected, stop

    client = connected(arguments.address)
    if arguments.stop:
        is_stopped = stop(client, arguments.job)
        print(f"job {arguments.job} {'is being stopped' if is_stopped else 'had ended'}")
        return OK
    return _followed(client, arguments.job)


def _followed(client: JobSubmissionClient, job: str) -> int:
    """What a job prints, until it ends or a person has seen enough."""
    from spatl_ray.submit import follow

    try:
        return follow(client, job)
    except KeyboardInterrupt:
        place = f"--address {client.get_address()}"
        print(f"job {job} goes on; to follow it again: spatl job {job} {place}")
        print(f"to stop it: spatl job {job} --stop {place}")
        raise


def _list(_: argparse.Namespace) -> int:
    print_all()
    return OK


def _version() -> str:
    try:
        return metadata.version("spatl_ray")
    except metadata.PackageNotFoundError:
        return "of a checkout that is not installed"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="spatl", description="Federated learning with salient parameter aggregation, on Ray."
    )
    parser.add_argument("--version", action="version", version=f"spatl {_version()}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, command, parent, text in (
        ("run", _run, arguments_of.with_profile(), "run an experiment"),
        ("resume", _resume, arguments_of.of_resume(), "go on with a run that was broken off"),
        ("validate", _validate, arguments_of.named(), "check an experiment and show all of it"),
        ("partition", _partition, arguments_of.with_picture(), "show who holds which samples"),
        (
            "export",
            _export,
            arguments_of.of_export(),
            "write a client's smaller model, with a report",
        ),
        (
            "pretrain-agent",
            _pretrain_agent,
            arguments_of.of_pretraining(),
            "pre-train a selection agent",
        ),
        (
            "submit",
            _submit,
            arguments_of.of_submission(),
            "run an experiment on a cluster, as a job, and follow it",
        ),
        ("job", _job, arguments_of.of_job(), "follow a cluster's job, or stop it"),
        (
            "list",
            _list,
            arguments_of.common(),
            "show what an experiment can name: algorithms, data sets, presets",
        ),
    ):
        added = commands.add_parser(name, parents=[parent], help=text, description=text)
        added.set_defaults(command=command)
    return parser


if __name__ == "__main__":
    sys.exit(main())
