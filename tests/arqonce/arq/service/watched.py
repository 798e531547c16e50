"""An arq service that Sentry watches. What would be sent goes into a file instead."""

import asyncio
import json
import os
import signal
from datetime import timedelta, timezone
from pathlib import Path
from typing import Any

import sentry_sdk
from arq import Retry, cron, func
from arq.connections import RedisSettings
from sentry_sdk.envelope import Envelope
from sentry_sdk.integrations.arq import ArqIntegration
from sentry_sdk.transport import Transport

from arqonce import decode, encode


class ToFile(Transport):
    """Keeps what is in envelopes, one item a line: its type, and what it carries."""

    def capture_envelope(self, envelope: Envelope) -> None:
        """Append its items."""
        with Path(os.environ["ENVELOPES"]).open("a") as file:
            file.writelines(json.dumps([item.type, json.loads(item.get_bytes())]) + "\n" for item in envelope.items)


sentry_sdk.init(
    dsn="https://key@sentry.invalid/1",
    transport=ToFile,
    traces_sample_rate=1.0,
    integrations=[ArqIntegration(monitor_cron_jobs=True)],
    trace_lifecycle="stream" if os.environ["TRACE_LIFECYCLE"] == "stream" else "static",
)


async def chain(ctx: dict[str, Any]) -> None:
    """Enqueue a job."""
    await ctx["redis"].enqueue_job("fail", 3)


async def fail(_ctx: dict[str, Any], number: int) -> None:
    """Fail beside others, each with a tag of its own."""
    sentry_sdk.set_tag(f"number {number}", "set")
    sentry_sdk.add_breadcrumb(message=f"crumb {number}")
    await asyncio.sleep(0.1)
    raise ValueError(number)


async def patient(ctx: dict[str, Any]) -> None:
    """Succeed at the second attempt."""
    if ctx["job_try"] < 2:
        raise Retry(defer=0.05)


async def late(ctx: dict[Any, Any]) -> None:
    """Take longer than it may."""
    assert ctx["job_try"] == 1
    await asyncio.sleep(60)


async def stop(_ctx: dict[str, Any]) -> None:
    """Stop the worker, which cancels this job."""
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.sleep(60)


async def tick(ctx: dict[Any, Any]) -> None:
    """Run as a cron job."""
    assert ctx["job_id"].startswith("cron:tick")


async def after(ctx: dict[str, Any]) -> None:
    """Tell Sentry that a job has ended."""
    if ctx["job_try"] == 1:
        sentry_sdk.capture_message("after")


class WorkerSettings:
    """What arq's command is given."""

    functions = (chain, fail, patient, func(late, timeout=0.1), stop)
    cron_jobs = (cron(tick, minute=0, run_at_startup=True),)
    timezone = timezone(timedelta(hours=5))
    after_job_end = after
    redis_settings = RedisSettings.from_dsn(os.environ["SERVICE_REDIS"])
    job_serializer, job_deserializer = encode, decode
