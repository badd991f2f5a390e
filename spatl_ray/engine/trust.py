"""Code that a run's results name: whoever made them chose it."""

from __future__ import annotations

from pathlib import Path

from spatl_ray.addresses import working_folder
from spatl_ray.engine.fetch import fetch
from spatl_ray.errors import ConfigError
from spatl_ray.plugins import is_defined_in, lies_in, load, named_in
from spatl_ray.results.mappings import mapping_of
from spatl_ray.results.reader import read_run


def own_code(folder: str | Path, run_id: str, here: Path, trusted: bool) -> list[str]:
    """What the config of a recorded run has imported, a line each.

    Nothing is imported before all of it is known to be of the user's own modules.

    Args:
        folder: the results folder, or an address; no module in it is the user's own.
        run_id: of the run.
        here: the folder whose modules are the user's own.
        trusted: whether other code may be run, too.

    Raises:
        ConfigError: it names a module that is not of that folder, as `os:system` does, or something that an
            own module has only imported, as `own:os.system` does.
        ResultsError: there is no such run, or its config is damaged.
    """
    fetch(folder, run_id, only=("runs",))
    results = working_folder(folder)
    names = list(named_in(mapping_of(read_run(results, run_id), run_id, "config")))
    if not trusted:
        for field, name in names:
            if not lies_in(name, here, results):
                rule = "name a module of the current folder, outside the results folder"
                raise _refused(field, run_id, rule, name)
        for field, name in names:
            if not is_defined_in(name, load(name, field), here, results):
                rule = "name what a module of the current folder defines itself"
                raise _refused(field, run_id, rule, name)
    return [f"runs own code, named by the run's {field}: {name}" for field, name in names]


def _refused(field: str, run_id: str, rule: str, name: str) -> ConfigError:
    return ConfigError(
        f"{field} of run {run_id!r} must {rule}, got {name!r}: a run's "
        "config is its maker's, and may name any code. --trust runs it"
    )
