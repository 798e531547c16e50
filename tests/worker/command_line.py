"""Runs the command line in processes, as a shell does."""

import subprocess
import sys
from dataclasses import dataclass

from tests import warm


@dataclass(frozen=True)
class CommandLine:
    """Runs ``users-worker`` with the servers of the tests."""

    environment: dict[str, str]

    def __call__(self, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        """Run to the end."""
        command = [sys.executable, "-m", "worker", *arguments]
        return warm.run(command, self.environment | {"NO_COLOR": "1", "COLUMNS": "120"} | variables, timeout=120)
