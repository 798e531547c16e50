"""Describes what the figures depend on: the machine, the servers and the versions of all libraries."""

import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from bench.contenders import CONTENDERS
from bench.processes import python_of
from bench.servers import Observer

_OWN = ("sqlalchemy", "asyncpg", "redis", "hiredis", "pydantic", "uvloop", "arq")
_VERSIONS = """
import sys
from importlib.metadata import version
print(*[f"{name} {version(name)}" for name in sys.argv[1:]], sep=", ")
"""
_FOREIGN = {
    "bench": ("saq", "streaq", "coredis", "procrastinate", "psycopg", "pgqueuer"),
    "bench-taskiq": ("taskiq", "taskiq-redis", "redis"),
}


async def about(observer: Observer) -> dict[str, str]:
    """Return these facts as text, by title."""
    return {
        "Machine": f"{_processor()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}",
        "Python": sys.version.split()[0],
        "PostgreSQL": str(await observer.postgres.fetchval("SHOW server_version")),
        "Valkey": str((await observer.redis.info("server")).get("valkey_version", "?")),
        "Libraries": ", ".join(f"{name} {version(name)}" for name in _OWN),
        **{f"Environment {name}": _foreign_versions(name, packages) for name, packages in _FOREIGN.items()},
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _foreign_versions(environment: str, packages: tuple[str, ...]) -> str:
    contender = next(contender for contender in CONTENDERS.values() if contender.environment == environment)
    command = [python_of(contender), "-c", _VERSIONS, *packages]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "not installed: make bench installs it"
