"""Settings of the console: what is wrong is said, with its cure, and no secret is repeated."""

import json
import sys
from pathlib import Path

import pytest

from arqonce.console.access import Role, hash_of, new_token
from arqonce.console.settings import ConsoleSettings, Settings
from arqonce.environment import SettingsError
from tests import warm

ENTRY = {"sha256": hash_of("x"), "role": "operator"}

TOKENS = json.dumps({"jane": ENTRY})


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, "CONSOLE_TOKENS: is not set, so nobody could log in. Set it to what the command console token prints"),
        ({"TOKENS": "jane"}, "CONSOLE_TOKENS: is not JSON (Expecting value, at character 1)."),
        ({"TOKENS": '{"jane": {"sha256": "secret-token"}}'}, "CONSOLE_TOKENS: jane.sha256: is not the SHA-256"),
        (
            {"TOKENS": json.dumps({"jane": ENTRY | {"role": "admin"}})},
            "CONSOLE_TOKENS: jane.role: Input should be 'reader'",
        ),
        ({"TOKENS": json.dumps({"jane": ENTRY | {"rank": 1}})}, "CONSOLE_TOKENS: jane.rank: there is no such entry"),
        ({"TOKENS": json.dumps({"ja ne": ENTRY})}, "CONSOLE_TOKENS: ja ne: is not a person's name"),
        ({"TOKENS": '{"jane": {}, "jane": {}}'}, "CONSOLE_TOKENS: is JSON in which an object has two entries of one"),
        ({"TOKENS": '{"a-secret-token": "jane"}'}, "CONSOLE_TOKENS: a-secret-token: is not an object of JSON"),
        ({"TOKENS": json.dumps({"2-whole-secret-token": 1})}, "CONSOLE_TOKENS: 2-whole-secret-: is not an object"),
        ({"TOKENS": TOKENS, "KEY": "short"}, "CONSOLE_KEY: has less than 32 characters"),
        ({"TOKENS": TOKENS, "HOST": "0.0.0.0"}, "CONSOLE_HOSTS: is not set, but others than this host"),  # noqa: S104
        ({"TOKENS": TOKENS, "HOST": "0.0.0.0", "HOSTS": ","}, "CONSOLE_HOSTS: is not set, but others"),  # noqa: S104
        ({"TOKENS": TOKENS, "HOST": "localhost:9180"}, "CONSOLE_HOST: must be an address or a host's name alone"),
        ({"TOKENS": TOKENS, "HOSTS": "https://jobs.example.org"}, "CONSOLE_HOSTS: 'https://jobs.example.org' is not a"),
        ({"TOKENS": TOKENS, "HOSTS": "jobs.example.org, *"}, "CONSOLE_HOSTS: '*' is not a host as browsers name it"),
        ({"TOKENS": TOKENS, "HOSTS": "x", "SOCKET": __file__}, "CONSOLE_SOCKET: is there already, and is no socket"),
        ({"TOKENS": TOKENS, "PROXIES": "10.0.0.5/8"}, "CONSOLE_PROXIES: '10.0.0.5/8' is no network: its address has"),
        ({"TOKENS": TOKENS, "STATEMENT_TIMEOUT": "25d"}, "CONSOLE_STATEMENT_TIMEOUT: must be at most 1d"),
        ({"TOKENS": TOKENS, "SOCKET": "/run/x.sock"}, "CONSOLE_HOSTS: is not set, but others than this host"),
        ({"TOKENS": TOKENS, "PROXIES": "proxy.example"}, "CONSOLE_PROXIES: 'proxy.example' is neither an address"),
        ({"TOKENS": TOKENS, "PROXIES": "unix"}, "CONSOLE_PROXIES: has unix, but CONSOLE_SOCKET is not set"),
        ({"USER_HEADER": "X-User"}, "CONSOLE_USER_HEADER: is set without CONSOLE_PROXIES and CONSOLE_USERS"),
        ({"USER_HEADER": "X-User", "USERS": '{"jane": {}}'}, "CONSOLE_USER_HEADER: is set without CONSOLE_PROXIES"),
        (
            {"TOKENS": TOKENS, "LINKS": '{"a": "javascript:alert(1)"}'},
            "CONSOLE_LINKS: a: is not a link: it begins with https",
        ),
        ({"TOKENS": TOKENS, "PROT": "1"}, "CONSOLE_PROT: there is no such setting. Did you mean CONSOLE_PORT?"),
    ],
)
def test_what_is_wrong_is_said(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: str) -> None:
    """Each has its line."""
    for name, value in variables.items():
        monkeypatch.setenv(f"CONSOLE_{name}", value)

    with pytest.raises(SettingsError) as raised:
        ConsoleSettings.load()

    assert expected in str(raised.value)
    assert "secret-token" not in str(raised.value).replace("a-secret-token", "")


@pytest.mark.parametrize(
    ("name", "value", "meant"),
    [
        ("HOST", "[::1]", "::1"),
        ("HOSTS", "Jobs.Example.org [::1]:9180,x", "jobs.example.org,[::1]:9180,x"),
        ("PROXIES", "10.0.0.5 10.1.0.0/16", "10.0.0.5,10.1.0.0/16"),
        ("TOKENS", TOKENS.replace(ENTRY["sha256"], ENTRY["sha256"].upper()), TOKENS),
    ],
)
def test_what_means_the_same_is_the_same(monkeypatch: pytest.MonkeyPatch, name: str, value: str, meant: str) -> None:
    """However it is written: with brackets, in capitals, with spaces."""
    monkeypatch.setenv("CONSOLE_TOKENS", TOKENS)
    found = []
    for text in (value, meant):
        monkeypatch.setenv(f"CONSOLE_{name}", text)
        console = ConsoleSettings.load()
        found.append((console.host, console.names, console.trusted, console.tokens))

    assert found[0] == found[1]


def test_tokens_may_be_in_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As all secrets."""
    (tmp_path / "console_tokens").write_text(TOKENS)
    monkeypatch.setenv("SECRETS_DIR", str(tmp_path))

    tokens = ConsoleSettings.load().tokens

    assert tokens is not None
    assert tokens["jane"].role is Role.OPERATOR


def test_statements_of_the_console_end_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has limits of its own, whatever workers have."""
    for name, value in {
        "DATABASE_URL": "postgresql://host/db", "DATABASE_STATEMENT_TIMEOUT": "60s", "DATABASE_COMMAND_TIMEOUT": "70s",
        "REDIS_URL": "redis://host", "CONSOLE_TOKENS": TOKENS,
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)

    database = Settings.load("shop").database

    assert (database.statement_timeout.seconds, database.command_timeout.seconds) == (4, 5)
    assert database.application_name == "shop console"


@pytest.mark.usefixtures("starts_processes")
def test_the_command_prints_a_token_and_its_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    """The entry is what the setting takes, and has the token's hash alone."""
    command = [sys.executable, "-m", "worker", "console", "token", "jane", "--role", "operator"]
    done = warm.run(command, {})
    token = done.stderr.split()[-1]
    monkeypatch.setenv("CONSOLE_TOKENS", done.stdout)

    tokens = ConsoleSettings.load().tokens

    assert tokens is not None
    assert (tokens["jane"].sha256, token in done.stdout) == (hash_of(token), False)
    assert len(token) >= len(new_token()) == 43
