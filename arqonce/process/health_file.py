"""Reads a worker's health file. Imports hardly anything, because containers check it twice a minute."""

import json
import os
import sys
import time
from pathlib import Path
from typing import NoReturn

STALE_AFTER = 20.0
"""How old the file may be, in seconds. A busy event loop may miss a few updates; a hanging one misses more."""

_BEGINNING = b'{"pid":'
"""Of every health file."""

_SILENT = "does not answer the worker"


def named_file() -> Path | None:
    """Return what WORKER_HEALTH_FILE names, as a variable or a secret file.

    ``None`` if there is no plain answer: quotes, a device, nothing; then the whole settings say what is meant or wrong.
    """
    text = os.environ.get("WORKER_HEALTH_FILE", "").strip()
    if not text:
        secret = Path(os.environ.get("SECRETS_DIR") or "/run/secrets", "worker_health_file")
        try:
            text = secret.read_text().strip()
        except (OSError, UnicodeDecodeError):
            return None
    is_plain = text[:1] not in {"", "'", '"'} and (os.path.isfile(text) or not os.path.lexists(text))  # noqa: PTH113 - quick, never raises
    return Path(text) if is_plain else None


def is_foreign(file: Path) -> bool:
    """Return whether there is a file that no worker has written: it is not to be replaced.

    Raises:
        OSError: it cannot be read.
    """
    if not file.exists():
        return False
    with file.open("rb") as opened:
        return opened.read(len(_BEGINNING)) not in {b"", _BEGINNING}


def exit_with_health(file: Path) -> NoReturn:
    """Print the problems that ``read_health`` returns and exit with 1; without problems exit with 0."""
    problems = read_health(file)
    print(*(problems or ["well"]), sep="\n", file=sys.stderr if problems else sys.stdout)
    sys.exit(1 if problems else 0)


def process_file(file: Path, number: int) -> Path:
    """Return the health file of the supervised process ``number``, from 1, if ``file`` is the supervisor's."""
    return file.with_name(f"{file.name}.{number}")


def remove_health(file: Path) -> None:
    """Remove a health file if that is possible; one that stays, as on a disk that was made read-only, becomes stale."""
    try:  # noqa: SIM105 - contextlib would have to be loaded
        file.unlink(missing_ok=True)
    except OSError:
        pass


def read_health(file: Path) -> list[str]:
    """Return the problems of the worker or supervisor that writes ``file``; an empty list if it is healthy."""
    try:
        state = json.loads(file.read_text())
        age, servers = time.time() - float(state["time"]), dict(state["servers"])
        processes = range(1, int(state.get("processes", 0)) + 1)
        problems = [str(problem) for problem in state.get("problems", [])]
    except IsADirectoryError:
        return [f"{file} is a folder: set WORKER_HEALTH_FILE to a file in it, the same for the worker"]
    except (OSError, ValueError, KeyError, TypeError):
        return [f"there is no health file {file}: the worker is starting, has ended, or has no WORKER_HEALTH_FILE"]
    if abs(age) > STALE_AFTER:
        since = f"for {age:.0f} s" if age > 0 else "since the clock was set back"
        return [f"the worker has not reported {since}: it hangs or was killed"]
    reasons = dict(state.get("reasons", {}))
    ill = [f"{name} {reasons.get(name, _SILENT)}" for name, is_well in servers.items() if not is_well]
    ill += problems
    return ill + [f"process {one}: {told}" for one in processes for told in read_health(process_file(file, one))]
