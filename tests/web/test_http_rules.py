"""What HTTP demands (RFC 9110, 9112, 9457, 6750, 7240), sent as bytes; after each request, whether the next is read."""

import asyncio
import json
from dataclasses import dataclass, field

from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from tests.conftest import wait_until
from tests.web.conftest import TOKEN, StartWeb, WebProcess
from tests.web.wire import NEXT, open_wire, post, request

JSON = {"accept": "application/json"}
CODINGS = {"accept-encoding": "gzip, deflate"}
PROBLEM = {"content-type": "application/problem+json"}
KEPT = {"connection": "keep-alive"}
CHUNKED = "Transfer-Encoding: chunked"

JANE = b'{"name": "Jane"}'
CHUNKS = b'4\r\n{"na\r\nc;x=y\r\nme": "Jane"}\r\n0\r\nTrailer: x\r\n\r\n'
LAST = b"0\r\n\r\n"


@dataclass(frozen=True)
class Rule:
    """A request, the statuses of its responses, whether the connection is kept, and what one response must have."""

    data: bytes
    statuses: list[int]
    keeps: bool = True
    headers: dict[str, str] = field(default_factory=dict)
    to_head: bool = False


def _get(*fields: str, target: str = "/users/0", version: str = "1.1") -> bytes:
    return request("GET", target, *fields, version=version)


def _post_1_0(body: bytes, *fields: str) -> bytes:
    return request("POST", "/users", *fields, body=body, version="1.0")


def _closes(data: bytes, status: int, **headers: str) -> Rule:
    return Rule(data, [status], keeps=False, headers={"connection": "close"} | headers)


RULES = {
    # Methods: RFC 9110, 9
    "HEAD is GET without a body": Rule(request("HEAD", "/openapi.json"), [200], to_head=True),
    "HEAD of what is not there": Rule(request("HEAD", "/users/0"), [404], to_head=True),
    "405 names what is allowed": Rule(request("DELETE", "/users"), [405], headers={"allow": "GET,HEAD,POST"}),
    "OPTIONS is not allowed, and says what is": Rule(request("OPTIONS", "/user"), [405], headers={"allow": "GET,HEAD"}),
    "TRACE is not allowed": Rule(request("TRACE", "/users", "Authorization: x"), [405]),
    "no tunnel": _closes(request("CONNECT", "x:80"), 501),
    "an unknown method": _closes(request("FROB", "/users"), 400),
    # Targets: RFC 9112, 3.2
    "no such route": Rule(_get(target="/nothing"), [404]),
    "absolute form": Rule(_get(target="http://other:80/users/batch"), [405]),
    "asterisk form": Rule(request("OPTIONS", "*"), [404]),
    "asterisk form of another method": _closes(_get(target="*"), 400),
    "a percent-encoded path": Rule(_get(target="/%75ser"), [422]),
    "a malformed percent-encoding": Rule(_get(target="/jobs/%zz"), [404]),
    "NUL in the path": Rule(_get(target="/jobs/%00"), [404]),
    "bytes that are no UTF-8": Rule(_get(target="/user?name=%ff"), [400]),
    "two slashes": Rule(_get(target="//user?name=x"), [404]),
    "a trailing slash": Rule(_get(target="/users/"), [404]),
    "dot segments": Rule(_get(target="/jobs/../openapi.json"), [404]),
    "a fragment": Rule(_get(target="/users/0#x"), [404]),
    "a URL too long": _closes(_get(target="/user?name=" + "x" * 9000), 414),
    "a long URL": Rule(_get(target="/user?name=" + "x" * 8000), [422]),
    # Fields: RFC 9110, 5 and 7.2; RFC 9112, 3.2 and 5
    "no Host": _closes(b"GET /users/0 HTTP/1.1\r\n\r\n", 400),
    "two Hosts": _closes(_get("Host: y"), 400),
    "Host that is none": _closes(b"GET /users/0 HTTP/1.1\r\nHost: a b@/c\r\n\r\n", 400),
    "white space before the colon": _closes(_get("Accept : */*"), 400),
    "a folded line": _closes(_get("X-Long: a\r\n b"), 400),
    "NUL in a field": _closes(_get("X-Odd: a\0b"), 400),
    "other bytes in a field": Rule(_get("X-Odd: \xff\xfe"), [404]),
    "a header too large in one field": _closes(_get("X-Large: " + "x" * 17_000), 431),
    "a header too large in many": _closes(_get(*(f"X-{n}: {'x' * 1000}" for n in range(17))), 431),
    "too many fields": _closes(_get(*(f"X-{n}: x" for n in range(200))), 431),
    "any Accept": Rule(_get("Accept: text/html, */*;q=0.1"), [404], headers=PROBLEM),
    "If-None-Match has nothing to match": Rule(_get("If-None-Match: *", target="/users?email=a@b.org"), [200]),
    "Range is not needed": Rule(_get("Range: bytes=0-3", target="/users?email=a@b.org"), [200]),
    "an upgrade is declined": Rule(_get("Connection: upgrade", "Upgrade: websocket"), [404]),
    "HTTP/2 is declined": Rule(_get("Connection: upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: A"), [404]),
    # Versions: RFC 9110, 2.5; RFC 9112, 9.3
    "HTTP/1.0": Rule(b"GET /users/0 HTTP/1.0\r\n\r\n", [404], keeps=False),
    "HTTP/1.0 that is kept": Rule(_get("Connection: keep-alive", version="1.0"), [404], headers=KEPT),
    "HTTP/2": _closes(_get(version="2.0"), 505),
    "HTTP/0.9": _closes(b"GET /users/0\r\n\r\n", 505),
    "HTTP/1.2": _closes(_get(version="1.2"), 400),
    "TLS": _closes(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200), 400),
    "bare line feeds": _closes(b"GET /users/0 HTTP/1.1\nHost: x\n\n", 400),
    "Connection: close": _closes(_get("Connection: close"), 404),
    "pipelined requests": Rule(_get() + _get(target="/user") + post(b"{"), [404, 422, 400]),
    # How long a body is: RFC 9112, 6; where two readers disagree, a request is smuggled
    "two lengths": _closes(post(b"12345", "Content-Length: 5", "Content-Length: 6"), 400),
    "one length twice": _closes(post(b"12345", "Content-Length: 5", "Content-Length: 5"), 400),
    "a list of lengths": _closes(post(b"12345", "Content-Length: 5, 5"), 400),
    "a negative length": _closes(post(b"", "Content-Length: -1"), 400),
    "a length with a sign": _closes(post(b"12345", "Content-Length: +5"), 400),
    "a length beyond 64 bits": _closes(post(b"", "Content-Length: 99999999999999999999"), 400),
    "length and chunks": _closes(post(LAST + NEXT, "Content-Length: 5", CHUNKED), 400),
    "chunks and length": _closes(post(LAST + NEXT, CHUNKED, "Content-Length: 5"), 400),
    "chunks of HTTP/1.0": Rule(_post_1_0(LAST, CHUNKED), [400], keeps=False),
    "two transfer codings": _closes(post(LAST, CHUNKED, CHUNKED), 400),
    "a transfer coding we lack": _closes(post(LAST, "Transfer-Encoding: gzip, chunked"), 501),
    "a transfer coding that looks alike": _closes(post(LAST, "Transfer-Encoding: xchunked"), 400),
    "chunks": Rule(post(CHUNKS, CHUNKED), [202]),
    "a chunk with a wrong size": _closes(post(b"zz\r\n" + JANE + b"\r\n" + LAST, CHUNKED), 400),
    "a chunk with a wrong end": _closes(post(b"10\r\n" + JANE + b"XX" + LAST, CHUNKED), 400),
    "a body that nobody asked for": Rule(request("GET", "/users/0", body=JANE), [404]),
    # Expect: RFC 9110, 10.1.1
    "a body that does not wait for 100": Rule(post(JANE, "Expect: 100-continue"), [202]),
    "no 100 for a body too large": _closes(post(b"", "Content-Length: 99999999", "Expect: 100-continue"), 413),
    "no 100 where no route is": _closes(request("POST", "/nothing", "Content-Length: 9", "Expect: 100-continue"), 404),
    "another expectation": _closes(_get("Expect: miracles"), 417),
    "an expectation in other bytes": _closes(_get("Expect: \xff"), 417),
    "an expectation of HTTP/1.0": Rule(_get("Expect: miracles", version="1.0"), [404], keeps=False),
    # Content: RFC 9110, 8.3 and 8.4; RFC 8259
    "charset utf-8": Rule(post(JANE, kind="application/json; charset=UTF-8"), [202]),
    "charset utf8": Rule(post(JANE, kind="application/json; charset=utf8"), [202]),
    "a quoted charset": Rule(post(JANE, kind='Application/JSON;charset="utf-8"'), [202]),
    "another charset": Rule(post(JANE, kind="application/json; charset=utf-16"), [415], headers=JSON),
    "another type": Rule(post(JANE, kind="text/json"), [415], headers=JSON),
    "no type": Rule(request("POST", "/users", body=JANE), [415]),
    "two types": _closes(post(JANE, "Content-Type: text/plain"), 400),
    "an unknown coding": Rule(post(JANE, "Content-Encoding: br"), [415], headers=CODINGS),
    "two codings": Rule(post(JANE, "Content-Encoding: gzip, gzip"), [415], headers=CODINGS),
    "an empty body": Rule(post(b""), [400]),
    "a BOM": Rule(post(b"\xef\xbb\xbf" + JANE), [202]),
    "the last of two keys counts": Rule(post(b'{"name": 1, "name": "Jane"}'), [202]),
    "a huge number": Rule(post(b'{"name": ' + b"9" * 5000 + b"}"), [400]),
    "a number beyond a float": Rule(post(b'{"name": 1e999}'), [422]),
    "NaN": Rule(post(b'{"name": NaN}'), [422]),
    "deep nesting": Rule(post(b"[" * 100_000), [400]),
    "an escaped surrogate": Rule(post(b'{"name": "\\ud800"}'), [400]),
    "a preference too long is cut": Rule(post(b"{}", "Prefer: wait=99999999999"), [422]),
}  # fmt: skip


async def _outcome(service: WebProcess, rule: Rule) -> tuple[list[int], bool, dict[str, str | None]]:
    """Return statuses, whether the connection was kept, and those headers of the last response that the rule names."""
    async with open_wire(service.port) as wire:
        await wire.send(rule.data)
        found = []
        for _ in rule.statuses:
            response = await wire.response(to_head=rule.to_head)
            while response is not None and response.status == 100:
                response = await wire.response()
            if response is None:
                break
            found.append(response)
        await wire.send(NEXT)
        after = await wire.response()
    headers = found[-1].headers if found else {}
    _require_common(rule, found[-1].body, headers)
    shown = {name: headers.get(name) for name in rule.headers}
    return [response.status for response in found], after is not None and after.status == 404, shown


def _require_common(rule: Rule, body: bytes, headers: dict[str, str]) -> None:
    common = {name: headers.get(name) for name in ("server", "cache-control", "x-content-type-options")}
    assert common == {"server": "users-web", "cache-control": "no-store", "x-content-type-options": "nosniff"}
    assert "date" in headers
    if rule.statuses[-1] >= 400 and not rule.to_head:
        assert (headers["content-type"], json.loads(body)["status"]) == ("application/problem+json", rule.statuses[-1])


async def test_the_rules_of_http_hold(service: WebProcess, sessions: async_sessionmaker[AsyncSession]) -> None:
    """Each request has its response and one line in the log, and no line is of a fault."""
    assert sessions is not None  # it removes the users afterwards
    kept = sum(rule.keeps for rule in RULES.values())
    answers = sum(len(rule.statuses) for rule in RULES.values()) + kept

    outcomes = await asyncio.gather(*(_outcome(service, rule) for rule in RULES.values()))

    wanted = {name: (rule.statuses, rule.keeps, rule.headers) for name, rule in RULES.items()}
    assert dict(zip(RULES, outcomes, strict=True)) == wanted
    wait_until(lambda: service.log.count('"event": "request"') >= answers, 5)
    assert service.log.count('"event": "request"') == answers
    assert {(line["event"], line["level"]) for line in service.lines} == {("serving", "info"), ("request", "info")}


async def test_a_body_is_asked_for(service: WebProcess) -> None:
    """100 (Continue) for a client that sends no body before it, as curl does."""
    async with open_wire(service.port) as wire:
        await wire.send(post(b"", f"Content-Length: {len(JANE)}", "Expect: 100-continue"))
        asked = await wire.response()
        await wire.send(JANE)
        answer = await wire.response()

    assert [response.status for response in (asked, answer) if response] == [100, 202]


async def test_who_has_no_token_sends_no_body(start_web: StartWeb) -> None:
    """401 with WWW-Authenticate (RFC 6750) instead of 100, and the connection ends: the body may come or not."""
    service = start_web(WEB_TOKENS=TOKEN)
    data = post(b"", "Content-Length: 16", "Expect: 100-continue")

    async with open_wire(service.port) as wire:
        await wire.send(data)
        response = await wire.response()

    assert response is not None
    assert (response.status, response.headers["www-authenticate"], response.headers["connection"]) == (
        401, "Bearer", "close",
    )  # fmt: skip


async def test_a_plus_in_a_query_is_explained(service: WebProcess) -> None:
    """It means a space there; the hint repeats nothing of what was sent."""
    answer = await service.ask("GET", "/users?email=jane+news@example.org")

    assert answer.json["detail"].endswith("a + in a query is a space: write %2B for a plus")
    assert (await service.get("/users?email=jane%2Bnews@example.org")).status == 200
