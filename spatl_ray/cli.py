"""The command `spatl`: run, validate and list experiments."""

from __future__ import annotations

import argparse
import inspect
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

import yaml

from spatl_ray.config import BUILT_IN, Experiment
from spatl_ray.errors import ConfigError, SpatlError
from spatl_ray.experiments import load_experiment, presets
from spatl_ray.fields import kinds

OK, FAILED, INTERRUPTED = 0, 2, 130
"""Exit statuses; 130 is what a shell gives for Ctrl-C."""

DATA_SETS = {
    "digits": "1,797 grey images of 8 x 8 pixels, 10 classes; embedded in scikit-learn",
    "fashion_mnist": "70,000 grey images of 28 x 28 pixels, 10 classes; files or a download",
}
MODELS = {
    "mlp": "multilayer perceptron",
    "lenet": "LeNet: two convolutions and three linear layers",
    "resnet20": "ResNet-20; option width: channels of its first stage",
}
OWN = "package.module:Name"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status.

    Args:
        argv: the arguments, or None for those of the process.
    """
    arguments = _parser().parse_args(argv)
    try:
        status: int = arguments.command(arguments)
        return status
    except SpatlError as error:
        _say(error, with_traceback=arguments.traceback)
        return FAILED
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader, such as `head`, has seen enough; the interpreter's last flush must not complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK


def _say(error: SpatlError, with_traceback: bool) -> None:
    """One "error:" line a fault."""
    if with_traceback:
        traceback.print_exception(error)
    faults = error.faults if isinstance(error, ConfigError) else (str(error),)
    for fault in faults:
        print(f"error: {fault}", file=sys.stderr)


def _run(arguments: argparse.Namespace) -> int:
    experiment = load_experiment(arguments.source, arguments.overrides)
    _find_own_modules()
    # Here, not at the top: they bring torch, and `spatl list` is to answer at once.
    from spatl_ray.engine.rounds import run
    from spatl_ray.progress import Progress

    progress = Progress()
    try:
        summary = run(experiment, observers=(progress,))
    finally:
        progress.close()
    print(f"results of run {summary.run_id} are in {summary.folder}")
    print(f"to plot them: python analysis/plots.py {summary.folder}")
    return INTERRUPTED if summary.status == "interrupted" else OK


def _find_own_modules() -> None:
    """Own classes may lie in the current folder, which a console script does not search."""
    folder = os.getcwd()
    if folder not in sys.path:
        sys.path.insert(0, folder)


def _validate(arguments: argparse.Namespace) -> int:
    experiment = load_experiment(arguments.source, arguments.overrides)
    _find_own_modules()
    from spatl_ray.engine.rounds import prepare

    prepare(experiment)
    print(yaml.safe_dump(experiment.model_dump(mode="json"), sort_keys=False), end="")
    cohort, rounds = experiment.cohort_size, experiment.rounds
    print(f"# run id: {experiment.run_id}")
    print(f"# cohort: {cohort} of {experiment.clients} clients a round")
    print(f"# cost: {rounds} rounds, {rounds * cohort} client rounds of {_length(experiment)}")
    return OK


def _length(experiment: Experiment) -> str:
    training = experiment.training
    if training.steps is not None:
        return f"{training.steps} local steps"
    return f"{training.epochs} local epochs"


def _list(arguments: argparse.Namespace) -> int:
    partitions = kinds(Experiment.model_fields["partition"])
    _section("algorithms", _summaries(BUILT_IN), OWN)
    _section("data sets", DATA_SETS, OWN)
    _section("models", MODELS, OWN)
    _section("partitions", _summaries(partitions))
    _section("presets", presets())
    return OK


def _summaries(classes: Mapping[str, type[Any]]) -> dict[str, str]:
    """Each class's first line of documentation."""
    return {
        name: (inspect.getdoc(class_) or "").partition("\n")[0] for name, class_ in classes.items()
    }


def _section(heading: str, lines: Mapping[str, str], own: str | None = None) -> None:
    entries = {**lines, own: "an own one, by dotted name"} if own else lines
    print(f"{heading}:")
    for name, text in entries.items():
        print(f"  {name:<20} {text}")


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
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--traceback", action="store_true", help="show where an error arose")
    named = argparse.ArgumentParser(add_help=False, parents=[common])
    named.add_argument("source", metavar="FILE|PRESET", help="a YAML file, or a preset's name")
    named.add_argument(
        "overrides", metavar="key=value", nargs="*", help="e.g. algorithm.keep=0.3, partition=iid"
    )
    for name, command, parent, text in (
        ("run", _run, named, "run an experiment"),
        ("validate", _validate, named, "check an experiment and show all of it"),
        ("list", _list, common, "show algorithms, data sets, models, partitions and presets"),
    ):
        added = commands.add_parser(name, parents=[parent], help=text, description=text)
        added.set_defaults(command=command)
    return parser


if __name__ == "__main__":
    sys.exit(main())
