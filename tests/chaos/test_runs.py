"""Whole runs: all faults at once break nothing, and each mutant breaks what it should."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from chaos.plan import FAULTS
from tests.conftest import wait_until

pytestmark = pytest.mark.usefixtures("starts_processes")

_ROOT = Path(__file__).parent.parent.parent


def _command(module: str, arguments: str) -> list[str]:
    return [sys.executable, "-m", module, *arguments.split()]


def _run(module: str, arguments: str) -> "subprocess.CompletedProcess[str]":
    environment = os.environ | {"CHAOS_WARM_STARTS": "1"}
    return subprocess.run(
        _command(module, arguments), cwd=_ROOT, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.timeout(240)
@pytest.mark.parametrize(("jobs", "seconds"), [(600, 9), (1500, 24)], ids=["some jobs", "more jobs"])
def test_all_faults_at_once_break_no_promise(jobs: int, seconds: int) -> None:
    """Nothing is lost, nothing happens twice, and every process ends as it was told to."""
    run = _run("chaos", f"--seed 20 --jobs {jobs} --duration {seconds} --drain 60")

    assert run.returncode == 0, run.stdout + run.stderr
    assert "BREACH" not in run.stdout
    assert int(run.stdout.split("batches")[1].split()[0]) > 0


_NEW_SERVERS = "pg-failover,pg-read-only,pg-disk-full,valkey-demote"


@pytest.mark.timeout(120)
@pytest.mark.parametrize(("seconds", "faults"), [(10, f"{_NEW_SERVERS},careless"), (3, "valkey-failover,standstill")])
def test_no_attempt_counts_for_outages_and_careless_neighbours(seconds: int, faults: str) -> None:
    """Nobody dies of them, nobody is told what the ledger does not know; and whoever stood still has lost nothing."""
    run = _run("chaos", f"--seed 2 --jobs 600 --duration {seconds} --drain 40 --lease 2 --faults {faults}")

    assert run.returncode == 0, run.stdout + run.stderr


_OF_NEIGHBOURS = ("BREACH attempts burnt by an outage", "BREACH dead without being poison")
"""What an innocent job shows that has met the connection of a careless one, in one attempt or in all."""

_CONTROLS: dict[str, tuple[str, str | tuple[str, ...]]] = {
    "receipt-apart": ("--jobs 500 --duration 3 --faults none", "BREACH took effect twice"),
    "receipts-apart": ("--jobs 2000 --duration 2 --faults none", "BREACH took effect twice"),
    "relay-blind": ("--jobs 300 --duration 8 --faults lock,valkey-wipe", "BREACH not done in time"),
    "guard-is-final": (
        "--jobs 1000 --duration 2 --faults standstill --route direct",
        "BREACH told what the ledger does not know",
    ),
    "no-letters": ("--jobs 300 --duration 2 --faults poison --route direct", "BREACH lost"),
    "receipts-of-effects-only": ("--jobs 300 --duration 2 --faults none --route direct", "BREACH in no book"),
    "blames-crashes": ("--jobs 300 --duration 2 --faults poison", "BREACH dead of what was not there"),
    "gate-always-open": ("--jobs 400 --duration 4 --faults postgres-stop", "BREACH attempts burnt by an outage"),
    "keeps-demoted-connections": ("--jobs 300 --duration 4 --faults valkey-demote", "BREACH not done in time"),
    "unclean-connections": ("--seed 3 --jobs 1500 --duration 4 --faults careless", _OF_NEIGHBOURS),
    "plain-arq": ("--jobs 300 --duration 4 --faults cut-postgres --route direct", "BREACH lost"),
}


_DRAIN = {"relay-blind": 15, "plain-arq": 15, "guard-is-final": 15}
"""Seconds for what shows in time only; the others are found at once, and need not wait for what they never do."""


@pytest.mark.parametrize("mutant", _CONTROLS)
def test_a_mutant_fails_for_its_own_reason(mutant: str) -> None:
    """A check that no broken worker fails would prove nothing."""
    arguments, reason = _CONTROLS[mutant]
    run = _run("chaos", f"--seed 1 --lease 1 --drain {_DRAIN.get(mutant, 4)} --mutant {mutant} {arguments}")

    assert run.returncode == 1, run.stdout + run.stderr
    assert any(words in run.stdout for words in ([reason] if isinstance(reason, str) else reason)), run.stdout


def test_the_relay_finds_out_that_redis_was_wiped() -> None:
    """What the blind one leaves undone, ours does in the same time."""
    run = _run("chaos", f"--seed 1 --lease 1 --drain 15 {_CONTROLS['relay-blind'][0]}")

    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize("names", [",", "kil"])
def test_faults_that_name_none_are_refused_with_their_names(names: str) -> None:
    """A run without faults would pass and prove nothing; who wants one says none."""
    run = _run("chaos", f"--jobs 1 --duration 1 --faults {names}")

    assert run.returncode == 2, run.stdout + run.stderr
    assert [fault for fault in FAULTS if fault not in run.stderr] == []


@pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc")
def test_ctrl_c_leaves_no_process_behind() -> None:
    """Neither servers nor workers, in the middle of the faults."""
    mark = f"chaos-test-{os.getpid()}-{time.monotonic_ns()}"
    process = subprocess.Popen(
        _command("chaos", "--seed 1 --jobs 100 --duration 60 --faults stop"),
        cwd=_ROOT, env=os.environ | {"CHAOS_MARK": mark}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_until(lambda: len(_marked(mark)) >= 4, 60)  # chaos and three workers
        servers = _children(process.pid)

        process.send_signal(signal.SIGINT)
        process.wait(60)

        assert process.returncode != 0
        wait_until(lambda: not _marked(mark) and not any(map(_is_running, servers)), 10)
    finally:
        process.kill()


def _marked(mark: str) -> list[int]:
    """Find the processes that have inherited the mark in their environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark.encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue  # it has ended
    return found


def _children(pid: int) -> list[int]:
    """Find all that descends from a process now."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(path.parent.name)] = int(path.read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue  # it has ended
    found, added = [pid], [pid]
    while added := [child for child, parent in parents.items() if parent in added]:
        found += added
    return found


def _is_running(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_jobs_of_killed_workers_start_elsewhere_within_the_lease() -> None:
    """And one look of the heir later; each takes effect once."""
    run = _run("chaos.recovery", "--kills 4 --lanes 2 --lease 2")

    assert run.returncode == 0, run.stdout + run.stderr
    worst = float(run.stdout.split("worst ")[1].split(" s")[0])
    assert worst < 2 + 1.5, run.stdout
