"""How operators' commands reach the servers. None is needed."""

import pytest

from arqonce.commands.asking import open_sessions
from arqonce.failures import QueueUnavailableError
from arqonce.process.startup_errors import StartupError


@pytest.mark.parametrize(
    ("error", "expected"),
    [(QueueUnavailableError("Redis is away"), QueueUnavailableError), (ConnectionResetError(), StartupError)],
)
async def test_a_redis_that_is_away_is_not_told_as_postgresql(
    monkeypatch: pytest.MonkeyPatch, error: Exception, expected: type[Exception]
) -> None:
    """``queue pause`` records in one and tells the other: which of them failed decides what is done."""
    monkeypatch.setenv("DATABASE_URL", "postgresql://h/d")

    with pytest.raises(expected):
        async with open_sessions():
            raise error
