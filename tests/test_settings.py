"""Every setting of the library and of the application, with what people and their tools really write into it."""

import json
from pathlib import Path

import pytest

from arqonce import DatabaseSettings
from arqonce.console.access import hash_of
from arqonce.environment import EnvironmentSettings, SettingsError
from tests.docs.settings_table import KINDS
from web.settings import WebSettings

SETTINGS = [(kind, field) for kind in KINDS for field in kind.model_fields]
NAMES = [kind.variable(field) for kind, field in SETTINGS]

_VALUES = {
    "DATABASE_URL": "postgresql://me@127.0.0.1/mine",
    "REDIS_URL": "redis://127.0.0.1:6379/0",
    "CONSOLE_HOSTS": "jobs.example.org",
    "CONSOLE_PROXIES": "10.0.0.5",
    "CONSOLE_USERS": '{"jane": {}}',
    "CONSOLE_TOKENS": json.dumps({"jane": {"sha256": hash_of("hers"), "role": "operator"}}),
}
"""Values of settings that must have one, or without which another one is of no use."""

_GOOD = _VALUES | {
    "DATABASE_APPLICATION_NAME": "billing",
    "DATABASE_PASSWORD": "a password",
    "REDIS_PASSWORD": "a password",
    "CONSOLE_KEY": "0123456789abcdef0123456789abcdef",
    "OPS_TOKEN": "0123456789abcdef0123456789abcdef",
    "WORKER_HEALTH_FILE": "worker-health",
    "WORKER_REGISTRY": "shop.jobs:REGISTRY",
    "WEB_TOKENS": "reader:0123456789abcdef0123456789abcdef",
}
"""Values of settings whose example is a description of one."""


def _example(kind: type[EnvironmentSettings], field: str) -> str:
    examples = kind.model_fields[field].examples or []
    return _GOOD.get(kind.variable(field)) or str(examples[-1])


@pytest.fixture(autouse=True)
def _required(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in _VALUES.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(("kind", "field"), SETTINGS, ids=NAMES)
@pytest.mark.parametrize("empty", ["", " ", "\n"], ids=["nothing", "space", "line"])
def test_an_empty_value_is_none(
    kind: type[EnvironmentSettings], field: str, empty: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the variable were not set: compose files and charts write ``NAME=`` for what they leave out."""
    monkeypatch.delenv(kind.variable(field), raising=False)
    unset = _loaded(kind)
    monkeypatch.setenv(kind.variable(field), empty)

    assert _loaded(kind) == unset


def _loaded(kind: type[EnvironmentSettings]) -> EnvironmentSettings | str:
    try:
        return kind.load()
    except SettingsError as error:
        return str(error)


@pytest.mark.parametrize(("kind", "field"), SETTINGS, ids=NAMES)
def test_what_tools_add_at_the_ends_does_no_harm(
    kind: type[EnvironmentSettings], field: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An editor's line end and mark, a shell's space; quotes, but around a password; in a variable, and in a file."""
    value, name = _example(kind, field), kind.variable(field)
    monkeypatch.setenv(name, value)
    plain = kind.load()
    monkeypatch.setenv(name, f"\ufeff {value}\t\r\n")
    padded = kind.load()
    monkeypatch.setenv(name, value if field.endswith("password") else f' "{value}"\n')
    quoted = kind.load()
    monkeypatch.delenv(name)
    (tmp_path / name.lower()).write_text(f"\ufeff{value}\r\n\n", encoding="utf-8")
    monkeypatch.setenv("SECRETS_DIR", str(tmp_path))

    assert padded == plain
    assert quoted == plain
    assert kind.load() == plain


def test_the_quotes_of_a_password_are_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody could tell them from those of a tool."""
    monkeypatch.setenv("DATABASE_URL", "'postgresql://ann@db.example.org/people'")
    monkeypatch.setenv("DATABASE_PASSWORD", '"secret"')

    assert DatabaseSettings.load().sqlalchemy_url.password == '"secret"'  # noqa: S105 - made up


@pytest.mark.parametrize(("kind", "field"), SETTINGS, ids=NAMES)
@pytest.mark.parametrize("value", ["?", "-1", "9" * 30, "é" * 10_000, "1e400", "[]", "postgresql://", "\ufffe"])
def test_a_wrong_value_is_told_with_its_name_and_without_a_trace(
    kind: type[EnvironmentSettings], field: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one line of a size that can be read, which does not show the value of a secret."""
    monkeypatch.setenv(kind.variable(field), value)

    told = _loaded(kind)

    if isinstance(told, str):
        assert told.startswith(f"{kind.variable(field)}: ") or kind.variable(field) in told
        assert len(told.splitlines()) == 1
        assert len(told) < 500


@pytest.mark.parametrize(("kind", "field"), SETTINGS, ids=NAMES)
def test_bytes_that_are_no_text_are_refused(
    kind: type[EnvironmentSettings], field: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Drivers raise other errors for them, some with the value in it."""
    monkeypatch.setenv(kind.variable(field), f"{_example(kind, field)}\udcfc")

    assert _loaded(kind) == f"{kind.variable(field)}: is not text in UTF-8, or has a NUL in it. Write it anew."


@pytest.mark.parametrize("name", ["high,low", "high=5,low=1", "high=5"])
def test_a_service_enqueues_into_one_queue(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What WORKER_QUEUE may hold would be the name of a queue that no worker can serve."""
    monkeypatch.setenv("WEB_QUEUE", name)

    with pytest.raises(SettingsError, match=r"WEB_QUEUE: (names 2 queues|gives the only queue a weight)"):
        WebSettings.load()


def test_tokens_are_not_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    """They would be one token, which nobody sends."""
    monkeypatch.setenv("WEB_TOKENS", f"{'a' * 20},{'b' * 20}")

    with pytest.raises(
        SettingsError, match="WEB_TOKENS: has a token with a comma: tokens are separated by white space"
    ):
        WebSettings.load()
