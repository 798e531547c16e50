"""The name by which messages call the command that runs."""

import click

from arqonce.application import Application


def program() -> str:
    """Return the application's name."""
    application = click.get_current_context().find_object(Application)
    return "arqonce" if application is None else application.name
