"""The manifests of deploy/kubernetes: valid by Kubernetes' own schemas, and without rights."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import kubernetes_validate  # type: ignore[import-untyped] # it has no types
import pytest
import yaml

from arqonce.environment import read_duration

OLDEST, NEWEST = "1.31", "1.37"
"""Versions of Kubernetes whose schemas the manifests are checked with."""

CLOSING = timedelta(seconds=15)
"""What a worker may take after its grace, with a margin."""

Manifest = dict[str, Any]


def _manifests(root: Path, folder: str) -> list[Manifest]:
    files = sorted((root / "deploy" / "kubernetes" / folder).glob("*.yaml"))
    texts = [file.read_text() for file in files if file.name != "kustomization.yaml"]
    return [manifest for text in texts for manifest in yaml.safe_load_all(text)]


@pytest.fixture(scope="module")
def base(root: Path) -> list[Manifest]:
    """Return the base's manifests."""
    return _manifests(root, "base")


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("folder", ["base", "keda"])
def test_manifests_follow_the_schemas(root: Path, folder: str, version: str) -> None:
    """No field is unknown or of another type."""
    manifests = [one for one in _manifests(root, folder) if not one["apiVersion"].startswith("keda.sh/")]

    for manifest in manifests:
        kubernetes_validate.validate(manifest, version, strict=True)

    assert manifests


def test_a_wrong_field_would_be_noticed(base: list[Manifest]) -> None:
    """The check is strict."""
    pod = next(manifest for manifest in base if manifest["kind"] == "Deployment")

    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(pod | {"spec": pod["spec"] | {"replica": 2}}, NEWEST, strict=True)


@pytest.mark.parametrize("folder", ["base", "keda"])
def test_each_file_is_used(root: Path, folder: str) -> None:
    """What lies in a folder is what kustomize applies."""
    directory = root / "deploy" / "kubernetes" / folder
    named = yaml.safe_load((directory / "kustomization.yaml").read_text())["resources"]

    found = {file.name for file in directory.glob("*.yaml")} - {"kustomization.yaml"}

    assert {name for name in named if not name.startswith("..")} == found


@pytest.mark.usefixtures("starts_processes")
@pytest.mark.parametrize("folder", ["base", "keda"])
def test_kustomize_builds_them(root: Path, folder: str) -> None:
    """With KEDA the number of workers is not ours to say."""
    if (program := shutil.which("kubectl")) is None:
        pytest.skip("kubectl is not installed")
    command = [program, "kustomize", str(root / "deploy" / "kubernetes" / folder)]

    built = subprocess.run(command, capture_output=True, text=True, check=True).stdout

    worker = next(one for one in yaml.safe_load_all(built) if (one["kind"], _name(one)) == ("Deployment", "worker"))
    assert ("replicas" in worker["spec"]) == (folder == "base")


def _name(manifest: Manifest) -> str:
    return str(manifest["metadata"]["name"])


def _pods(base: list[Manifest]) -> Iterator[tuple[str, Manifest]]:
    for manifest in base:
        if manifest["kind"] in {"Deployment", "Job"}:
            yield _name(manifest), manifest["spec"]["template"]["spec"]


def test_pods_have_no_rights(base: list[Manifest]) -> None:
    """They pass the restricted standard, write to memory alone, and cannot speak to Kubernetes."""
    pods = dict(_pods(base))

    for pod in pods.values():
        container = pod["containers"][0]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        assert "limits" in container["resources"]

    assert pods.keys() == {"migrate", "worker", "relay", "web"}


def test_pods_live_long_enough_to_end(base: list[Manifest]) -> None:
    """Kubernetes kills later than a worker's own limit."""
    config = next(manifest for manifest in base if manifest["kind"] == "ConfigMap")["data"]
    grace = {read_duration(config[name]) for name in ("WORKER_SHUTDOWN_GRACE", "WEB_SHUTDOWN_GRACE")}
    given = {name: pod["terminationGracePeriodSeconds"] for name, pod in _pods(base) if name != "migrate"}

    assert min(given.values()) >= (max(grace) + CLOSING).total_seconds()


def test_liveness_asks_no_server(base: list[Manifest]) -> None:
    """A probe that fails in outages would restart workers that wait them out."""
    probes = {name: pod["containers"][0] for name, pod in _pods(base) if name != "migrate"}

    assert {one["livenessProbe"]["httpGet"]["path"] for one in probes.values()} == {"/livez"}
    assert {one["readinessProbe"]["httpGet"]["path"] for one in probes.values()} == {"/readyz"}


def test_secrets_are_files_that_settings_read(base: list[Manifest]) -> None:
    """No password is in an environment, and each file has a setting's name."""
    for _, pod in _pods(base):
        (projected,) = [volume["projected"] for volume in pod["volumes"] if "projected" in volume]
        paths = [item["path"] for item in projected["sources"][0]["secret"]["items"]]
        assert [path for path in paths if not re.fullmatch(r"(database|redis)_password|\w+_tokens?", path)] == []
        assert "secretRef" not in str(pod["containers"][0]["envFrom"])


def test_each_pod_has_the_role_of_its_part_and_its_password(base: list[Manifest]) -> None:
    """A relay and the HTTP service may less than workers do, whoever steals their secrets."""
    shared = next(manifest for manifest in base if manifest["kind"] == "ConfigMap")["data"]
    found = {}
    for name, pod in _pods(base):
        own = {variable["name"]: variable["value"] for variable in pod["containers"][0].get("env", ())}
        users = [urlsplit((shared | own)[url]).username for url in ("DATABASE_URL", "REDIS_URL")]
        (projected,) = [volume["projected"] for volume in pod["volumes"] if "projected" in volume]
        keys = {item["path"]: item["key"] for item in projected["sources"][0]["secret"]["items"]}
        found[name] = users[0], keys["database_password"], users[1], keys.get("redis_password")

    assert found == {
        "worker": ("app_worker", "database_password", "worker", "redis_password"),
        "relay": ("app_relay", "relay_password", "worker", "redis_password"),  # KEDA asks it what only workers see
        "web": ("app_web", "web_password", "web", "redis_web_password"),
        "migrate": ("app_migrator", "migrator_password", "worker", None),
    }


def test_scaling_reads_fields_that_exist(root: Path) -> None:
    """KEDA asks a relay, which runs also when no worker does."""
    scaled = {one["kind"]: one for one in _manifests(root, "keda")}
    triggers = scaled["ScaledObject"]["spec"]["triggers"]

    assert [trigger["metadata"]["valueLocation"] for trigger in triggers] == ["waiting", "oldest_waiting_seconds"]
    assert scaled["Service"]["spec"]["selector"]["app.kubernetes.io/component"] == "relay"
    assert scaled["ScaledObject"]["spec"]["scaleTargetRef"] == {"name": "worker"}
