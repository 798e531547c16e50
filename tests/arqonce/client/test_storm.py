"""Callers share one client while their network fails at random: seconds here, a minute with ``make storm``."""

import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from redis.asyncio import Redis

pytestmark = pytest.mark.usefixtures("starts_processes")

PROGRAM = Path(__file__).parent / "programs" / "storm.py"
KINDS = {
    "threads": [],
    "threads that are killed": ["--kill", "--switch", "1e-5"],
    "tasks that are cancelled": ["--tasks", "--kill"],
}


def _start(port: int, *options: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, str(PROGRAM), str(port), "--seconds", "1.5", "--seed", "1", "--silence", "1", *options],
        env=os.environ | {"PYTHONPATH": str(Path.cwd())},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def test_each_call_ends_in_its_answer_or_in_one_of_our_errors(redis: Redis, valkey_url: str) -> None:
    """With 50 callers each: no other error, no answer of another call, no call that hangs, no result that is lost."""
    assert redis is not None  # it has emptied it
    port = urlsplit(valkey_url).port or 0

    storms = {kind: _start(port, *options) for kind, options in KINDS.items()}
    told = {kind: storm.communicate(timeout=60)[0] for kind, storm in storms.items()}

    assert {kind: storm.returncode for kind, storm in storms.items()} == dict.fromkeys(KINDS, 0), told
