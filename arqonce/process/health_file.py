"""Reads the file in which a worker states its health. Imports hardly anything: containers ask twice a minute."""

import json
import sys
import time
from pathlib import Path
from typing import NoReturn

STALE_AFTER = 20.0
"""How old the file may be, in seconds: a few missed turns of a loop that is busy, not one that hangs."""

_SILENT = "does not answer the worker"


def exit_with_health(file: Path) -> NoReturn:
    """Print what is wrong with whoever writes ``file``, and exit with 1; with 0 if all is well."""
    problems = read_health(file)
    print(*(problems or ["well"]), sep="\n", file=sys.stderr if problems else sys.stdout)
    sys.exit(1 if problems else 0)


def process_file(file: Path, number: int) -> Path:
    """Return where the process of this number (from 1) reports, if a supervisor writes ``file``."""
    return file.with_name(f"{file.name}.{number}")


def read_health(file: Path) -> list[str]:
    """Return what is wrong with whoever writes ``file``, a worker or a supervisor of some; nothing if all is well."""
    try:
        state = json.loads(file.read_text())
        age, servers = time.time() - float(state["time"]), dict(state["servers"])
        processes = range(1, int(state.get("processes", 0)) + 1)
        problems = [str(problem) for problem in state.get("problems", [])]
    except (OSError, ValueError, KeyError, TypeError):
        return [f"there is no health file {file}: the worker is starting, has ended, or has no WORKER_HEALTH_FILE"]
    if age > STALE_AFTER:
        return [f"the worker has not reported for {age:.0f} s: it hangs or was killed"]
    reasons = dict(state.get("reasons", {}))
    ill = [f"{name} {reasons.get(name, _SILENT)}" for name, is_well in servers.items() if not is_well]
    ill += problems
    return ill + [f"process {one}: {told}" for one in processes for told in read_health(process_file(file, one))]
