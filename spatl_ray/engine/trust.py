"""Code that a run's results name: whoever made them chose it."""

from __future__ import annotations

import json
from pathlib import Path

from spatl_ray.errors import ConfigError
from spatl_ray.plugins import lies_in, named_in
from spatl_ray.results.reader import read_run


def own_code(folder: Path, run_id: str, here: Path, trusted: bool) -> list[str]:
    """What the config of a recorded run has imported, a line each; nothing is imported for it.

    Args:
        folder: the results folder.
        run_id: of the run.
        here: the folder whose modules are the user's own.
        trusted: whether others may be imported, too.

    Raises:
        ConfigError: it names a module that is not of that folder, as `os:system` does.
        ResultsError: there is no such run.
    """
    names = list(named_in(json.loads(read_run(folder, run_id)["config"])))
    for field, name in names:
        if not trusted and not lies_in(name, here):
            raise ConfigError(
                f"{field} of run {run_id!r} must name a module of the current folder, got {name!r}: a "
                "run's config is its maker's, and may name any code. --trust runs it"
            )
    return [f"runs own code, named by the run's {field}: {name}" for field, name in names]
