"""What Sentry's integration for arq sends of a service in our worker: the same as of the service in arq's own."""

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import sentry_sdk
from arq.connections import RedisSettings, create_pool
from structlog.testing import capture_logs

from arqonce import decode, encode
from arqonce.arq.sentry import is_active
from tests import warm

HERE = Path(__file__).parent / "service"
ROOT = Path(__file__).parents[3]

ARQ = ("arq", "--burst", "watched.WorkerSettings")
OURS = ("arqonce", "run", "--burst", "--settings", "watched.WorkerSettings")

ALL = [("chain",), ("fail", 1), ("fail", 2), ("patient",), ("late",), ("gone",)]


def _seen(item: tuple[str, dict[str, Any]]) -> list[tuple[Any, ...]]:
    """Return what is to be equal of one item: names, outcomes, tags; no ids, no times and no requests to Redis."""
    kind, body = item
    if kind == "transaction":
        trace = body["contexts"]["trace"]
        spans = sorted((span["op"], span["description"]) for span in body["spans"] if span["op"] != "db.redis")
        name, told = body["transaction"], [body["transaction_info"], sorted(trace["data"]), sorted(body["tags"]), spans]
        return [(kind, name, trace["op"], trace["status"], trace["origin"], repr(told))]
    if kind == "event":
        errors = [(one["type"], one["mechanism"]) for one in body.get("exception", {}).get("values", [])]
        crumbs = [one["message"] for one in body["breadcrumbs"]["values"] if one.get("category") != "redis"]
        told = [errors, sorted(body["tags"]), body["extra"]["arq-job"], crumbs]
        return [(kind, body["transaction"], body.get("message"), body["level"], repr(told))]
    if kind == "span":
        ours = [one for one in body["items"] if one["attributes"]["sentry.op"]["value"] != "db.redis"]
        return [(kind, one["name"], one["status"], one["is_segment"], repr(sorted(one["attributes"]))) for one in ours]
    return [(kind, body["monitor_slug"], body["status"], repr(body.get("monitor_config")))]


def _sent(file: Path) -> Counter[tuple[Any, ...]]:
    return Counter(seen for line in file.read_text().splitlines() for seen in _seen(json.loads(line)))


async def _run(command: tuple[str, ...], jobs: list[Any], url: str, **env: str) -> Counter[tuple[Any, ...]]:
    """Run the jobs in a worker to its end; return what it would have sent."""
    pool = await create_pool(RedisSettings.from_dsn(url), job_serializer=encode, job_deserializer=decode)
    await pool.flushdb()
    for job in jobs:
        await pool.enqueue_job(*job)
    await pool.aclose()
    paths = os.pathsep.join([str(HERE), str(ROOT)])
    environment = env | {"SERVICE_REDIS": url, "PYTHONPATH": paths, "WORKER_SHUTDOWN_GRACE": "1s"}
    warm.run_elsewhere(*command, env=os.environ | environment, cwd=HERE)
    return _sent(Path(env["ENVELOPES"]))


@pytest.mark.usefixtures("starts_processes")
@pytest.mark.parametrize(
    ("lifecycle", "jobs"), [("static", ALL), ("stream", ALL), ("static", [("stop",)])], ids=["all", "stream", "stop"]
)
async def test_sentry_gets_what_it_gets_of_arq(
    lifecycle: str, jobs: list[Any], valkey_url: str, tmp_path: Path
) -> None:
    """Transactions, errors, spans and check-ins, each job in a scope of its own; also at a worker's end."""
    arq, ours = [
        await _run(command, jobs, valkey_url, TRACE_LIFECYCLE=lifecycle, ENVELOPES=str(tmp_path / command[0]))
        for command in (ARQ, OURS)
    ]

    assert ours == arq


@pytest.mark.parametrize(("version", "told"), [("1.45.1", 1), ("2.19.2", 1), ("2.20.0", 0), (sentry_sdk.VERSION, 0)])
def test_a_version_that_is_too_old_is_told(version: str, told: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its jobs run, unseen: with the oldest each of them would fail."""
    monkeypatch.setattr(sentry_sdk, "VERSION", version)

    with capture_logs() as logs:
        assert not is_active()

    assert [line["found"] for line in logs] == [version] * told
