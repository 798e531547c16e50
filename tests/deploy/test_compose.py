"""What docker-compose.yml promises on paper. What its services do is in ``test_services.py``."""

import re
import shutil
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from arqonce.environment import EnvironmentSettings, read_duration
from arqonce.settings.worker import WorkerSettings
from tests.deploy.conftest import Compose
from web.settings import WebSettings

CLOSING = timedelta(seconds=10)
"""Longest that the worker may take after its grace, to give jobs back and to close."""

OURS = ["migrate", "worker", "web"]
SERVERS = {"postgres": "/var/lib/postgresql", "valkey": "/data"}
"""With the directories in which their images keep data."""


@pytest.mark.usefixtures("starts_processes")
def test_file_follows_the_specification(root: Path) -> None:
    """The schema of the compose specification accepts the file."""
    schema = ["--builtin-schema", "vendor.compose-spec"]

    check = _run([sys.executable, "-m", "check_jsonschema", *schema, str(root / "docker-compose.yml")])

    assert check.returncode == 0, check.stdout


@pytest.mark.usefixtures("starts_processes")
def test_compose_accepts_the_file(root: Path) -> None:
    """Docker Compose itself reads the file, and every secret, volume and service that it names is there."""
    program = _docker_compose()

    check = _run([*program, "--file", str(root / "docker-compose.yml"), "config", "--quiet"])

    assert (check.returncode, check.stderr) == (0, "")


def _docker_compose() -> list[str]:
    for program in (["docker", "compose"], ["docker-compose"]):
        # Version 1 is of before the specification, and a docker without its plugin fails.
        if shutil.which(program[0]) and re.match(r"v?[2-9]", _run([*program, "version", "--short"]).stdout):
            return program
    pytest.skip("docker compose is not installed")


def _run(command: list[str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_nothing_is_open_to_other_hosts(compose: Compose) -> None:
    """A port that is published at all is published on 127.0.0.1, and no service uses the host's network."""
    ports = [port for service in compose["services"].values() for port in service.get("ports", [])]
    modes = [service.get("network_mode", "bridge") for service in compose["services"].values()]

    published = [port.get("host_ip") if isinstance(port, dict) else str(port).rpartition(":")[0] for port in ports]

    assert [address for address in published if not str(address).startswith("127.0.0.1")] == []
    assert "host" not in modes


@pytest.mark.parametrize("name", OURS)
def test_our_containers_have_no_rights(compose: Compose, name: str) -> None:
    """They write to /tmp alone, have no capability, can gain none, and remain the image's user."""
    service = compose["services"][name]

    rights = {key: service.get(key) for key in ("read_only", "cap_drop", "cap_add", "privileged", "user", "volumes")}

    assert rights == dict.fromkeys(rights) | {"read_only": True, "cap_drop": ["ALL"]}
    assert [mount.partition(":")[0] for mount in service["tmpfs"]] == ["/tmp"]  # noqa: S108 - the container's own


@pytest.mark.parametrize("name", OURS)
def test_no_signal_is_lost_at_the_start(compose: Compose, name: str) -> None:
    """An init is PID 1: Python in that place would miss a SIGTERM that comes before it has set its handlers."""
    assert compose["services"][name]["init"] is True


def test_no_container_gains_rights(compose: Compose) -> None:
    """In no container can a program get more rights than the one that started it."""
    options = {name: service.get("security_opt") for name, service in compose["services"].items()}

    assert options == {name: ["no-new-privileges:true"] for name in options}


@pytest.mark.parametrize(("name", "settings"), [("worker", WorkerSettings), ("web", WebSettings)])
def test_what_runs_may_finish_before_it_is_killed(
    compose: Compose, name: str, settings: type[EnvironmentSettings]
) -> None:
    """Compose waits for the grace and for what follows it, also when nobody sets the grace."""
    service = compose["services"][name]
    default: timedelta = settings.model_fields["shutdown_grace"].default
    variable = f"{settings.model_config['env_prefix']}SHUTDOWN_GRACE"
    grace = read_duration(service["environment"].get(variable, f"{default.total_seconds()}s"))

    assert read_duration(service["stop_grace_period"]) > max(grace, default) + CLOSING


def test_passwords_come_from_secret_files(compose: Compose) -> None:
    """No service has a password in its environment or command, only paths of files outside of the project's text."""
    services = compose["services"].values()
    words = [
        str(word) for service in services for word in _words([service.get(key) for key in ("environment", "command")])
    ]

    in_urls = [word for word in words if re.search(r"//[^/@]*:[^/@]*@", word)]
    variables = {name: value for service in services for name, value in service.get("environment", {}).items()}
    in_variables = {name: value for name, value in variables.items() if re.search("PASSWORD|SECRET|AUTH", name)}

    assert (in_urls, in_variables) == ([], {"POSTGRES_PASSWORD_FILE": "/run/secrets/database_password"})
    assert {name: secret["file"] for name, secret in compose["secrets"].items()} == {
        name: f"./secrets/{name}" for name in ("database_password", "redis_password", "web_tokens")
    }


def _words(value: Any) -> list[Any]:  # noqa: ANN401 - YAML
    if isinstance(value, dict):
        return _words(list(value.values()))
    return [word for item in value for word in _words(item)] if isinstance(value, list) else [value]


def test_worker_can_be_multiplied(compose: Compose) -> None:
    """Nothing of the worker exists only once: no name, no port of the host, no directory."""
    assert compose["services"]["worker"].keys().isdisjoint({"container_name", "ports", "hostname", "volumes"})


def test_who_needs_schema_and_queue_waits_for_them(compose: Compose) -> None:
    """It starts when migrations are applied and Valkey answers; they are applied when PostgreSQL answers."""
    both = {
        "migrate": {"condition": "service_completed_successfully"},
        "valkey": {"condition": "service_healthy"},
    }
    waits = {name: compose["services"][name]["depends_on"] for name in OURS}

    assert waits == {
        "migrate": {"postgres": {"condition": "service_healthy"}},
        "worker": both,
        "web": both,
    }


def test_only_the_migration_ends(compose: Compose) -> None:
    """Every service is started again after a crash or reboot, but the one that runs once."""
    restarts = {name: service.get("restart") for name, service in compose["services"].items()}

    assert restarts == dict.fromkeys(restarts, "unless-stopped") | {"migrate": "no"}


def test_the_log_of_postgres_repeats_no_rows(compose: Compose) -> None:
    """The server is told to leave the detail of a violated constraint out, which is the refused row."""
    assert compose["services"]["postgres"]["command"] == ["postgres", "-c", "log_error_verbosity=terse"]


def test_servers_keep_their_data(compose: Compose) -> None:
    """What the servers write is on a named volume, at the path that their images use."""
    volumes = {name: compose["services"][name].get("volumes") for name in SERVERS}

    assert volumes == {name: [f"{name}:{path}"] for name, path in SERVERS.items()}
    assert compose["volumes"].keys() == SERVERS.keys()


def test_postgres_is_asked_over_tcp(compose: Compose) -> None:
    """The server of the image's first set-up listens on its socket only, and must not count as ready."""
    service = compose["services"]["postgres"]

    assert service["healthcheck"]["test"] == [
        "CMD",
        "pg_isready",
        "--quiet",
        "--host=127.0.0.1",
        f"--username={service['environment']['POSTGRES_USER']}",
        f"--dbname={service['environment']['POSTGRES_DB']}",
    ]
