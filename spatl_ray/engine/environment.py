"""What decides the last bits of a number: CPU capability or GPU model, and the software set."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from types import MappingProxyType

import torch

from spatl_ray import plugins
from spatl_ray.config import Experiment
from spatl_ray.config.experiment import ELSEWHERE

PACKAGES = ("spatl_ray", "torch", "numpy", "ray", "pyarrow", "pydantic", "ml_dtypes")

DECISIVE = ("spatl_ray", "torch", "numpy", "ml_dtypes")
"""Those whose version may change a bit."""


def make_deterministic(device: torch.device) -> None:
    """On a GPU: only kernels that give the same bits each time, and no reduced precision."""
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False


@functools.cache
def versions() -> Mapping[str, str]:
    """Versions of Python and of the packages that matter, as installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return MappingProxyType(found)


def software(experiment: Experiment) -> dict[str, str]:
    """Versions, and digests of this package's source and of that of own parts which decide numbers.

    Of an own part it is the file that its dotted name names, not what that imports.

    Args:
        experiment: names the own parts.
    """
    decisive = experiment.model_dump(mode="json", exclude=ELSEWHERE)
    own = plugins.sources(name for _, name in plugins.named_in(decisive))
    sources = {"spatl_ray": digest_of(plugins.PACKAGE), **own}
    return {**versions(), **{f"source of {name}": digest for name, digest in sources.items()}}


@functools.cache
def digest_of(package: Path) -> str:
    """Sixteen hex digits of a SHA-256 over a package's Python files and shipped agent.

    Args:
        package: its folder.
    """
    total = hashlib.sha256()
    for pattern in ("*.py", "*.safetensors"):
        for file in sorted(package.rglob(pattern)):
            total.update(file.relative_to(package).as_posix().encode())
            total.update(hashlib.sha256(file.read_bytes()).digest())
    return total.hexdigest()[:16]


def fingerprint(device: torch.device) -> str:
    """One line that two processes share if they give the same bits."""
    model = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    capability = torch.backends.cpu.get_cpu_capability()
    installed = versions()
    numbers = ", ".join(f"{name} {installed[name]}" for name in DECISIVE)
    return f"{platform.machine()} {capability}, {model}, {numbers}"


def hardware(device: torch.device) -> Mapping[str, object]:
    """Where a process runs, for the record."""
    return {
        "host": platform.node(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
    }
