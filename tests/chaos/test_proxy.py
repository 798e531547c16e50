"""The proxy must do what it says, or a fault is none."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from chaos.proxy import Proxy
from tests.conftest import wait_until


class _Echo:
    """A server that answers each request with the same, in capitals, and keeps what it got."""

    def __init__(self) -> None:
        self.received: list[bytes] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection:
            try:
                while data := connection.recv(100):
                    self.received.append(data)
                    connection.sendall(data.upper())
            except OSError:
                return

    def close(self) -> None:
        with suppress(OSError):  # closed already
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


@pytest.fixture
def server() -> Iterator[_Echo]:
    """Run the server behind the proxy."""
    server = _Echo()
    yield server
    server.close()


@pytest.fixture
def proxy(server: _Echo) -> Iterator[Proxy]:
    """Run the proxy."""
    with Proxy.open(server.port) as proxy:
        yield proxy


@pytest.fixture
def connection(proxy: Proxy) -> Iterator[socket.socket]:
    """Connect through the proxy, and see that it forwards."""
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=5) as connection:
        assert _ask(connection, b"first") == b"FIRST"
        yield connection


def _ask(connection: socket.socket, question: bytes) -> bytes:
    connection.sendall(question)
    return connection.recv(100)


def test_a_cut_resets_connections_and_new_ones_work(proxy: Proxy, connection: socket.socket) -> None:
    """As a load balancer that restarts."""
    proxy.cut()

    with pytest.raises(ConnectionResetError):
        connection.recv(100)
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=5) as fresh:
        assert _ask(fresh, b"again") == b"AGAIN"


def test_a_lost_reply_is_that_of_a_request_that_has_arrived(
    proxy: Proxy, connection: socket.socket, server: _Echo
) -> None:
    """The client cannot know whether it happened; it did."""
    proxy.lose_replies()
    time.sleep(0.05)  # the proxy has no answer to this call to wait for

    with pytest.raises(ConnectionResetError):
        _ask(connection, b"commit")
    assert server.received[-1] == b"commit"


def test_a_black_hole_loses_nothing_once_it_is_healed(proxy: Proxy, connection: socket.socket) -> None:
    """Nothing is answered and nothing refused meanwhile."""
    proxy.go_silent()
    time.sleep(0.05)  # see above
    connection.settimeout(0.2)

    with pytest.raises(TimeoutError):
        _ask(connection, b"hello?")
    connection.settimeout(5)
    proxy.heal()

    assert connection.recv(100) == b"HELLO?"


def test_a_delay_counts_both_ways(proxy: Proxy, connection: socket.socket) -> None:
    """Request and answer wait."""
    proxy.delay = 0.1
    started = time.monotonic()

    _ask(connection, b"slow")

    assert time.monotonic() - started >= 0.2


def test_a_server_that_is_gone_is_told_as_a_closed_connection(server: _Echo, proxy: Proxy) -> None:
    """The proxy itself is there: what clients of a load balancer see."""
    server.close()

    with socket.create_connection(("127.0.0.1", proxy.port), timeout=5) as connection:
        try:
            answer = connection.recv(100)
        except ConnectionResetError:
            answer = b""
    assert answer == b""


def test_a_change_of_target_reaches_new_connections_only(server: _Echo, proxy: Proxy) -> None:
    """And only when its delay is over: an address that leads to the new primary late, and cuts nobody."""
    other = _Echo()
    with _connect(proxy) as old:
        assert _ask(old, b"a") == b"A"

        proxy.lead_to(other.port, delay=0.2)

        with _connect(proxy) as early:
            assert _ask(early, b"b") == b"B"
        wait_until(lambda: _is_led_to(other, proxy), 5)
        assert _ask(old, b"c") == b"C"
    assert server.received[:2] == [b"a", b"b"]
    assert server.received[-1] == b"c"
    other.close()


def _connect(proxy: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=5)


def _is_led_to(server: _Echo, proxy: Proxy) -> bool:
    with _connect(proxy) as connection:
        _ask(connection, b"x")
    return server.received != []
