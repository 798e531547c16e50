"""Builds groups of commands, such as ``queue pause`` and ``queue resume``."""

from collections.abc import Callable, Mapping

import typer


def build_group(commands: Mapping[str, Callable[..., None]]) -> typer.Typer:
    """Build a group of commands by name. Its help is that of ``commands/listed.py``; its usage names the commands."""
    app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, subcommand_metavar=f"{'|'.join(commands)} [ARGS]...")
    for name, command in commands.items():
        app.command(name)(command)
    return app
