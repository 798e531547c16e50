"""What lies under the worker: settings classes, passwords, cron, dependencies. No server is needed."""

import itertools
import re
import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from arq.connections import RedisSettings
from arq.cron import next_cron
from arq.worker import get_kwargs

from arqonce.arq.guarded_redis import GuardedRedis
from arqonce.process.arguments import build_arq_redis, worker_arguments
from arqonce.process.plain import build_worker_settings
from arqonce.settings.worker import Settings
from jobs.registry import REGISTRY
from worker.application import APPLICATION

ROOT = Path(__file__).parents[2]


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Return settings whose Redis has a password that must be written percent-encoded."""
    monkeypatch.setenv("DATABASE_URL", "postgresql://worker:secret@127.0.0.1:1/none")
    monkeypatch.setenv("REDIS_URL", "redis://jane:p%40ss%2Fword@127.0.0.1:1/0")
    return Settings.load()


def test_arq_sees_every_setting_of_the_class(settings: Settings) -> None:
    """Arq reads a class's own attributes alone: one that is inherited, or a property, it passes over in silence."""
    built = build_worker_settings(APPLICATION)
    arguments = worker_arguments(settings, build_arq_redis(settings, REGISTRY, GuardedRedis))

    assert get_kwargs(built).keys() == arguments.keys() | {"functions", "on_startup", "on_shutdown", "redis_settings"}
    assert built.__bases__ == (object,)


def test_a_password_in_the_url_is_decoded_for_both_classes(settings: Settings) -> None:
    """Arq takes it as it is written, and is refused."""
    pool = build_arq_redis(settings, REGISTRY, GuardedRedis).connection_pool

    checked = get_kwargs(build_worker_settings(APPLICATION))["redis_settings"]

    assert isinstance(checked, RedisSettings)
    assert (checked.username, checked.password) == ("jane", "p@ss/word")
    assert (pool.connection_kwargs["username"], pool.connection_kwargs["password"]) == ("jane", "p@ss/word")


def test_cron_in_utc_skips_no_run_when_clocks_are_set_back() -> None:
    """Arq's cron counts by the wall clock, where an hour comes twice: it runs once in both. UTC has no such hour."""
    before = datetime(2026, 10, 25, 0, 10, tzinfo=UTC)  # 02:10 in Berlin, the first time
    last = before.astimezone(ZoneInfo("Europe/Berlin"))

    berlin = [last := next_cron(last, minute=30, second=0, microsecond=0) for _ in range(3)]
    last = before
    utc = [last := next_cron(last, minute=30, second=0, microsecond=0) for _ in range(3)]

    def gaps(runs: list[datetime]) -> list[timedelta]:
        moments = [run.astimezone(UTC) for run in runs]
        return [later - earlier for earlier, later in itertools.pairwise(moments)]

    assert max(gaps(berlin)) == timedelta(hours=2)
    assert max(gaps(utc)) == timedelta(hours=1)


def test_a_fresh_install_can_talk_to_postgresql() -> None:
    """SQLAlchemy 2.1 brings no greenlet by itself, and fails at its first import without."""
    project = tomllib.loads((ROOT / "arqonce" / "pyproject.toml").read_text())["project"]
    locked = (ROOT / "requirements" / "runtime.txt").read_text()

    assert any(
        dependency.startswith("sqlalchemy[asyncio]") for dependency in project["optional-dependencies"]["worker"]
    )
    assert re.search(r"^greenlet==", locked, re.MULTILINE)
