"""Logs: what they name, and what they must not. No server is needed."""

import json
import logging
import subprocess
import sys

import pytest

PROGRAM = """
import asyncio, gc, logging.config, structlog, threading, warnings
from arqonce import InvalidPayloadError
from jobs.payloads import EmailTakenError
from arqonce.process.logs import set_up_logging
from arqonce.settings.worker import WorkerSettings

logging.config.dictConfig({{"version": 1}})  # the application's, which disables all loggers that there are
set_up_logging(WorkerSettings(log_format="{form}"))

def fail():
    try:
        raise KeyError("secret-person")
    except KeyError as error:
        raise ValueError("secret-person@example.org") from error

try:
    fail()
except ValueError:
    structlog.get_logger("ours").exception("job failed", job_id="j1")
    logging.getLogger("sqlalchemy.pool").exception("foreign")

def run_job():
    logging.getLogger("arq.worker").info("%s(%s)", "job", "secret-person")

run_job()
logging.getLogger("arq.worker").info("Starting worker")
logging.getLogger("arq.worker").warning("a warning of arq")
task = "<Task finished name='t' coro=<f() done> result='a> took secret-person' created at tasks.py:1>"
logging.getLogger("asyncio").warning("Executing %s took %.3f seconds", task, 0.3)
logging.getLogger("httpx").info("GET https://example.org/?email=secret-person")
logging.getLogger("shop.jobs").info("the application's own")
logging.captureWarnings(True)
warnings.warn("secret-person", UserWarning)
warnings.warn("use the other one", FutureWarning)

async def forget():
    async def fail_alone():
        raise ValueError("secret-person")
    asyncio.get_running_loop().call_soon(lambda name: 1 / 0, "secret-person")
    task = asyncio.create_task(fail_alone())
    await asyncio.sleep(0.01)

asyncio.run(forget())
gc.collect()
try:
    raise InvalidPayloadError("cure") from EmailTakenError("secret-person")
except InvalidPayloadError:
    structlog.get_logger("ours").exception("speaks")

class Value:
    def __init__(self, name="secret-person"):
        self.name = name

    def __repr__(self):
        raise ValueError(self.name)

    def __del__(self):
        if self.name == "unraisable":
            raise ValueError("secret-person")

nested = []
for _ in range(200_000):  # Python 3.14 writes thousands
    nested = [nested]
values = {{"value": Value(), "keys": {{(1, 2): 3}}, "number": float("nan"), "nested": nested}}
structlog.get_logger("ours").warning("any value", **values)
logging.getLogger("theirs").warning("%d users", "secret-person")
logging.getLogger("theirs").warning("%s", Value())
logging.getLogger("theirs").warning(300_000 * "x")
logging.getLogger("theirs").warning("one\\ntwo\\x1b[31m")
thread = threading.Thread(target=fail)
thread.start()
thread.join()
Value("unraisable")
"""

SLOW = "Executing <Task finished name='t' coro=<f() done>> took 0.300 seconds"


def _run(form: str) -> str:
    done = subprocess.run([sys.executable, "-c", PROGRAM.format(form=form)], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    return done.stderr


@pytest.mark.usefixtures("starts_processes")
def test_json_logs_are_one_object_a_line() -> None:
    """Ours and the application's alike, with level, logger and time; other libraries' from warning on."""
    lines = [json.loads(line) for line in _run("json").splitlines()]

    assert [line["event"].partition(", from")[0] for line in lines] == [
        "job failed", "foreign", "a warning of arq", SLOW, "the application's own", "Python warns", "Python warns",
        "Exception in callback forget.<locals>.<lambda>", "Task exception was never retrieved", "speaks",
        "any value", *3 * ["a line of the log cannot be shown"], "one\ntwo\x1b[31m",
        "a thread has failed", "Python cannot raise an error",
    ]  # fmt: skip
    assert [line.get("text") for line in lines if line["event"] == "Python warns"] == [None, "use the other one"]
    assert all({"level", "logger", "timestamp"} <= line.keys() for line in lines)
    assert lines[0]["job_id"] == "j1"
    (line,) = [line for line in lines if line["event"] == "any value"]
    assert [line[name] for name in ("value", "keys", "number", "nested")] == ["<Value>", "{(1, 2): 3}", "nan", "<list>"]


@pytest.mark.usefixtures("starts_processes")
@pytest.mark.parametrize("form", ["json", "console"])
def test_an_error_is_logged_without_its_text(form: str) -> None:
    """Types and places, cause by cause; texts of exceptions repeat people's data."""
    output = _run(form)

    assert "secret-person" not in output
    assert all(line.startswith(("{", "20")) for line in output.splitlines())
    assert "ValueError at" in output
    assert "<- KeyError at" in output


@pytest.mark.usefixtures("starts_processes")
def test_our_own_errors_speak() -> None:
    """Their texts hold cures, never data; those of failures that handlers choose may, so of these the code is told."""
    told = _run("json")

    assert "InvalidPayloadError (invalid_payload: cure)" in told
    assert "EmailTakenError (email_taken)" in told


@pytest.mark.usefixtures("starts_processes")
def test_importing_the_worker_sets_up_no_logging() -> None:
    """An import has no effects."""
    program = "import logging, arqonce.process.worker, arqonce.commands.app; print(logging.getLogger().handlers)"

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"
    assert logging.getLogger("arq.worker").filters == []
