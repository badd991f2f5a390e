"""What each command of `spatl` takes."""

from __future__ import annotations

import argparse
from pathlib import Path


def common() -> argparse.ArgumentParser:
    """What every command takes."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--traceback", action="store_true", help="show where an error arose")
    return common


def named() -> argparse.ArgumentParser:
    """An experiment, and overrides."""
    named = common()
    named.add_argument("source", metavar="FILE|PRESET", help="a YAML file, or a preset's name")
    named.add_argument(
        "overrides", metavar="key=value", nargs="*", help="e.g. algorithm.keep=0.3, partition=iid"
    )
    return named


def with_profile() -> argparse.ArgumentParser:
    """Of `spatl run`."""
    run = named()
    run.add_argument(
        "--profile",
        action="store_true",
        help="write what took from when to when in each process to RESULTS/profiles/RUN.json",
    )
    return run


def with_picture() -> argparse.ArgumentParser:
    """Of `spatl partition`."""
    picture = named()
    choice = picture.add_mutually_exclusive_group()
    choice.add_argument(
        "--picture",
        metavar="PATH",
        type=Path,
        help="where to save the picture, over what is there; by default "
        "partition-DATASET-PARTITION-CLIENTS.png here, numbered if that is taken",
    )
    choice.add_argument("--no-picture", action="store_true", help="print the figures only")
    return picture


def of_pretraining() -> argparse.ArgumentParser:
    """Of `spatl pretrain-agent`."""
    pretraining = common()
    pretraining.add_argument(
        "overrides", metavar="key=value", nargs="*", help="e.g. seed=1, updates=300, data=digits"
    )
    pretraining.add_argument(
        "--out",
        metavar="FILE",
        type=Path,
        default=Path("agent.safetensors"),
        help="of the agent; checkpoints and learning curve lie beside it, and what they hold is gone on from",
    )
    return pretraining


def recorded() -> argparse.ArgumentParser:
    """A run that is taken up again from its results."""
    recorded = common()
    recorded.add_argument("run_id", metavar="RUN", help="name of the run, as `spatl run` told it")
    recorded.add_argument(
        "--folder", metavar="DIR", default="results", help="the results folder, or its address"
    )
    recorded.add_argument(
        "--trust",
        action="store_true",
        help="run code that its config names, also if that is no module of the current folder",
    )
    return recorded


def of_export() -> argparse.ArgumentParser:
    """Of `spatl export`."""
    exported = recorded()
    exported.add_argument("--client", metavar="I", type=int, required=True, help="whose model")
    exported.add_argument(
        "--out",
        metavar="DIR",
        type=Path,
        help="a new folder; by default DIR/exports/RUN-client-I, or exports/RUN-client-I here of an address",
    )
    numbers = (
        ("--epochs", 0, "of fine-tuning on the client's own samples, under the run's schedule"),
        ("--repeats", 50, "forward passes behind each latency"),
        (
            "--episodes",
            None,
            "of the agent's search for what the final model keeps (30; 0: what it found in the run)",
        ),
    )
    for name, default, text in numbers:
        exported.add_argument(name, metavar="N", type=int, default=default, help=text)
    return exported


def of_resume() -> argparse.ArgumentParser:
    """Of `spatl resume`."""
    resumed = recorded()
    resumed.add_argument(
        "--force",
        action="store_true",
        help="go on although software, CPU, GPU or data are others than before; the results are of neither",
    )
    resumed.add_argument(
        "--address",
        metavar="A",
        help="of the Ray cluster to go on with, instead of the run's engine.address; local starts Ray here",
    )
    return resumed


def of_submission() -> argparse.ArgumentParser:
    """Of `spatl submit`."""
    submission = common()
    submission.add_argument(
        "source",
        metavar="FILE|PRESET",
        nargs="?",
        help="a YAML file in the current folder, or a preset's name",
    )
    submission.add_argument(
        "overrides", metavar="key=value", nargs="*", help="e.g. results.folder=/mnt/spatl/results"
    )
    submission.add_argument(
        "--command",
        dest="command_line",
        metavar="TEXT",
        help="run this instead of an experiment: 'python tune/sweep.py GRID --address auto'",
    )
    submission.add_argument("--detach", action="store_true", help="do not follow the job")
    _at_cluster(submission)
    return submission


def of_job() -> argparse.ArgumentParser:
    """Of `spatl job`."""
    job = common()
    job.add_argument("job", metavar="JOB", help="as `spatl submit` told it")
    job.add_argument(
        "--stop", action="store_true", help="end it; `spatl resume` goes on with its run"
    )
    _at_cluster(job)
    return job


def _at_cluster(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--address",
        metavar="URL",
        help="of the cluster's job server, http://HEAD:8265; by default RAY_API_SERVER_ADDRESS",
    )
