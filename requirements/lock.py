"""Writes the locked requirements: every dependency with its hashes, for all platforms and Pythons 3.11 to 3.14."""

import subprocess
import sys
from pathlib import Path

_HERE = Path(__file__).parent
_COMPILE = [
    "pip",
    "compile",
    "--quiet",
    "--upgrade",
    "--universal",
    "--python-version",
    "3.11",
    "--generate-hashes",
    "--no-emit-index-url",
    "--no-header",
]


def lock(output: str, *options: str) -> None:
    """Resolve and write one file; the options say what beyond the runtime dependencies is in it."""
    command = [sys.executable, "-m", "uv", *_COMPILE, *options, "--output-file", f"requirements/{output}"]
    subprocess.run(command, check=True, cwd=_HERE.parent)


if __name__ == "__main__":
    lock("runtime.txt", "pyproject.toml", "--extra", "web")
    lock("dev.txt", "pyproject.toml", "--all-extras", "--group", "dev", "--constraint", "requirements/runtime.txt")
    constraint = ("--constraint", "requirements/runtime.txt")
    lock("producer.txt", "producer/pyproject.toml", "--group", "producer/pyproject.toml:service", *constraint)
    tests = ("--group", "producer/pyproject.toml:service-tests", "--constraint", "requirements/dev.txt")
    lock("producer-tests.txt", "producer/pyproject.toml", *tests)
    lock("fuzz.txt", "--group", "fuzz")
    lock("docs.txt", "--group", "docs")
    lock("bench.txt", "pyproject.toml", "--group", "bench", "--constraint", "requirements/runtime.txt")
    lock("bench-taskiq.txt", "--group", "bench-taskiq")
