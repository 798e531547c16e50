"""Durations as values of options, such as ``--since 30m``. Bounded, because they are added to times or subtracted."""

from datetime import timedelta

import typer

from arqonce.environment import LONGEST, read_duration


def duration_of(option: str, text: str, *, longest: timedelta = LONGEST) -> timedelta:
    """Parse the value of an option.

    Raises:
        BadParameter: ``text`` is not a duration, or longer than ``longest``.
    """
    try:
        duration = read_duration(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None
    if duration > longest:
        raise typer.BadParameter(f"must be at most {longest.days}d", param_hint=option)
    return duration
