"""What can be said of the contenders without their libraries, and one small run of ours."""

import ast
import asyncio
from pathlib import Path

import pytest

import bench
from bench.contenders import CONTENDERS, Contender
from bench.drain import Drained, drain
from bench.parts import Plan, measure_drain
from bench.results import Results
from bench.servers import BenchServers, open_bench_servers, open_observer
from bench.stage import Stage
from bench.target import Target

_ROOT = Path(bench.__file__).parent.parent


@pytest.mark.parametrize("contender", CONTENDERS.values(), ids=CONTENDERS.keys())
def test_each_contender_tells_its_settings_and_has_a_worker_and_a_producer(contender: Contender) -> None:
    """Nobody can judge a figure without the settings that it was measured with."""
    module = ast.parse((_ROOT / contender.module.replace(".", "/")).with_suffix(".py").read_text())
    functions = {node.name for node in module.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}

    assert "Settings: " in (ast.get_docstring(module) or "")
    assert {"work", "open_producer"} <= functions


def test_the_environment_of_each_contender_is_locked() -> None:
    """What is compared is written down with its hashes."""
    locked = {name: (_ROOT / f"requirements/{name}.txt").read_text() for name in ("bench", "bench-taskiq")}

    missing = [
        contender.name
        for contender in CONTENDERS.values()
        if contender.environment != "own" and f"\n{contender.package}==" not in f"\n{locked[contender.environment]}"
    ]

    assert not missing


@pytest.mark.usefixtures("starts_processes")
def test_a_run_of_ours_is_verified_and_a_contender_that_cannot_start_is_told_of(tmp_path: Path) -> None:
    """Two hundred jobs are two hundred rows and receipts; what fails stops nothing else."""
    with open_bench_servers(tmp_path) as servers:
        run, results = asyncio.run(_run_ours(servers, tmp_path))

    assert run.jobs == 200
    assert run.rate > 0
    assert results.measured == {}
    assert "ended" in results.failures["create_user, SAQ"]


async def _run_ours(servers: BenchServers, directory: Path) -> tuple[Drained, Results]:
    async with open_observer(servers) as observer:
        counter = directory / "counter"
        counter.write_bytes(bytes(8))
        stage = Stage(servers, observer, directory, Target(servers.postgres.url, servers.valkey.url, str(counter)))
        run = await drain(stage, CONTENDERS["ours"], 200)
        results = Results()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("bench.processes.python_of", lambda _: "/bin/false")
            await measure_drain(stage, Plan(("saq",), rounds=1, samples=1), results)
    return run, results
