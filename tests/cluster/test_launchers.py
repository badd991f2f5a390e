"""Files that start clusters: valid for what reads them, as far as that can be told without a cloud."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
CLUSTER = ROOT / "cluster"
BESIDE = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
HADOLINT = shutil.which("hadolint", path=BESIDE)
CLOUDS = ("cpu.yaml", "gpu.yaml", "gcp.yaml")

POD = {"spec": None, "metadata": None}
CLUSTER_SPEC = {
    "authOptions": {"mode": None, "secretName": None},
    "autoscalerOptions": dict.fromkeys(
        [
            "resources",
            "image",
            "imagePullPolicy",
            "env",
            "envFrom",
            "volumeMounts",
            "securityContext",
            "idleTimeoutSeconds",
            "upscalingMode",
            "version",
        ]
    ),
    "enableInTreeAutoscaling": None,
    "gcsFaultToleranceOptions": None,
    "headServiceAnnotations": None,
    "headGroupSpec": {
        **dict.fromkeys(["serviceType", "headService", "enableIngress", "resources", "labels"]),
        "rayStartParams": None,
        "template": POD,
    },
    "managedBy": None,
    "rayVersion": None,
    "suspend": None,
    "upgradeStrategy": None,
    "workerGroupSpecs": {
        **dict.fromkeys(["groupName", "replicas", "minReplicas", "maxReplicas", "numOfHosts"]),
        **dict.fromkeys(["idleTimeoutSeconds", "suspend", "resources", "labels", "scaleStrategy"]),
        "rayStartParams": None,
        "template": POD,
    },
}
JOB_SPEC = {
    **dict.fromkeys(
        [
            "activeDeadlineSeconds",
            "backoffLimit",
            "submitterPodTemplate",
            "metadata",
            "clusterSelector",
            "submitterConfig",
            "managedBy",
            "deletionStrategy",
            "entrypoint",
            "runtimeEnvYAML",
            "jobId",
            "submissionMode",
            "entrypointResources",
            "entrypointNumCpus",
            "entrypointNumGpus",
            "ttlSecondsAfterFinished",
            "shutdownAfterJobFinishes",
            "suspend",
        ]
    ),
    "rayClusterSpec": CLUSTER_SPEC,
}
"""KubeRay v1's fields: a list kept by hand, after its API reference; None stands for anything."""

REQUIRED = {
    "headGroupSpec": {"rayStartParams", "template"},
    "workerGroupSpecs": {"groupName", "minReplicas", "maxReplicas", "rayStartParams", "template"},
}


def launcher(name: str) -> dict[str, Any]:
    """A file's contents."""
    return dict(yaml.safe_load((CLUSTER / name).read_text()))


def unknown(found: Any, known: Mapping[str, Any] | None, where: str = "") -> list[str]:
    """Fields that are not known, and required ones that are missing."""
    if known is None:
        return []
    if isinstance(found, list):
        return [fault for each in found for fault in unknown(each, known, where)]
    faults = [f"{where}.{name}" for name in found if name not in known]
    for name in found:
        inside = f"{where}.{name}"
        faults += unknown(found[name], known.get(name), inside)
        if name in REQUIRED:
            parts = found[name] if isinstance(found[name], list) else [found[name]]
            faults += [
                f"no {inside}.{each}" for part in parts for each in REQUIRED[name] - set(part)
            ]
    return faults


@pytest.mark.ray
@pytest.mark.parametrize("name", [*CLOUDS, "onprem.yaml"])
def test_ray_itself_accepts_each_launcher(name: str) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(launcher(name)))


@pytest.mark.ray
def test_ray_refuses_what_it_does_not_know() -> None:
    """So that the test above can fail."""
    from jsonschema import ValidationError
    from ray.autoscaler._private.util import prepare_config, validate_config

    strange = launcher("gpu.yaml")
    strange["available_node_types"]["gpu"]["min_worker"] = 1
    with pytest.raises(ValidationError, match="min_worker"):
        validate_config(prepare_config(strange))


@pytest.mark.parametrize("name", CLOUDS)
def test_clouds_begin_with_one_worker_and_have_a_limit(name: str) -> None:
    found = launcher(name)
    types = found["available_node_types"]
    assert sorted(each["min_workers"] for each in types.values()) == [0, 0, 1]
    assert all(each["resources"] for each in types.values())
    assert found["idle_timeout_minutes"] <= 10
    assert 0 < sum(each["max_workers"] for each in types.values()) <= found["max_workers"] <= 8
    assert types[found["head_node_type"]]["max_workers"] == 0
    assert any("spot" in kind for kind in types)


@pytest.mark.parametrize(
    ("name", "kind", "known"),
    [
        ("kuberay-cluster.yaml", "RayCluster", CLUSTER_SPEC),
        ("kuberay-job.yaml", "RayJob", JOB_SPEC),
    ],
)
def test_kubernetes_files_name_fields_of_kuberay(
    name: str, kind: str, known: Mapping[str, Any]
) -> None:
    found = launcher(name)
    assert (found["apiVersion"], found["kind"]) == ("ray.io/v1", kind)
    assert re.fullmatch(r"[a-z0-9-]+", found["metadata"]["name"])
    assert unknown(found["spec"], known, "spec") == []
    inner = found["spec"].get("rayClusterSpec", found["spec"])
    assert inner["enableInTreeAutoscaling"] is True
    for group in inner["workerGroupSpecs"]:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        (container,) = group["template"]["spec"]["containers"]
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in group["template"]["spec"]["volumes"]}


def test_an_unknown_or_missing_field_of_kuberay_is_found() -> None:
    """So that the test above can fail."""
    spec = launcher("kuberay-cluster.yaml")["spec"]
    spec["headGroupSpec"]["rayStartParam"] = spec["headGroupSpec"].pop("rayStartParams")
    spec["workerGroupSpecs"][0].pop("groupName")
    assert sorted(unknown(spec, CLUSTER_SPEC, "spec")) == [
        "no spec.headGroupSpec.rayStartParams",
        "no spec.workerGroupSpecs.groupName",
        "spec.headGroupSpec.rayStartParam",
    ]


def test_all_name_the_version_of_ray_that_is_tested() -> None:
    (pinned,) = re.findall(r"^ray==(.+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    for path in CLUSTER.iterdir():
        text = path.read_text() if path.suffix in (".yaml", "") else ""
        images = re.findall(r"rayproject/ray:([\d.]+)", text)
        named = re.findall(r"(?:rayVersion: \"|RAY_VERSION=)([\d.]+)", text)
        assert {*images, *named} <= {pinned}, path.name


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="needs shellcheck")
@pytest.mark.parametrize("name", ["slurm.sh", "install.sh"])
def test_shell_scripts_are_clean(name: str) -> None:
    told = subprocess.run(
        ["shellcheck", str(CLUSTER / name)], capture_output=True, text=True, check=False
    )
    assert told.returncode == 0, told.stdout


@pytest.mark.skipif(HADOLINT is None, reason="needs hadolint")
@pytest.mark.parametrize(("added", "rule"), [("", None), ("RUN sudo true\n", "DL3004")])
def test_the_dockerfile_is_clean(tmp_path: Path, added: str, rule: str | None) -> None:
    """And another one is not, so that it can fail."""
    linted = tmp_path / "Dockerfile"
    linted.write_text((CLUSTER / "Dockerfile").read_text() + added)
    command = [str(HADOLINT), "--failure-threshold", "warning", "--no-color", str(linted)]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (told.returncode == 0) == (rule is None), told.stdout + told.stderr
    assert rule is None or rule in told.stdout


def test_the_dockerfile_has_instructions_and_sources_that_there_are() -> None:
    """What a linter does not know of: what is copied; images cannot be built in these tests."""
    text = (CLUSTER / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    instructions = [line.split()[0] for line in lines]
    assert set(instructions) <= {"ARG", "FROM", "COPY", "RUN", "ENV", "USER", "WORKDIR"}
    assert instructions[instructions.index("FROM") :].count("FROM") == 1
    assert all(each == "ARG" for each in instructions[: instructions.index("FROM")])
    (image,) = [line.split()[1] for line in lines if line.startswith("FROM")]
    assert ":" in image
    assert not image.endswith(":latest")
    assert [line for line in lines if line.startswith("USER")][-1] != "USER root"
    makefile = (ROOT / "Makefile").read_text()
    (copied,) = [line.split()[1:-1] for line in lines if line.startswith("COPY")]
    for source in copied[1:]:
        assert source.endswith(".whl") or Path(source).name in makefile
