"""Creates the tables of the peers that queue in PostgreSQL, with their own tools in their own environments."""

import os
import subprocess
from pathlib import Path

from bench.contenders import CONTENDERS
from bench.processes import python_of
from bench.target import Target

_INSTALL = """
import asyncio, importlib, sys
from bench.target import Target
asyncio.run(importlib.import_module(sys.argv[1]).install(Target.from_environment()))
"""


def install_peers(target: Target) -> None:
    """Create the tables of procrastinate and PgQueuer. A failure shows when they run."""
    environment = os.environ | target.environment() | {"PYTHONPATH": str(Path(__file__).parent.parent)}
    for name in ("procrastinate", "pgqueuer"):
        contender = CONTENDERS[name]
        if Path(python_of(contender)).exists():
            command = [python_of(contender), "-c", _INSTALL, contender.module]
            subprocess.run(command, env=environment, check=False)
