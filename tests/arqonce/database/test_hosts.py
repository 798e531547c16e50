"""Hosts in DATABASE_URL, in libpq's forms. No server is needed."""

import pytest

from arqonce.database.settings import DatabaseSettings
from arqonce.environment import SettingsError


@pytest.mark.parametrize(
    ("url", "location", "query"),
    [
        ("postgresql://h1:5433,h2/db", "h1:5433,h2:5432/db", {"host": "h1,h2", "port": "5433,5432"}),
        ("postgresql://u:p@h1,h2,h3/db?port=6000", "h1:6000,h2:6000,h3:6000/db", None),
        ("postgresql://u:p%40w@/db?host=h1,h2&port=1,2", "h1:1,h2:2/db", {"host": "h1,h2", "port": "1,2"}),
        ("postgresql://u:p/w@h1,h2/db", "h1:5432,h2:5432/db", None),
        ("postgresql:///db?host=h1:1&host=h2:2", "h1:1,h2:2/db", {"host": "h1,h2", "port": "1,2"}),
        ("postgresql://[::1]:1,[fe80::2]/db", "[::1]:1,[fe80::2]:5432/db", {"host": "::1,fe80::2", "port": "1,5432"}),
        ("postgresql:///db?host=::1,h2", "[::1]:5432,h2:5432/db", None),
        ("postgresql:///db?host=/run/postgresql", "/run/postgresql:5432/db", None),
        ("postgresql://u@%2Frun%2Fpostgresql:6000/db", "/run/postgresql:6000/db", None),
        ("postgresql://%2Frun%2Fpg,h2/db", "/run/pg:5432,h2:5432/db", {"host": "/run/pg,h2", "port": "5432,5432"}),
        ("postgresql://[::1]:6000/db", "[::1]:6000/db", {}),
        ("postgresql://h1/db", "h1:5432/db", {}),
        ("postgresql:///db", "localhost:5432/db", {}),
        ("POSTGRESQL://h1/db", "h1:5432/db", {}),
        ("Postgres://h1,h2/db", "h1:5432,h2:5432/db", None),
    ],
)
def test_hosts_are_read_as_libpq_reads_them(
    monkeypatch: pytest.MonkeyPatch, url: str, location: str, query: dict[str, str] | None
) -> None:
    """Lists before the database and in the query, with ports of their own or one for all; logs name each."""
    monkeypatch.setenv("DATABASE_URL", url)

    settings = DatabaseSettings.load()

    assert (settings.location, settings.target_session_attrs) == (location, "read-write")
    if query is not None:
        assert dict(settings.sqlalchemy_url.query) == query


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("postgresql://hidden-word@h1,/db", "has an empty or invalid name in its list of hosts"),
        ("postgresql://hidden-word@h1,,h2/db", "has an empty or invalid name in its list of hosts"),
        ("postgresql://hidden-word@h1,h2:x/db", "has a port that is not a number from 1 to 65535"),
        ("postgresql://hidden-word@h1,h2:70000/db", "has a port that is not a number from 1 to 65535"),
        ("postgresql://hidden-word@h1,h2,h3/db?port=1,2", "names 3 hosts and 2 ports"),
        ("postgresql://hidden-word@h1:0/db", "has a port that is not a number from 1 to 65535"),
        ("postgresql://hidden-word@h1,h2/db?host=h3", "names hosts twice"),
        ("postgresql://hidden-word@h1,h2", "names no database"),
        ("postgresql://hidden-word@h1,h2/db?target_session_attrs=master", "has an unknown target_session_attrs"),
        ("postgresql://u:hidden@word/@h1,h2/db", "has a character in user or password that must be percent-encoded"),
    ],
)
def test_a_wrong_list_of_hosts_is_explained(monkeypatch: pytest.MonkeyPatch, url: str, problem: str) -> None:
    """Before anything is connected to, and without the URL."""
    monkeypatch.setenv("DATABASE_URL", url)

    with pytest.raises(SettingsError) as caught:
        DatabaseSettings.load()

    assert str(caught.value).startswith(f"DATABASE_URL: {problem}")
    assert "hidden" not in str(caught.value)
