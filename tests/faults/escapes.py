"""Handlers that raise what ends programs, that hold on, and that hold up: for real workers."""

import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import ClassVar, NoReturn

from sqlalchemy.ext.asyncio import AsyncSession

from arqonce.payloads import Payload, Result
from arqonce.spec import JobSpec, Registry
from db.users import insert_user


class Done(Result):
    """The name that was stored."""

    name: str


class Misbehave(Payload[Done]):
    """Store a user, and do what ``how`` says."""

    job_name: ClassVar[str] = "misbehave"
    how: str
    name: str
    folder: str = ""


class MisbehaveTogether(Misbehave):
    """The same, in a batch."""

    job_name: ClassVar[str] = "misbehave_together"


class MisbehaveShortly(Misbehave):
    """The same, with a short deadline."""

    job_name: ClassVar[str] = "misbehave_shortly"


class OwnEnd(BaseException):
    """None of Exception's."""


class UntoldEnd(BaseException):
    """Cannot even be told."""

    def __str__(self) -> str:
        """Fail, too."""
        raise SystemExit(2)


def _raise(error: BaseException) -> NoReturn:
    raise error


async def _raise_later(error: BaseException) -> None:
    await asyncio.sleep(0)
    raise error


async def _in_a_group(error: BaseException) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(_raise_later(error))
        group.create_task(asyncio.sleep(5))


async def _in_a_task(error: BaseException) -> None:
    await asyncio.create_task(_raise_later(error))


async def _left_behind(error: BaseException) -> None:
    _left.append(asyncio.create_task(_raise_later(error)))
    await asyncio.sleep(0.05)


async def _in_a_callback(error: BaseException) -> None:
    asyncio.get_running_loop().call_soon(_raise, error)
    await asyncio.sleep(0.05)


async def _stop_the_loop() -> None:
    asyncio.get_running_loop().stop()
    await asyncio.sleep(0.05)


async def _await_what_is_cancelled() -> None:
    future = asyncio.get_running_loop().create_future()
    future.cancel()
    await future


async def _cancel_itself() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(0)


async def _swallow() -> None:
    while True:
        try:
            await asyncio.sleep(0.2)
        except BaseException:  # noqa: BLE001, S112 - that is what is wrong with it
            continue


async def _block() -> None:
    while True:
        time.sleep(0.05)  # noqa: ASYNC251 - that is what is wrong with it


async def _hang_in_a_thread() -> None:
    await asyncio.to_thread(time.sleep, 1000)


async def _leave_a_thread() -> None:
    threading.Thread(target=time.sleep, args=(1000,), name="left-behind").start()


async def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    await asyncio.sleep(60)


async def _exit_at_once(code: int) -> None:
    os._exit(code)


async def _cancel_all() -> None:
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()


_left: list["asyncio.Task[None]"] = []

HOW: dict[str, Callable[[], Awaitable[object]]] = {
    "well": lambda: asyncio.sleep(0),
    "slowly well": lambda: asyncio.sleep(0.3),
    "exit": lambda: _raise_later(SystemExit(2)),
    "exit by sys.exit": lambda: asyncio.sleep(0, sys.exit(3)),
    "exit with None": lambda: _raise_later(SystemExit(None)),
    "exit in a group": lambda: _in_a_group(SystemExit(2)),
    "exit in a task": lambda: _in_a_task(SystemExit(3)),
    "exit in a thread": lambda: asyncio.to_thread(sys.exit, 4),
    "interrupt": lambda: _raise_later(KeyboardInterrupt()),
    "interrupt in a group": lambda: _in_a_group(KeyboardInterrupt()),
    "generator": lambda: _raise_later(GeneratorExit()),
    "own": lambda: _raise_later(OwnEnd("mine")),
    "own without a text": lambda: _raise_later(UntoldEnd()),
    "own in a group": lambda: _in_a_group(OwnEnd("mine")),
    "cancelled": lambda: _raise_later(asyncio.CancelledError()),
    "awaits cancelled": _await_what_is_cancelled,
    "cancels itself": _cancel_itself,
}
"""What each does. All but the first two fail."""

HARMLESS: dict[str, Callable[[], Awaitable[object]]] = {
    "exit of a task left behind": lambda: _left_behind(SystemExit(2)),
    "interrupt of a task left behind": lambda: _left_behind(KeyboardInterrupt()),
    "exit in a callback": lambda: _in_a_callback(SystemExit(2)),
    "stop of the loop": _stop_the_loop,
}
"""These end well, and leave something behind that does not."""

HOLDING: dict[str, Callable[[], Awaitable[object]]] = {
    "swallows": _swallow,
    "blocks": _block,
    "hangs in a thread": _hang_in_a_thread,
}
"""These do not end."""

KILLING: dict[str, Callable[[], Awaitable[object]]] = {
    "kills": _kill,
    "exits with 2": lambda: _exit_at_once(2),
    "exits with 3": lambda: _exit_at_once(3),
}
"""These end their worker. The codes are those of a worker that no start cures."""

_ALL = HOW | HARMLESS | HOLDING | KILLING | {"leaves a thread": _leave_a_thread, "cancels all": _cancel_all}


async def misbehave(session: AsyncSession, payload: Misbehave) -> Done:
    """Store the user, and misbehave."""
    await insert_user(session, payload.name)
    if payload.folder:
        with Path(payload.folder, payload.name).open("a") as file:  # noqa: ASYNC230 - a note for the test
            file.write("started\n")
    await _ALL[payload.how]()
    return Done(name=payload.name)


async def misbehave_together(session: AsyncSession, payloads: Sequence[Misbehave]) -> list[Done]:
    """Store all users."""
    return [await misbehave(session, payload) for payload in payloads]


REGISTRY = Registry(
    JobSpec(Misbehave, misbehave, max_attempts=2),
    JobSpec(MisbehaveTogether, misbehave, batch=misbehave_together, max_attempts=2),
    JobSpec(
        MisbehaveShortly,
        misbehave,
        batch=misbehave_together,
        max_attempts=1,
        deadline=timedelta(milliseconds=300),
    ),
)

NAME = f"{__name__}:REGISTRY"
