"""The settings of the port of operations. No server is needed."""

import pytest

from arqonce.environment import SettingsError
from arqonce.settings.operations import OperationsSettings

TOKEN = "a-token-of-twenty-characters"  # noqa: S105 - of one test


@pytest.mark.parametrize(
    ("variables", "problem"),
    [
        ({"OPS_HOST": "0.0.0.0"}, "OPS_TOKEN: is not set, but OPS_HOST is 0.0.0.0, which others can reach. Set it to"),  # noqa: S104 - what is tested
        ({"OPS_HOST": "ops.example.org"}, "OPS_TOKEN: is not set, but OPS_HOST is ops.example.org"),
        ({"OPS_TOKEN": "short"}, "OPS_TOKEN: has less than 20 characters"),
        ({"OPS_TOKEN": f"{TOKEN} {TOKEN}"}, "OPS_TOKEN: has a character that no header can hold"),
        ({"OPS_PORT": "65536"}, "OPS_PORT: Input should be less than or equal to 65535"),
        ({"OPS_PROT": "9100"}, "OPS_PROT: there is no such setting. Did you mean OPS_PORT?"),
    ],
)
def test_what_is_wrong_is_told_with_its_cure(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], problem: str
) -> None:
    """Nobody opens the figures to others unawares."""
    for name, text in ({"OPS_PORT": "9100"} | variables).items():
        monkeypatch.setenv(name, text)
    if "OPS_PROT" in variables:
        monkeypatch.delenv("OPS_PORT")

    with pytest.raises(SettingsError) as raised:
        OperationsSettings.load()

    assert problem in str(raised.value)
    assert TOKEN not in str(raised.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_loopback_needs_no_token(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    """And without a port, nothing does."""
    monkeypatch.setenv("OPS_PORT", "9100")
    monkeypatch.setenv("OPS_HOST", host)
    opened = OperationsSettings.load()
    monkeypatch.delenv("OPS_PORT")
    monkeypatch.setenv("OPS_HOST", "0.0.0.0")  # noqa: S104 - nothing listens

    assert (opened.port, OperationsSettings.load().port) == (9100, None)
