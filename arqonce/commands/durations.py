"""Durations as values of options, such as ``--since 30m``."""

from datetime import timedelta

import typer

from arqonce.environment import read_duration

_LONGEST = timedelta(days=365_000)
"""Longest duration of an option that is added to now, or taken from it: no date has another year than 1 to 9999."""


def duration_of(option: str, text: str, *, longest: timedelta = _LONGEST) -> timedelta:
    """Parse the value of an option.

    Raises:
        BadParameter: ``text`` is not a duration, or longer than ``longest``.
    """
    try:
        duration = read_duration(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None
    if duration > longest:
        raise typer.BadParameter(f"is longer than {longest.days:,} days", param_hint=option)
    return duration
