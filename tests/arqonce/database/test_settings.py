"""Settings of the database, and the rules that all settings share. No server is needed."""

import os
import ssl
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from arqonce.database import settings as database_settings
from arqonce.database.options import require_known
from arqonce.database.settings import DatabaseSettings
from arqonce.environment import SettingsError, read_duration

URL = "postgresql://ann:hidden-word@db.example.org:6000/people"


def test_a_missing_url_names_itself_and_the_cure() -> None:
    """Whoever starts without settings learns what to set, and to what."""
    with pytest.raises(SettingsError) as caught:
        DatabaseSettings.load()

    assert str(caught.value) == (
        "DATABASE_URL: is not set. Set it to a value such as postgresql://user@host:5432/database, "
        "or put that in a file named database_url in /run/secrets or $SECRETS_DIR."
    )


def test_what_is_missing_may_have_been_misspelt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both are said: that it is not set, and what is."""
    monkeypatch.setenv("DATABASE_ULR", URL)

    with pytest.raises(SettingsError, match=r"_URL: is not set.*\nDATABASE_ULR: there is no such .* mean DATABASE_URL"):
        DatabaseSettings.load()


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"DATABASE_URL": "mysql://u:hidden-word@h/d"}, "DATABASE_URL: has the scheme mysql"),
        ({"DATABASE_URL": "not a url hidden-word"}, "DATABASE_URL: is not a URL"),
        ({"DATABASE_URL": "postgresql://u:hidden-word@h"}, "DATABASE_URL: names no database"),
        ({"DATABASE_URL": "postgresql://u:hidden-word@h:port/d"}, "DATABASE_URL: is not a URL"),
        ({"DATABASE_URL": "postgresql://u:pa@ss/hidden-word@h/d"}, "DATABASE_URL: has a character in user or password"),
        (
            {"DATABASE_URL": URL + "?connect_timeout=5"},
            "DATABASE_URL: has the option connect_timeout: leave it out, set",
        ),
        ({"DATABASE_URL": URL + "?sslmod=require"}, "DATABASE_URL: has an option that there is not: did you mean sslm"),
        ({"DATABASE_URL": URL + "?hidden-word=1"}, "DATABASE_URL: has an option that there is not: there are"),
        ({"DATABASE_URL": URL + "?sslmode=bogus"}, "DATABASE_URL: has an unknown sslmode"),
        ({"DATABASE_URL": URL + "?ssl=true"}, "DATABASE_URL: has an unknown ssl; valid are"),
        (
            {"DATABASE_URL": URL + "?SSLMODE=require"},
            "DATABASE_URL: has an option that there is not: did you mean sslm",
        ),
        ({"DATABASE_URL": URL + "?sslmode%3Drequire"}, "DATABASE_URL: has an option without a value: write it as"),
        ({"DATABASE_URL": "postgresql://u:a@b/d?hidden-word@h/d"}, "DATABASE_URL: has a character in user or password"),
        ({"DATABASE_URL": URL + "?sslmode=disable&sslmode=require"}, "DATABASE_URL: has the option sslmode twice"),
        ({"DATABASE_URL": URL + "?sslmode=disable&ssl=require"}, "DATABASE_URL: has both ssl and sslmode"),
        ({"DATABASE_URL": f"{URL}?sslrootcert={__file__}"}, "DATABASE_URL: names a file with sslrootcert that holds"),
        ({"DATABASE_URL": f"{URL}?sslcert={__file__}&sslkey={__file__}"}, "DATABASE_URL: names files with sslcert and"),
        ({"DATABASE_URL": "postgresql://a..b/d"}, "DATABASE_URL: has a host's name with a part that is empty"),
        ({"DATABASE_URL": "postgresql://a,b..c/d"}, "DATABASE_URL: has a host's name with a part that is empty"),
        ({"DATABASE_URL": "postgresql://h/d%00d"}, "DATABASE_URL: has a %00"),
        ({"DATABASE_URL": URL, "DATABASE_STATEMENT_TIMEOUT": "25d"}, "DATABASE_STATEMENT_TIMEOUT: must be at most 1d"),
        ({"DATABASE_URL": URL, "DATABASE_CONNECT_TIMEOUT": "99999999999999d"}, "DATABASE_CONNECT_TIMEOUT: is longer"),
        ({"DATABASE_URL": URL, "DATABASE_STATEMENT_TIMEOUT": "soon"}, "DATABASE_STATEMENT_TIMEOUT: is not a duration"),
        ({"DATABASE_URL": URL, "DATABASE_CONNECT_TIMEOUT": "0"}, "DATABASE_CONNECT_TIMEOUT: must be at least 1ms"),
        (
            {"DATABASE_URL": URL, "DATABASE_STATEMENT_TIMEOUT": "0.1ms"},
            "DATABASE_STATEMENT_TIMEOUT: must be at least 1",
        ),
        ({"DATABASE_URL": URL, "DATABASE_COMMAND_TIMEOUT": "5s"}, "DATABASE_COMMAND_TIMEOUT: must be longer than"),
        ({"DATABASE_URL": URL, "DATABASE_PGBOUNCER": "maybe"}, "DATABASE_PGBOUNCER: "),
        ({"DATABASE_URL": URL, "DATABASE_PGBUNCER": "1"}, "DATABASE_PGBUNCER: there is no such setting. Did you mean"),
        (
            {"DATABASE_URL": URL, "DATABASE_PASSWORD_FILE": "/a"},
            "DATABASE_PASSWORD_FILE: there is no such setting. Put the value into a file database_password in $SECRETS",
        ),
        ({"DATABASE_URL": URL, "database_pgbuncer": "1"}, "database_pgbuncer: there is no such setting. Did you mean"),
        ({"DATABASE_URL": URL, "SECRETS_DIR": " /no/such\n"}, "SECRETS_DIR: /no/such is not a directory"),
    ],
)
def test_a_wrong_setting_names_itself_and_hides_its_value(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: str
) -> None:
    """The error begins with the variable's name and never shows a password."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    with pytest.raises(SettingsError) as caught:
        DatabaseSettings.load()

    assert str(caught.value).startswith(expected)
    assert "hidden-word" not in str(caught.value)


def test_variables_of_platforms_are_no_misspellings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kubernetes and others inject names of their own."""
    for name in ("DATABASE_SERVICE_HOST", "DATABASE_PORT_5432_TCP", "DATABASE_HOST", "DATABASE_URI"):
        monkeypatch.setenv(name, "10.0.0.1")
    monkeypatch.setenv("DATABASE_URL", URL)

    assert DatabaseSettings.load().location == "db.example.org:6000/people"


def test_secrets_come_from_files_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A password in a file is put into the URL; a variable wins over a file."""
    (tmp_path / "database_password").write_text("p@ss/word\n")
    (tmp_path / "database_url").write_text("postgresql://other@elsewhere/none\n")
    monkeypatch.setenv("SECRETS_DIR", str(tmp_path))
    monkeypatch.setenv("DATABASE_URL", "postgres://ann@db.example.org/people")

    url = DatabaseSettings.load().sqlalchemy_url

    assert (url.drivername, url.password, url.host) == ("postgresql+asyncpg", "p@ss/word", "db.example.org")


def test_whether_a_setting_is_given_is_known_of_files_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A command whose use of PostgreSQL is optional asks it: a URL that is mounted as a secret counts."""
    monkeypatch.setenv("SECRETS_DIR", str(tmp_path))
    monkeypatch.setenv("DATABASE_URL", " \n")
    assert DatabaseSettings.given("url") is None

    (tmp_path / "database_url").write_text(f"{URL}\n")
    assert DatabaseSettings.given("url") == URL

    monkeypatch.setenv("DATABASE_URL", "sqlite:///file")
    assert DatabaseSettings.given("url") == "sqlite:///file"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything; the directory below shows the same for it")
def test_a_secret_file_that_is_closed_names_itself(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A file of mode 600 of another user is the likeliest mistake with mounted secrets."""
    (tmp_path / "database_url").touch(mode=0o000)
    monkeypatch.setenv("SECRETS_DIR", str(tmp_path))

    with pytest.raises(SettingsError, match=r"DATABASE_URL: .*database_url cannot be read by user \d+. Let it"):
        DatabaseSettings.load()


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_a_secret_that_is_no_file_names_itself(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, make: Callable[[Path], None]
) -> None:
    """Docker makes a directory where the file to mount is missing. A pipe would be waited for."""
    make(tmp_path / "database_password")
    monkeypatch.setenv("DATABASE_URL", URL)
    monkeypatch.setenv("SECRETS_DIR", str(tmp_path))

    with pytest.raises(SettingsError, match=r"DATABASE_PASSWORD: .*database_password is not a file"):
        DatabaseSettings.load()


def test_no_form_of_the_settings_shows_the_password(monkeypatch: pytest.MonkeyPatch) -> None:
    """Repr, str and location are fit for logs."""
    monkeypatch.setenv("DATABASE_URL", URL)
    monkeypatch.setenv("DATABASE_PASSWORD", "hidden-word")

    settings = DatabaseSettings.load()

    assert "hidden-word" not in f"{settings!r} {settings} {settings.location} {settings.sqlalchemy_url}"


@pytest.mark.parametrize(
    ("asked", "meant"),
    [("verify-full", "verify-full"), ("require", "verify-full"), ("no-verify", "require"), ("disable", "disable")],
)
def test_whoever_requires_tls_gets_it_verified(monkeypatch: pytest.MonkeyPatch, asked: str, meant: str) -> None:
    """URLs of managed databases end in ?sslmode=require, which with libpq takes a certificate from anybody."""
    monkeypatch.setenv("DATABASE_URL", f"{URL}?sslmode={asked}")

    settings = DatabaseSettings.load()

    assert dict(settings.sqlalchemy_url.query) == {"ssl": meant}
    assert ("sslrootcert" in settings.tls_files) == (meant == "verify-full")


@pytest.mark.parametrize("trouble", [RuntimeError("no home"), PermissionError(13, "denied")])
def test_an_account_needs_no_home(monkeypatch: pytest.MonkeyPatch, trouble: Exception) -> None:
    """As under a user id without an entry, or in root's home under supervisord: the system's authorities count."""

    class Nowhere:
        def expanduser(self) -> None:
            raise trouble

    monkeypatch.setattr(database_settings, "_OWN_AUTHORITIES", Nowhere())
    monkeypatch.setenv("DATABASE_URL", f"{URL}?sslmode=require")

    assert DatabaseSettings.load().tls_files == {"sslrootcert": ssl.get_default_verify_paths().cafile}


@pytest.mark.parametrize("query", ["sslrootcert=system", "sslmode=verify-full&sslrootcert=system"])
def test_system_is_no_file_but_the_authorities_of_the_system(monkeypatch: pytest.MonkeyPatch, query: str) -> None:
    """As with libpq, also where the user has authorities of its own, and without a mode."""
    monkeypatch.setattr(database_settings, "_OWN_AUTHORITIES", Path(__file__))
    monkeypatch.setenv("DATABASE_URL", f"{URL}?{query}")

    settings = DatabaseSettings.load()

    assert dict(settings.sqlalchemy_url.query) == {"ssl": "verify-full"}
    assert settings.tls_files == {"sslrootcert": ssl.get_default_verify_paths().cafile}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("250ms", timedelta(milliseconds=250)),
        ("1.5", timedelta(seconds=1.5)),
        ("30s", timedelta(seconds=30)),
        (" 5 m ", timedelta(minutes=5)),
        ("2h", timedelta(hours=2)),
        ("7d", timedelta(days=7)),
    ],
)
def test_durations_are_read_in_each_unit(text: str, expected: timedelta) -> None:
    """A bare number is seconds."""
    assert read_duration(text) == expected


_LIBPQ = (
    "host hostaddr port dbname user password passfile require_auth channel_binding connect_timeout client_encoding "
    "options application_name fallback_application_name keepalives keepalives_idle keepalives_interval "
    "keepalives_count tcp_user_timeout replication gssencmode sslmode requiressl sslnegotiation sslcompression sslcert "
    "sslkey sslkeylogfile sslpassword sslcertmode sslrootcert sslcrl sslcrldir sslsni requirepeer "
    "ssl_min_protocol_version ssl_max_protocol_version min_protocol_version max_protocol_version krbsrvname gsslib "
    "gssdelegation scram_client_key scram_server_key service servicefile target_session_attrs load_balance_hosts"
)
"""The parameters of a connection in PostgreSQL 18, section 34.1.2 of its manual."""


@pytest.mark.parametrize("name", _LIBPQ.split())
def test_every_option_of_libpq_is_used_or_refused_with_its_cure(name: str) -> None:
    """Providers and other programs write URLs with them."""
    try:
        require_known({name: "x"})
    except ValueError as error:
        assert str(error).startswith(f"has the option {name}: leave it out, ")  # noqa: PT017 - some raise none
