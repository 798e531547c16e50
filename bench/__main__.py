"""The benchmark: ``make bench``, ``make bench-quick``, or parts of it by ``python -m bench``."""

import argparse
import asyncio
import sys
import tempfile
import time
import traceback
from pathlib import Path

from bench.about import about
from bench.chart import bars, draw
from bench.contenders import CONTENDERS
from bench.growing import measure_growth
from bench.idle_fleet import measure_idle_fleet
from bench.loaded import measure_loaded
from bench.many import measure_many
from bench.parts import Plan, measure_drain, measure_latency, measure_no_op, say
from bench.peers import install_peers
from bench.report import report
from bench.results import Results
from bench.servers import BenchServers, open_bench_servers, open_observer
from bench.stage import Stage
from bench.start import measure_start
from bench.target import Target

_PARTS = {
    "drain": measure_drain,
    "latency": measure_latency,
    "noop": measure_no_op,
    "growth": measure_growth,
    "many": measure_many,
    "loaded": measure_loaded,
    "start": measure_start,
    "idle": measure_idle_fleet,
}

_QUICK = ("ours", "ours-session", "ours-shared", "arq-tuned", "pgqueuer", "pgqueuer-sets", "no-queue-10", "asyncpg")
"""Contenders of the quick benchmark."""

_MOST_PROCESSES = 64

_CHART_TITLE = "create_user: open a session, insert a user, commit"


def main() -> None:
    """Measure, print the report, and write the requested files."""
    arguments = _arguments()
    started = time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="users-worker-bench-") as folder,
        open_bench_servers(Path(folder)) as servers,
    ):
        results = asyncio.run(_measure(servers, Path(folder), arguments))
    results.about["Duration"] = f"{(time.monotonic() - started) / 60:.1f} minutes"
    text = report(results, arguments.command)
    sys.stdout.write(text)
    if arguments.output:
        arguments.output.mkdir(parents=True, exist_ok=True)
        results.write(arguments.output / "benchmarks.json")
        (arguments.output / "benchmarks.md").write_text(text)
        if shown := bars(results):
            note = f"jobs per second, one worker process, medians; {results.about['Machine']}"
            (arguments.output / "benchmarks.svg").write_text(draw(shown, title=_CHART_TITLE, note=note))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--only", default=",".join(_PARTS), help="parts, separated by commas")
    parser.add_argument("--contenders", help="names, separated by commas; all by default: " + ", ".join(CONTENDERS))
    parser.add_argument("--rounds", type=int, default=4, help="measured rounds, after one warm-up round")
    parser.add_argument("--samples", type=int, default=300, help="latency samples of each contender")
    parser.add_argument("--quick", action="store_true", help="few contenders, one round, small numbers")
    parser.add_argument("--output", type=Path, help="folder for benchmarks.md, benchmarks.svg and benchmarks.json")
    parser.add_argument("--command", default="python -m bench", help="the command that the report names")
    return parser.parse_args()


def _plan(arguments: argparse.Namespace) -> Plan:
    everybody = _QUICK if arguments.quick else tuple(CONTENDERS)
    names = tuple(arguments.contenders.split(",")) if arguments.contenders else everybody
    if unknown := set(names) - CONTENDERS.keys():
        sys.exit(f"unknown contenders: {', '.join(sorted(unknown))}; there are {', '.join(CONTENDERS)}")
    if arguments.quick:
        return Plan(names, rounds=1, samples=40, is_quick=True)
    return Plan(names, rounds=arguments.rounds, samples=arguments.samples)


async def _measure(servers: BenchServers, folder: Path, arguments: argparse.Namespace) -> Results:
    results, plan = Results(), _plan(arguments)
    counter = folder / "counter"
    counter.write_bytes(bytes(8 * _MOST_PROCESSES))
    async with open_observer(servers) as observer:
        results.about = await about(observer)
        stage = Stage(servers, observer, folder, Target(servers.postgres.url, servers.valkey.url, str(counter)))
        install_peers(stage.target)
        for part in arguments.only.split(","):
            started = time.monotonic()
            try:
                await _PARTS[part](stage, plan, results)
            except Exception as error:  # noqa: BLE001 - so that the results of other parts are not lost
                traceback.print_exc()
                results.fail(part, "the rest of this part", f"{type(error).__name__}: {error}")
            say(f"{part}: {time.monotonic() - started:.0f} s")
    return results


if __name__ == "__main__":
    main()
