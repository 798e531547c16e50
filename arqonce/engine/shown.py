"""What a worker says of itself to operators (``connection.presence``)."""

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from arqonce.connection.presence import MOST_KINDS, MOST_SHOWN
from arqonce.engine.engine import Engine
from arqonce.versions import version_of


class Shown:
    """A worker of this process."""

    def __init__(self, kinds: Sequence[str], *, slots: int) -> None:
        """Describe a worker that has started now."""
        self._constant = {
            "version": version_of("arqonce"),
            "kinds": sorted(kinds)[:MOST_KINDS],
            "slots": slots,
            "started": time.time(),
        }

    def now(self, engine: Engine | None) -> dict[str, Any]:
        """Return what it does now. Times are by its clock, in seconds since 1970."""
        now, jobs = time.time(), [] if engine is None else engine.runs.running.shown(MOST_SHOWN)
        return self._constant | {
            "state": "working" if engine is None or not engine.is_quiet else "drained",
            "running": 0 if engine is None else len(engine.runs.running.tasks),
            "jobs": [{"id": job_id, "job_name": name, "since": now - seconds} for job_id, name, seconds in jobs],
            "rss": _resident_bytes(),
        }


def _resident_bytes() -> int | None:
    with suppress(OSError):  # not Linux
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return None
