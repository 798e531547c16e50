"""The worker and the test of docs/tracing.md: a trace reaches the attempt through outbox, relay and Redis."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce import enqueue_in, incoming_trace
from jobs import CreateUser
from tests import warm
from tests.arqonce.tracing.recording import TRACE
from tests.docs.blocks import ROOT, blocks_in

WORKER, TEST = blocks_in("docs/tracing.md")


@pytest.mark.usefixtures("starts_processes", "redis")
async def test_the_worker_of_the_page_continues_a_trace(
    environment: dict[str, str], sessions: async_sessionmaker[AsyncSession], tmp_path: Path
) -> None:
    """It sends its last spans before it ends; each process is an instance of its own."""
    (tmp_path / str(WORKER.file)).write_text(WORKER.code)
    async with sessions.begin() as session:
        with incoming_trace(TRACE):
            await enqueue_in(session, CreateUser(name="Jane"), key="k1")

    done = warm.run(
        [sys.executable, str(tmp_path / str(WORKER.file)), "run", "--burst"],
        environment | {"PYTHONPATH": f"{ROOT}:{tmp_path}", "WORKER_LOG_FORMAT": "json"},
        cwd=tmp_path,
    )

    assert done.returncode == 0, done.stderr
    (span,) = _spans(done.stdout)
    assert (span["name"], span["kind"]) == ("process arq:queue", "SpanKind.CONSUMER")
    assert span["attributes"]["arqonce.job.outcome"] == "succeeded"
    assert TRACE["traceparent"].split("-")[1:3] == [span["context"]["trace_id"][2:], span["parent_id"][2:]]
    assert {"service.name", "service.instance.id"} <= set(span["resource"]["attributes"])


def _spans(text: str) -> list[dict[str, Any]]:
    """Return the objects that are written one after the other, each over several lines."""
    found, reader = [], json.JSONDecoder()
    while (start := text.find("{\n")) >= 0:
        span, length = reader.raw_decode(text[start:])
        found.append(span)
        text = text[start + length :]
    return found


def test_the_test_of_the_page_passes(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in another project."""
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    pytester.makeini("[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n")
    (pytester.path / str(TEST.file)).write_text(TEST.code)

    warm.run_pytest(pytester).assert_outcomes(passed=1)
