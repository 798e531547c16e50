"""Settings of queue and worker. No server is needed."""

import pytest

from arqonce.console.settings import ConsoleSettings
from arqonce.environment import EnvironmentSettings, SettingsError
from arqonce.settings.operations import OperationsSettings
from arqonce.settings.worker import QueueSettings, Settings, WorkerSettings
from web.settings import WebSettings


def test_all_that_is_missing_is_named_at_once() -> None:
    """One start, one list."""
    with pytest.raises(SettingsError) as caught:
        Settings.load()

    assert [line.split(":")[0] for line in str(caught.value).splitlines()] == ["DATABASE_URL", "REDIS_URL"]


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        (
            "WORKER_MAX_JOBS",
            "0",
            "WORKER_MAX_JOBS: Input should be greater than or equal to 1. Set it to a value such",
        ),
        ("WORKER_MAX_JOBS", "many", "WORKER_MAX_JOBS: Input should be a valid integer"),
        ("WORKER_LOG_FORMAT", "xml", "WORKER_LOG_FORMAT: Input should be 'auto', 'console' or 'json'"),
        ("WORKER_LEASE", "2d", "WORKER_LEASE: must be at most 1d"),
        ("WORKER_POLL_INTERVAL", "1h", "WORKER_POLL_INTERVAL: must be at most 60s"),
        ("WORKER_HANG_LIMIT", "1ms", "WORKER_HANG_LIMIT: must be at least 3s: a process that is merely busy"),
        ("WORKER_KEEP_RECEIPTS", "99999999d", "WORKER_KEEP_RECEIPTS: must be at most 36500d"),
        ("WORKER_HEALTH_FILE", "/", "WORKER_HEALTH_FILE: is a folder: name a file in it"),
        ("WORKER_CONCURENCY", "5", "WORKER_CONCURENCY: there is no such setting. Did you mean WORKER_MAX_JOBS?"),
        ("WORKER_QUEUE_NAME", "q", "WORKER_QUEUE_NAME: there is no such setting. Did you mean WORKER_QUEUE?"),
        ("WORKER_MAXJOBS", "5", "WORKER_MAXJOBS: there is no such setting. Did you mean WORKER_MAX_JOBS?"),
    ],
)
def test_a_wrong_worker_setting_names_itself(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, expected: str
) -> None:
    """With the cure behind it."""
    monkeypatch.setenv(name, value)

    with pytest.raises(SettingsError) as caught:
        WorkerSettings.load()

    assert str(caught.value).startswith(expected)


def test_a_wrong_redis_url_hides_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    """The name and the cure, not the value."""
    monkeypatch.setenv("REDIS_URL", "http://:hidden-word@h")

    with pytest.raises(SettingsError, match="REDIS_URL: is not a URL of Redis") as caught:
        QueueSettings.load()

    assert "hidden-word" not in str(caught.value)


@pytest.mark.parametrize("kind", [OperationsSettings, ConsoleSettings, WebSettings])
def test_a_port_that_kubernetes_has_set_is_told_as_that(
    monkeypatch: pytest.MonkeyPatch, kind: type[EnvironmentSettings]
) -> None:
    """A Service called ``web`` gives every pod beside it a WEB_PORT."""
    monkeypatch.setenv(kind.variable("port"), "tcp://10.0.0.1:8080")

    with pytest.raises(SettingsError, match=r"_PORT: has what Kubernetes sets for a Service of this name: write"):
        kind.load()
