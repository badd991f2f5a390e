"""Where a run leaves what is no table."""

from __future__ import annotations

import shutil
import zlib
from collections.abc import Collection, Mapping
from pathlib import Path

from spatl_ray.addresses import below, is_address, working_folder
from spatl_ray.config import Experiment
from spatl_ray.engine.bookkeeping import origin_of


def state_folder(experiment: Experiment) -> Path:
    """Where client states of a run lie."""
    given, name = experiment.engine.state_folder, f"run_id={experiment.run_id}"
    if given is None:
        return working_folder(experiment.results.folder) / "states" / name
    return _elsewhere(experiment, given)


def _elsewhere(experiment: Experiment, given: str) -> Path:
    """A run's own folder below one that the config names, as it was when the run began."""
    name, working = _name(experiment), Path(origin_of(experiment).working)
    began, here = working / given / name, Path(given).absolute() / name
    # A relative folder may have been moved together with the results.
    return here if here.exists() and not began.exists() else began


def _name(experiment: Experiment) -> str:
    """Of a folder outside of the results: the same run may be in several results folders."""
    results = origin_of(experiment).results
    return f"run_id={experiment.run_id}-{zlib.crc32(results.encode()):08x}"


def node_folders(seen: Mapping[str, Collection[str]]) -> dict[str, str]:
    """The folder in which each node keeps client states of its own, below `state_folder`.

    Nodes have new names once a cluster was restarted, their disks do not: a node without a folder of its name
    takes over one that it sees and whose node is gone.

    Args:
        seen: for each node the folders that are on its disk.
    """
    left = {folder for folders in seen.values() for folder in folders} - seen.keys()
    chosen = {}
    for node in sorted(seen):
        theirs = sorted(left.intersection(seen[node]))
        chosen[node] = theirs[0] if theirs and node not in seen[node] else node
        left.discard(chosen[node])
    return chosen


def model_file(experiment: Experiment) -> Path:
    """Where the server's arrays lie after a run."""
    folder = working_folder(experiment.results.folder)
    return folder / "models" / f"run_id={experiment.run_id}" / "server.safetensors"


def checkpoint_folder(experiment: Experiment) -> str:
    """Where checkpoints of a run lie: a folder, or an address that Arrow knows."""
    given = experiment.checkpoints.folder
    if given is None:
        name = f"run_id={experiment.run_id}"
        results = experiment.results.folder
        if is_address(results):
            return below(results, "checkpoints", name)
        return str(working_folder(results) / "checkpoints" / name)
    if not is_address(given):
        return str(_elsewhere(experiment, given))
    return below(given, _name(experiment))


def profile_file(experiment: Experiment) -> Path:
    """Where a profiled run leaves its trace."""
    return working_folder(experiment.results.folder) / "profiles" / f"{experiment.run_id}.json"


def remove_leftovers(experiment: Experiment) -> None:
    """The model of an earlier run of the same id; a backend removes its client states."""
    folder = model_file(experiment).parent
    if folder.exists():
        shutil.rmtree(folder)
