"""Who may call, and where the service may listen."""

import subprocess
import sys

import pytest

import web.__main__
from tests import warm
from tests.web.conftest import TOKEN, StartWeb


async def test_without_a_token_only_the_description_is_open(start_web: StartWeb) -> None:
    """401 with the scheme that is needed, also for what does not exist."""
    service = start_web(WEB_TOKENS=f"another-token-of-some-length {TOKEN}")
    right = {"Authorization": f"Bearer {TOKEN}"}

    refused = [await service.get(path) for path in ("/user?name=Jane", "/nothing")]
    wrong = [
        await service.get("/user?name=Jane", headers={"Authorization": value})
        for value in (f"Bearer {TOKEN}x", f"Basic {TOKEN}", "Bearer", f"Bearer {TOKEN[:-1]}", "Bearer \u00e9")
    ]

    assert [answer.problem[:2] for answer in refused] == [(401, "no_token")] * 2
    assert {answer.problem[:2] for answer in wrong} == {(401, "unknown_token")}
    assert {answer.headers["WWW-Authenticate"] for answer in wrong} == {'Bearer error="invalid_token"'}
    assert (await service.get("/user?name=Jane", headers=right)).status == 404
    assert (await service.get("/openapi.json")).status == 200
    assert TOKEN not in service.log


def _start(environment: dict[str, str], **variables: str) -> "subprocess.CompletedProcess[str]":
    return warm.run([sys.executable, "-m", "web"], environment | variables, timeout=30)


@pytest.mark.usefixtures("starts_processes")
@pytest.mark.parametrize(
    ("variables", "named", "code"),
    [
        ({"WEB_HOST": "0.0.0.0"}, "WEB_TOKENS: is not set, but WEB_HOST is 0.0.0.0", 3),  # noqa: S104 - it is refused
        ({"WEB_HOST": "::"}, "WEB_TOKENS: is not set", 3),
        ({"WEB_HOST": "example.org"}, "WEB_TOKENS: is not set", 3),
        ({"WEB_HOST": "0.0.0.0", "WEB_TOKENS": " "}, "WEB_TOKENS: is not set", 3),  # noqa: S104 - it is refused
        ({"WEB_TOKENS": "short"}, "WEB_TOKENS: has a token of less than 20 characters", 3),
        ({"WEB_PORTS": "1"}, "WEB_PORTS: there is no such setting. Did you mean WEB_PORT?", 3),
        ({"WEB_HOST": "192.0.2.1", "WEB_TOKENS": TOKEN}, "correct WEB_HOST and WEB_PORT", 4),
    ],
)
def test_a_start_that_would_be_unsafe_or_in_vain_is_refused(
    environment: dict[str, str], variables: dict[str, str], named: str, code: int
) -> None:
    """One line that names the cure, and an exit code."""
    done = _start(environment, **variables)

    assert (done.returncode, named in done.stderr, "Traceback" in done.stderr) == (code, True, False), done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "named"),
    [
        (["--help"], 0, "usage: users-web"),
        (["-V"], 0, "users-worker "),
        (["--port", "80"], 2, "users-web: takes no arguments, and got '--port': settings are variables"),
        (["\x1b[2J"], 2, r"got '\x1b[2J': "),
    ],
)
def test_the_command_line_explains_itself(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, named: str
) -> None:
    """There are no options; asked for anything else, it says where settings are."""
    monkeypatch.setattr(web.__main__, "hear_signals", lambda _code: None)
    monkeypatch.setattr(sys, "argv", ["users-web", *arguments])

    with pytest.raises(SystemExit) as ended:
        web.__main__.main()

    told = capsys.readouterr()
    assert (ended.value.code, named in (told.err if code else told.out)) == (code, True)
    assert told.err.count("\n") == (1 if code else 0)
