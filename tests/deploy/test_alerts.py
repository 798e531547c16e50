"""The alert rules and the dashboard: each rule fires in a real incident, and not before it."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from redis.asyncio import Redis
from sqlalchemy import text

from arqonce import JobClient, enqueue_in
from arqonce.metrics.families import BY_NAME, FAMILIES
from arqonce.testing.worker_process import WorkerProcess
from jobs import CreateUser
from tests.arqonce.operations.kinds import NAME, Answer, Block, Linger
from tests.arqonce.operations.scrape import Figures, port_of, scrape, value
from tests.arqonce.process.test_supervisor import _children
from tests.conftest import StartWorker, wait_until
from tests.docs.test_pages import _anchors
from tests.faults.observe import Sessions
from tests.faults.proxy import Proxy
from tests.programs import require

SOON = timedelta(seconds=30)
DEPLOY = Path(__file__).parents[2] / "deploy"
RULES = DEPLOY / "prometheus" / "alerts.yml"
DASHBOARD = DEPLOY / "grafana" / "arqonce.json"

CALM = 20
"""Minutes before an incident."""

LASTS = 25
"""Minutes of the incident: what was scraped last stays as it was."""

CLOCK = "import time; now = time.time; time.time = lambda: now() + 10\n"

Scrape = Mapping[str, Figures]
"""What each process showed at one time, by its instance."""


def rules() -> list[dict[str, Any]]:
    """Return the rules."""
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found


def names_in(expression: str) -> set[str]:
    """Return the names of metrics in an expression."""
    without_labels = re.sub(r"(?:by|on) \([^)]*\)", "", expression)
    return set(re.findall(r"\b(?:arqonce|process|http)_[a-z_]+", without_labels))


def known(name: str) -> bool:
    """Whether a metric has this name, or a histogram shows it."""
    family = BY_NAME.get(re.sub(r"_(bucket|sum|count)$", "", name))
    return name in BY_NAME or (family is not None and family.kind == "histogram")


def expressions() -> list[str]:
    """Return the expressions of the dashboard."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return [target["expr"].replace("$__rate_interval", "5m") for panel in panels for target in panel.get("targets", [])]


def test_rules_and_dashboard_name_metrics_that_exist() -> None:
    """And labels. The dashboard shows every metric; each rule has a paragraph of the runbook."""
    labels = {label for family in FAMILIES for label in family.labels} | {"process", "instance", "job", "le"}
    every = [*expressions(), *(rule["expr"] for rule in rules())]

    assert [name for expression in every for name in names_in(expression) if not known(name)] == []
    grouped = [group for expression in every for group in re.findall(r"(?:by|on) \(([^)]*)\)", expression)]
    assert {label.strip() for group in grouped for label in group.split(",")} - {""} <= labels
    shown = {re.sub(r"_(bucket|sum|count)$", "", name) for expression in expressions() for name in names_in(expression)}
    assert {family.name for family in FAMILIES} == shown
    for rule in rules():
        page, _, anchor = rule["annotations"]["runbook"].partition("#")
        assert anchor in _anchors(page), anchor


@pytest.mark.usefixtures("starts_processes")
def test_prometheus_reads_rules_and_expressions(tmp_path: Path) -> None:
    """By its own checker."""
    require("promtool")
    recorded = [{"record": f"panel:{number}", "expr": expression} for number, expression in enumerate(expressions())]
    (tmp_path / "panels.yml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": recorded}]}))

    done = subprocess.run(
        ["promtool", "check", "rules", str(RULES), str(tmp_path / "panels.yml")],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert len(recorded) > 40


class Incidents:
    """Real processes, whose figures are scraped before and during each incident."""

    def __init__(self) -> None:
        """Watch none yet."""
        self.processes: dict[str, WorkerProcess] = {}
        self.recorded: dict[str, list[tuple[int, Scrape]]] = {}
        self._ports: dict[str, int] = {}

    def watch(self, instance: str, process: WorkerProcess) -> None:
        """Scrape this process, too."""
        self.processes[instance] = process
        self._ports[instance] = port_of(process)

    def forget(self, instance: str) -> WorkerProcess:
        """Scrape it no more."""
        del self._ports[instance]
        return self.processes.pop(instance)

    def scrape(self) -> Scrape:
        """Return what all show now."""
        return {instance: scrape(port) for instance, port in self._ports.items()}

    def _whole_scrape(self) -> Scrape:
        """Return what all show as soon as both servers have answered in time; a busy machine may be too slow."""
        found: list[Scrape] = []

        def is_whole() -> bool:
            found.append(self.scrape())
            names = ("arqonce_dead_letters", "arqonce_queue_waiting")
            return all(value(figures, name) is not None for figures in found[-1].values() for name in names)

        wait_until(is_whole, 30)
        return found[-1]

    def has(self, instance: str, name: str, enough: float, **labels: str) -> Callable[[], bool]:
        """Return whether a figure is at least so large, when called."""
        return lambda: (value(scrape(self._ports[instance]), f"arqonce_{name}", **labels) or 0) >= enough

    @asynccontextmanager
    async def incident(self, alert: str) -> AsyncIterator[list[tuple[int, Scrape]]]:
        """Record an incident that is to raise this alert. The block may add scrapes, and for how many minutes each."""
        frames = [(CALM, await asyncio.to_thread(self._whole_scrape))]
        yield frames
        last = self.scrape if alert == "ArqonceServerAway" else self._whole_scrape
        frames.append((LASTS, await asyncio.to_thread(last)))
        self.recorded[alert] = frames


async def _wait(is_so: Callable[[], bool]) -> None:
    await asyncio.to_thread(wait_until, is_so, 30)


async def test_each_rule_fires_in_its_incident_and_not_before(
    start_worker: StartWorker, client: JobClient, sessions: Sessions, postgres_proxy: Proxy, tmp_path: Path
) -> None:
    """All figures are real; minutes pass only in promtool's clock."""
    require("promtool")
    fleet = (sys.executable, "-m", "worker", "run", "--processes", "2")
    options = {"OPS_PORT": "0", "WORKER_REGISTRY": NAME, "WORKER_LEASE": "1s", "WORKER_HANG_LIMIT": "3s"}
    seen = Incidents()
    seen.watch("worker", start_worker(*fleet, **options, **postgres_proxy.environment))
    seen.watch("relay", start_worker(sys.executable, "-m", "worker", "relay", OPS_PORT="0"))
    await _wait(seen.has("relay", "queue_served", 1))

    await _jobs_fail(seen, client)
    await _loops_are_blocked(seen, client, tmp_path)
    await _processes_end(seen)
    await _servers_are_away(seen, client._redis, postgres_proxy)
    await _nobody_serves(seen, client, client._redis)
    await _promises_are_overdue(seen, client._redis, sessions)
    await _a_clock_is_wrong(seen, start_worker, tmp_path)

    assert set(seen.recorded) == {rule["alert"] for rule in rules()}
    (tmp_path / "test.yml").write_text(yaml.safe_dump(_test_file(seen.recorded)))
    done = await asyncio.to_thread(
        subprocess.run, ["promtool", "test", "rules", str(tmp_path / "test.yml")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


async def _jobs_fail(seen: Incidents, client: JobClient) -> None:
    async with seen.incident("ArqonceDeadLetters") as frames:
        letters = value(frames[0][1]["worker"], "arqonce_dead_letters") or 0
        await client.enqueue_many([Answer(how="fail") for _ in range(3)])
        await _wait(seen.has("worker", "jobs_dead_total", 3, code="KeyError"))
        await _wait(seen.has("worker", "dead_letters", letters + 3))
    seen.recorded["ArqonceJobsFail"] = seen.recorded["ArqonceDeadLetters"]


async def _loops_are_blocked(seen: Incidents, client: JobClient, folder: Path) -> None:
    async with seen.incident("ArqonceLoopBlocked"):
        await (await client.enqueue(Block(seconds=2, marker=str(folder / "short")))).result(timeout=SOON)
        await _wait(seen.has("worker", "event_loop_longest_block_seconds", 1.5))

    async with seen.incident("ArqonceLeasesLost"):
        lingering = await client.enqueue(Linger(seconds=3, folder=str(folder)))
        await _wait(lambda: len(lingerers(folder)) == 1)
        (first,) = lingerers(folder)
        os.kill(first, signal.SIGSTOP)
        await _wait(lambda: len(lingerers(folder)) == 2)
        os.kill(first, signal.SIGCONT)
        await lingering.result(timeout=SOON)
        await _wait(seen.has("worker", "leases_lost_total", 1))

    async with seen.incident("ArqonceHang"):
        await (await client.enqueue(Block(seconds=60, marker=str(folder / "long")))).result(timeout=SOON)
        await _wait(seen.has("worker", "process_restarts_total", 1, reason="hung"))


async def _processes_end(seen: Incidents) -> None:
    async with seen.incident("ArqonceRestarts"):
        for times in range(1, 4):
            await _wait(seen.has("worker", "processes", 2))
            os.kill(_children(seen.processes["worker"])[-1], signal.SIGKILL)
            await _wait(seen.has("worker", "process_restarts_total", times, reason="signal"))
        await _wait(seen.has("worker", "processes", 2))


async def _servers_are_away(seen: Incidents, redis: Redis, postgres: Proxy) -> None:
    async with seen.incident("ArqonceRedisEmptied"):
        await redis.flushall()
        await _wait(seen.has("relay", "redis_epochs_total", 1))
    await _wait(seen.has("relay", "queue_served", 1))

    async with seen.incident("ArqonceServerAway"):
        postgres.is_closed = True
        postgres.cut()
        await _wait(lambda: not seen.has("worker", "server_up", 1, server="postgresql")())
    postgres.heal()
    await _wait(seen.has("worker", "server_up", 2, server="postgresql"))  # of both processes


async def _nobody_serves(seen: Incidents, client: JobClient, redis: Redis) -> None:
    async with seen.incident("ArqonceQueueUnserved"):
        seen.forget("worker").stop()
        await _wait(lambda: not seen.has("relay", "queue_served", 1)())

    async with seen.incident("ArqonceQueueGrows") as frames:
        for _ in range(3):
            waiting = await redis.zcard("arq:queue")
            await client.enqueue_many([CreateUser(name=f"User {at}") for at in range(1200)])
            await _wait(seen.has("relay", "queue_waiting", waiting + 1200))
            frames.append((8, await asyncio.to_thread(seen.scrape)))

    async with seen.incident("ArqonceJobsWaitLong"):
        ids = await redis.zrange("arq:queue", 0, 0)
        await redis.zincrby("arq:queue", -600_000, ids[0])  # as if ten minutes had passed
        await _wait(seen.has("relay", "queue_oldest_waiting_seconds", 600))


async def _promises_are_overdue(seen: Incidents, redis: Redis, sessions: Sessions) -> None:
    async with seen.incident("ArqoncePromisesOverdue"):
        await redis.config_set("min-replicas-to-write", 1)  # as while a replica is away
        try:
            async with sessions.begin() as session:
                await enqueue_in(session, CreateUser(name="Jane"))
                await session.execute(text("UPDATE arqonce.outbox SET created_at = created_at - interval '1 minute'"))
                await session.execute(text("UPDATE arqonce.outbox SET due_at = created_at"))
            await _wait(seen.has("relay", "promised_overdue", 1))
        finally:
            await redis.config_set("min-replicas-to-write", 0)


async def _a_clock_is_wrong(seen: Incidents, start_worker: StartWorker, folder: Path) -> None:
    async with seen.incident("ArqonceClock"):
        (folder / "sitecustomize.py").write_text(CLOCK)
        path = os.pathsep.join([str(folder), str(DEPLOY.parent)])
        seen.watch("late", start_worker(sys.executable, "-m", "worker", "relay", OPS_PORT="0", PYTHONPATH=path))


def lingerers(folder: Path) -> list[int]:
    """Return the ids of the processes that have begun to linger."""
    return [int(file.name.partition("-")[2]) for file in folder.glob("lingers-*")]


def _test_file(recorded: Mapping[str, list[tuple[int, Scrape]]]) -> dict[str, Any]:
    """Return promtool's tests: of each incident's alert, and at the very beginning of all."""
    tests = [_test(alert, frames) for alert, frames in recorded.items()]
    tests[0]["promql_expr_test"].append({"expr": "ALERTS", "eval_time": f"{CALM - 1}m", "exp_samples": []})
    return {"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": tests}


def _test(alert: str, frames: list[tuple[int, Scrape]]) -> dict[str, Any]:
    """Return the test that the alert is silent while all is calm, and then fires, at whatever minute."""
    fired = f'group by (alertname) (max_over_time(ALERTS{{alertname="{alert}",alertstate="firing"}}[2h]))'
    end = sum(minutes for minutes, _ in frames) - 1
    found = [{"labels": f'{{alertname="{alert}"}}', "value": 1}]
    return {
        "name": alert,
        "interval": "1m",
        "input_series": list(_series(frames)),
        "promql_expr_test": [
            {"expr": fired, "eval_time": f"{CALM - 1}m", "exp_samples": []},
            {"expr": fired, "eval_time": f"{end}m", "exp_samples": found},
        ],
    }


def _series(frames: list[tuple[int, Scrape]]) -> Iterator[dict[str, str]]:
    used = {name for rule in rules() for name in names_in(rule["expr"])}
    keys = {
        (instance, key)
        for _, found in frames
        for instance, figures in found.items()
        for key in figures
        if key[0] in used
    }
    for instance, key in sorted(keys, key=str):
        name, labels = key
        all_labels = {**dict(labels), "instance": instance, "job": "arqonce"}
        written = ",".join(f"{label}={json.dumps(text)}" for label, text in sorted(all_labels.items()))
        values = [
            "_" if (number := found.get(instance, {}).get(key)) is None else repr(number)
            for minutes, found in frames
            for _ in range(minutes)
        ]
        yield {"series": f"{name}{{{written}}}", "values": " ".join(values)}
