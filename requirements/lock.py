"""Writes the locked requirements: every dependency with its hashes, for all platforms and Pythons 3.11 to 3.14.

Versions stay as they are where they may; ``--upgrade``, or ``--upgrade-package NAME``, takes later ones. The library
lies in this repository and on no index: its dependencies are locked, it is not.
"""

import subprocess
import sys
from pathlib import Path

_HERE = Path(__file__).parent
_COMPILE = [
    "pip",
    "compile",
    "--quiet",
    "--universal",
    "--python-version",
    "3.11",
    "--generate-hashes",
    "--no-emit-index-url",
    "--no-emit-package",
    "arqonce",
    "--no-header",
]
_LIBRARY = "arqonce/pyproject.toml"


def lock(output: str, *options: str, constraint: str | None = None) -> None:
    """Resolve and write one file, in which what is in the ``constraint`` too has the same version."""
    limits = [] if constraint is None else ["--constraint", f"requirements/{constraint}"]
    command = [sys.executable, "-m", "uv", *_COMPILE, *sys.argv[1:], *options, *limits]
    subprocess.run([*command, "--output-file", f"requirements/{output}"], check=True, cwd=_HERE.parent)


if __name__ == "__main__":
    lock("runtime.txt", "pyproject.toml", "--extra", "web", "--extra", "console")
    lock("dev.txt", "pyproject.toml", "--all-extras", "--group", "dev", constraint="runtime.txt")
    lock("producer.txt", _LIBRARY, "--group", f"{_LIBRARY}:producer", constraint="dev.txt")
    lock("producer-tests.txt", _LIBRARY, "--group", f"{_LIBRARY}:producer-tests", constraint="dev.txt")
    for version in (5, 6, 7, 8):
        lock(f"redis-{version}.txt", "--group", f"{_LIBRARY}:redis-{version}")
    lock("pytest-asyncio-0.txt", "--group", f"{_LIBRARY}:pytest-asyncio-0")
    lock("fuzz.txt", "--group", "fuzz")
    lock("docs.txt", "--group", "docs")
    lock("bench.txt", "pyproject.toml", "--group", "bench", constraint="runtime.txt")
    lock("bench-taskiq.txt", "--group", "bench-taskiq")
