"""Logging in and out."""

from dataclasses import replace
from datetime import timedelta

import pytest
from pydantic import SecretStr

from arqonce.console.access import Person, TokenRights, Tokens, hash_of
from arqonce.console.cookies import Cookies
from arqonce.console.log_in_limit import MOST_OF_ALL, MOST_OF_ONE, LogInLimit
from arqonce.console.settings import ConsoleSettings, Settings
from tests.arqonce.console.conftest import JANE, TOKENS, Browser, browsing, serving

KEY = SecretStr("0123456789abcdef" * 2)


class _Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


async def test_a_token_opens_the_page_that_was_asked_for(nobody: Browser) -> None:
    """The log-in goes on to where one wanted to go."""
    asked = await nobody.get("/queues")

    answer = await nobody.send("/log-in", token=JANE, **asked.page.fields())

    assert (answer.status, answer.page.of("title") != [], "Queues" in answer.page.text) == (200, True, True)


@pytest.mark.parametrize(
    "wanted",
    ["//evil.example", "/\\evil.example", "https://evil.example", "\\\\evil.example", "/\tevil", "javascript:1"],
)
async def test_it_goes_nowhere_else(nobody: Browser, wanted: str) -> None:
    """No address of the log-in leads to another site."""
    answer = await nobody.ask(
        "POST", "/log-in", data={"token": JANE, "next": wanted}, headers=nobody.origin, follow=False
    )

    assert (answer.status, answer.headers["Location"]) == (303, "/")


async def test_few_may_guess(nobody: Browser) -> None:
    """After five failures nobody gets in from there for a minute, with the right token neither."""
    wrong = [(await nobody.send("/log-in", token="x" * 30)).status for _ in range(MOST_OF_ONE)]

    late = await nobody.send("/log-in", token=JANE)

    assert wrong == [401] * MOST_OF_ONE
    assert (late.status, "Retry-After" in late.headers) == (429, True)


@pytest.mark.parametrize(
    "forged",
    [
        [("X-Forwarded-For", "10.1.1.{n}, 203.0.113.9")],
        [("X-Forwarded-For", "10.1.1.{n}"), ("X-Forwarded-For", "203.0.113.9")],
        [("X-Forwarded-For", "203.0.113.9:400{n}")],
        [("X-Forwarded-For", "[2001:db8::{n}]:400{n}")],
        [("X-Forwarded-For", "nobody-{n}")],
    ],
)
async def test_no_header_makes_one_client_many(console_settings: Settings, forged: list[tuple[str, str]]) -> None:
    """Behind a proxy the address counts that the proxy itself has added, without its port."""
    own = ConsoleSettings(port=0, tokens=TOKENS, proxies="127.0.0.1")
    async with serving(replace(console_settings, console=own)) as url, browsing(url) as browser:
        found = []
        for number in range(MOST_OF_ONE + 1):
            headers = [*browser.origin.items(), *((name, value.format(n=number)) for name, value in forged)]
            async with browser.http.post(f"{url}/log-in", data={"token": "x"}, headers=headers) as response:
                found.append(response.status)

    assert found == [401] * MOST_OF_ONE + [429]


async def test_no_link_logs_in_somebody_else(nobody: Browser, jane: Browser) -> None:
    """The script sends a token of the address by itself only if no other site led here, and nobody is logged in."""
    own = await nobody.get("/log-in", headers={"Sec-Fetch-Site": "none"})
    foreign = await nobody.get("/log-in", headers={"Sec-Fetch-Site": "cross-site"})
    again = await jane.get("/log-in", headers={"Sec-Fetch-Site": "none"})

    sends = ["data-takes-token" in one.page.of("form")[-1] for one in (own, foreign, again)]

    assert sends == [True, False, False]


async def test_who_is_in_stays_in(jane: Browser, nobody: Browser) -> None:
    """Guesses from the same address log nobody out."""
    for _ in range(MOST_OF_ONE):
        await nobody.send("/log-in", token="x" * 30)

    assert (await jane.get("/queues")).status == 200


async def test_logging_out(jane: Browser) -> None:
    """After it the cookie is gone."""
    await jane.send("/log-out")

    assert (await jane.get("/queues", follow=False)).status == 303


async def test_a_log_out_ends_copies_of_the_cookie(url: str, jane: Browser) -> None:
    """Whoever has copied it is logged out, too; other log-ins of the same person, at the same second, are not."""
    (cookie,) = jane.http.cookie_jar
    copied = {"Cookie": f"{cookie.key}={cookie.value}"}
    async with browsing(url, JANE) as elsewhere, browsing(url) as thief:
        before = await thief.get("/queues", headers=copied, follow=False)
        await jane.send("/log-out")
        after = await thief.get("/queues", headers=copied, follow=False)
        others = await elsewhere.get("/queues", follow=False)

    assert [answer.status for answer in (before, after, others)] == [200, 303, 200]


def test_all_together_may_fail_a_number_of_times() -> None:
    """Many addresses have a limit in all; it ends when failures are a minute old."""
    clock = _Clock()
    limit = LogInLimit(clock)
    for number in range(MOST_OF_ALL):
        limit.failed(f"10.0.{number // 250}.{number % 250}")

    waits = limit.wait("10.9.9.9")
    clock.now += 60

    assert (waits, limit.wait("10.9.9.9")) == (timedelta(minutes=1), None)


def test_nobody_locks_out_an_operator() -> None:
    """Failures from many addresses stop no address from which somebody has logged in; its own failures do."""
    limit = LogInLimit(_Clock())
    limit.succeeded("10.9.9.9")
    for number in range(MOST_OF_ALL):
        limit.failed(f"10.0.0.{number}")
    others, own = limit.wait("10.9.9.8"), limit.wait("10.9.9.9")
    for _ in range(MOST_OF_ONE):
        limit.failed("10.9.9.9")

    assert (others is None, own is None, limit.wait("10.9.9.9") is None) == (False, True, False)


def test_a_network_of_ipv6_is_one() -> None:
    """Whoever has IPv6 has 2^64 addresses."""
    limit = LogInLimit(_Clock())
    for number in range(MOST_OF_ONE):
        limit.failed(f"2001:db8::{number}")

    assert limit.wait("2001:db8::ffff") is not None
    assert limit.wait("2001:db8:0:1::1") is None


def test_an_ipv4_address_is_one_on_a_socket_of_both_kinds() -> None:
    """Where the console listens on ``::``, clients of IPv4 are not one network together."""
    limit = LogInLimit(_Clock())
    for _ in range(MOST_OF_ONE):
        limit.failed("::ffff:203.0.113.9")

    assert limit.wait("203.0.113.9") is not None
    assert limit.wait("::ffff:203.0.113.10") is None


def _cookies(clock: _Clock, *, sha256: str = hash_of(JANE), key: SecretStr = KEY) -> Cookies:
    tokens = Tokens({"jane": TokenRights(sha256=sha256)})
    return Cookies(tokens, key=key, lasts=timedelta(hours=8), https=True, now=clock)


def test_a_cookie_ends() -> None:
    """With its time, with its token, with the key; and any change of it is noticed."""
    clock = _Clock()
    cookies = _cookies(clock)
    person = cookies.tokens.person_with(JANE)
    assert person is not None

    value = cookies.make(person)

    assert cookies.read(value) == person
    assert _cookies(clock).read(value) == person
    assert _cookies(clock, sha256=hash_of("another")).read(value) is None
    assert _cookies(clock, key=SecretStr("f" * 32)).read(value) is None
    assert all(cookies.read(value[:at] + "0" + value[at + 1 :]) in {None, person} for at in range(len(value)))
    assert [cookies.read(other) for other in (None, "", ".", "a", "é.é", value + "0", "x" * 5000)] == [None] * 7
    clock.now += 8 * 3600
    assert cookies.read(value) is None


def test_nobody_makes_the_log_out_of_others_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever logs in and out again and again does that for himself."""
    monkeypatch.setattr("arqonce.console.cookies._MOST_ENDED", 2)
    cookies = Cookies(Tokens(TOKENS), key=KEY, lasts=timedelta(hours=8), https=True)
    copied, *others = [cookies.make(Person(name, TOKENS[name])) for name in ("jane", *["rob"] * 5)]
    for one in (copied, *others):
        cookies.end(one)

    assert [cookies.read(one) is None for one in (copied, *others[-2:])] == [True] * 3


def test_no_other_character_is_signed() -> None:
    """A changed cookie is none: every single character counts."""
    cookies = _cookies(_Clock())
    value = cookies.make(Person("jane", cookies.tokens.known["jane"]))

    changed = [value[:at] + ("1" if value[at] == "0" else "0") + value[at + 1 :] for at in range(len(value))]

    assert {cookies.read(one) for one in changed} == {None}
