"""Asks the checks of a server one after the other."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta

from arqonce.doctor.finding import Check, Finding, Verdict

LIMIT = timedelta(seconds=10)
"""Longest time of one check, the connection included."""


async def ask_all(checks: Sequence[Check], *, limit: timedelta = LIMIT) -> list[Finding]:
    """Ask them; if the first fails, the server cannot be used, and the others would all say so."""
    findings: list[Finding] = []
    for check in checks:
        try:
            async with asyncio.timeout(limit.total_seconds()):
                found = await check.ask()
        except TimeoutError:
            silence = f"no answer within {limit.total_seconds():g} s"
            found = Finding(check.name, Verdict.FAILURE, silence, "is it overloaded?")
        findings += [] if found is None else [found] if isinstance(found, Finding) else found
        if check is checks[0] and findings[-1].verdict is Verdict.FAILURE:
            break
    return findings
