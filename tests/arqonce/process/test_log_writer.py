"""Lines that a thread writes: in order, within limits, and nobody waits for their reader. No server is needed."""

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from arqonce.process import log_writer
from arqonce.process.log_writer import LogWriter


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Open a pipe that nobody reads."""
    reading, writing = os.pipe()
    yield reading, writing
    os.close(reading)
    log_writer.flush_log()  # or a thread that waits in its write would go on in the next pipe of this number
    os.close(writing)


def _record(level: int, text: str) -> logging.LogRecord:
    return logging.LogRecord("ours", level, __file__, 1, text, None, None)


def _read_until(reading: int, end: str) -> list[str]:
    """Read the pipe until a line has this in it."""
    read = b""
    while end.encode() not in read or not read.endswith(b"\n"):
        read += os.read(reading, 1 << 16)
    return read.decode().splitlines()


def test_lines_come_in_their_order_whatever_their_levels(pipe: tuple[int, int]) -> None:
    """Levels decide on what is left out, and on nothing else."""
    levels = [logging.INFO, logging.ERROR, 5, logging.WARNING, logging.DEBUG, 99] * 50
    writer = LogWriter(pipe[1])

    for number, level in enumerate(levels):
        writer.handle(_record(level, f"line {number}"))
    writer.flush()

    assert os.read(pipe[0], 1 << 16).decode().splitlines() == [f"line {number}" for number in range(300)]


def test_nobody_waits_for_a_reader_and_the_least_important_lines_are_left_out(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Errors displace ordinary lines; the first line that is taken again says how many are missing."""
    monkeypatch.setattr(log_writer, "MOST_LINES", 2000)
    writer = LogWriter(pipe[1])
    started = time.monotonic()

    for number in range(8000):
        writer.handle(_record(logging.INFO, f"info {number} {'x' * 100}"))
    for number in range(500):
        writer.handle(_record(logging.ERROR, f"error {number}"))

    took = time.monotonic() - started
    *lines, last = _read_until(pipe[0], "left out")

    assert took < 2
    assert [line for line in lines if line[0] == "e"] == [f"error {number}" for number in range(500)]
    kept = [int(line.split()[1]) for line in lines if line[0] == "i"]
    assert kept == sorted(kept)
    assert last == f"{8000 - len(kept)} lines of the log were left out: {log_writer.CURE}"


def test_lines_are_bounded_by_their_bytes(pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """A few huge lines take no more memory than many small ones; a line beyond all measure is cut."""
    monkeypatch.setattr(log_writer, "MOST_BYTES", 1 << 20)
    writer = LogWriter(pipe[1])

    for _ in range(100):
        writer.handle(_record(logging.ERROR, "x" * (1 << 20)))

    lines = _read_until(pipe[0], "left out")
    assert {len(line) for line in lines[:-1]} == {1 << 18}
    assert len(lines) < 8


def test_a_flush_waits_no_longer_than_a_second(pipe: tuple[int, int]) -> None:
    """The end of the process must not hang on it."""
    writer = LogWriter(pipe[1])
    writer.handle(_record(logging.INFO, "x" * (1 << 17)))
    started = time.monotonic()

    writer.flush()

    assert 0.9 < time.monotonic() - started < 3


@pytest.mark.usefixtures("starts_processes")
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")  # Python 3.12 and later: there is a thread
def test_a_fork_writes_its_own_lines_and_none_of_its_parents(pipe: tuple[int, int]) -> None:
    """The thread and its lines stay behind in the parent."""
    writer = LogWriter(pipe[1])
    writer.handle(_record(logging.INFO, "of the parent"))
    child = os.fork()
    if child == 0:
        writer.handle(_record(logging.INFO, "of the child"))
        writer.flush()
        os._exit(0)
    os.waitpid(child, 0)
    writer.flush()

    assert sorted(os.read(pipe[0], 4096).decode().splitlines()) == ["of the child", "of the parent"]


def test_a_descriptor_that_does_not_wait_is_waited_for(pipe: tuple[int, int]) -> None:
    """Whoever shares standard error can make it non-blocking: no line is lost or cut by it."""
    os.set_blocking(pipe[1], False)
    writer = LogWriter(pipe[1])
    for number in range(2000):
        writer.handle(_record(logging.INFO, f"{number:04} {'x' * 100}"))

    lines = _read_until(pipe[0], "1999 " + "x" * 100)

    assert [int(line[:4]) for line in lines] == list(range(2000))


PROGRAM = """
import sys, structlog
from datetime import timedelta
from arqonce.process import log_writer
from arqonce.process.logs import set_up_logging
from arqonce.settings.worker import WorkerSettings
log_writer.FLUSH_LIMIT = timedelta(seconds=15)  # the last lines need more than its second on a busy machine
set_up_logging(WorkerSettings(log_format="json"))
for number in range(3000):
    structlog.get_logger("ours").info("a line", number=number, text="x" * 100)
print("done", flush=True)
if sys.argv[1:]:
    raise ValueError("uncaught")
"""


@pytest.mark.usefixtures("starts_processes")
@pytest.mark.parametrize("how", ["2>&-", "2>/dev/full"])
def test_an_error_output_that_takes_nothing_harms_nobody(how: str) -> None:
    """Closed at the start, or on a full disk."""
    command = f'exec "$0" -c "$1" {how}'

    done = subprocess.run(
        ["sh", "-c", command, sys.executable, PROGRAM], stdout=subprocess.PIPE, timeout=20, check=False
    )

    assert (done.returncode, done.stdout) == (0, b"done\n")


@pytest.mark.usefixtures("starts_processes")
def test_a_reader_that_has_gone_harms_nobody() -> None:
    """The pipe is broken: lines are lost, and nothing else."""
    reading, writing = os.pipe()
    os.close(reading)

    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, stderr=writing, timeout=20, check=False
    )
    os.close(writing)

    assert (done.returncode, done.stdout) == (0, b"done\n")


@pytest.mark.usefixtures("starts_processes")
def test_the_end_by_an_error_shows_all_lines_and_the_error() -> None:
    """What was logged before an uncaught error is written, and so is its traceback."""
    done = subprocess.run([sys.executable, "-c", PROGRAM, "fail"], capture_output=True, timeout=20, check=False)

    lines = done.stderr.decode().splitlines()
    numbers = [json.loads(line)["number"] for line in lines if line.startswith("{")]
    assert (numbers, "ValueError: uncaught" in lines) == (list(range(3000)), True)
