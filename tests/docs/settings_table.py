"""Writes the table of docs/settings.md from the settings classes: ``python tests/docs/settings_table.py``."""

import sys
from collections.abc import Iterator
from datetime import timedelta

from pydantic.fields import FieldInfo

from arqonce.console.settings import ConsoleSettings
from arqonce.database.settings import DatabaseSettings
from arqonce.environment import EnvironmentSettings
from arqonce.settings.operations import OperationsSettings
from arqonce.settings.worker import QueueSettings, WorkerSettings
from tests.docs import tables
from web.settings import WebSettings

PAGE = tables.PAGES / "settings.md"
KINDS: tuple[type[EnvironmentSettings], ...] = (
    DatabaseSettings,
    QueueSettings,
    WorkerSettings,
    OperationsSettings,
    ConsoleSettings,
    WebSettings,
)
BEGIN, END = "<!-- settings: written by make fix -->", "<!-- end of settings -->"


def render() -> str:
    """Return the table."""
    rows = [row for settings in KINDS for row in _rows(settings)]
    return "\n".join(["| variable | default | meaning |", "|---|---|---|", *rows])


def _rows(settings: type[EnvironmentSettings]) -> Iterator[str]:
    for name, field in settings.model_fields.items():
        yield f"| `{settings.variable(name)}` | {_default(field)} | {field.description} |"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "**required**"
    value = field.default
    if value is None:
        return ""
    if isinstance(value, timedelta):
        return f"`{_duration(value)}`"
    return f"`{str(value).lower()}`"


def _duration(value: timedelta) -> str:
    milliseconds = round(value / timedelta(milliseconds=1))
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)):
        if milliseconds % size == 0:
            return f"{milliseconds // size}{unit}"
    return f"{milliseconds}ms"


def with_table(text: str) -> str:
    """Return the page's text with a fresh table in it."""
    return tables.with_table(text, render(), BEGIN, END)


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    sys.exit()
