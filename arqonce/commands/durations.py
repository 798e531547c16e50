"""Durations as values of options, such as ``--since 30m``."""

from datetime import timedelta

import typer

from arqonce.environment import read_duration


def duration_of(option: str, text: str) -> timedelta:
    """Parse the value of an option.

    Raises:
        BadParameter: ``text`` is not a duration.
    """
    try:
        return read_duration(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None
