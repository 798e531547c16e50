"""Builds groups of commands, such as ``queue pause`` and ``queue resume``."""

from collections.abc import Callable, Mapping

import typer


def build_group(text: str, commands: Mapping[str, Callable[..., None]]) -> typer.Typer:
    """Build a group whose help begins with ``text``, of commands by name."""
    app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help=text)
    for name, command in commands.items():
        app.command(name)(command)
    return app
