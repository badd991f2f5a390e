"""Where a run leaves what is no table."""

from __future__ import annotations

import shutil
import zlib
from collections.abc import Collection, Mapping
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from spatl_ray.config import Experiment


def state_folder(experiment: Experiment) -> Path:
    """Where client states of a run lie."""
    results, given = Path(experiment.results.folder).absolute(), experiment.engine.state_folder
    name = f"run_id={experiment.run_id}"
    if given is None:
        return results / "states" / name
    # The same run may be in several results folders.
    return Path(given).absolute() / f"{name}-{zlib.crc32(str(results).encode()):08x}"


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
    folder = Path(experiment.results.folder).absolute()
    return folder / "models" / f"run_id={experiment.run_id}" / "server.safetensors"


def checkpoint_folder(experiment: Experiment) -> str:
    """Where checkpoints of a run lie: a folder, or an address that Arrow knows."""
    given, name = experiment.checkpoints.folder, f"run_id={experiment.run_id}"
    if given is None:
        return str(Path(experiment.results.folder).absolute() / "checkpoints" / name)
    if "://" not in given:
        return str(Path(given).absolute() / name)
    place = urlsplit(given)
    return urlunsplit(place._replace(path=f"{place.path.rstrip('/')}/{name}"))


def profile_file(experiment: Experiment) -> Path:
    """Where a profiled run leaves its trace."""
    return Path(experiment.results.folder).absolute() / "profiles" / f"{experiment.run_id}.json"


def remove_leftovers(experiment: Experiment) -> None:
    """The model of an earlier run of the same id; a backend removes its client states."""
    folder = model_file(experiment).parent
    if folder.exists():
        shutil.rmtree(folder)
