"""What REDIS_URL may say, as a table. Needs no server."""

from typing import Any

import pytest
from pydantic import SecretStr
from redis.asyncio import Redis

from arqonce.connection.redis import build_redis, build_sync_redis, location
from arqonce.connection.url import RedisURLError, read_redis_url, with_sentinel_password
from arqonce.environment import SettingsError
from arqonce.failures import QueueUnavailableError
from arqonce.process.plain import redis_settings
from arqonce.settings.queue import QueueSettings

LOCATIONS = {
    "redis://host": "host:6379/0",
    "redis://user:hidden@host:1/2": "host:1/2",
    "rediss://host/?db=3": "host:6379/3",
    "redis://host/1?db=3": "host:6379/3",  # redis-py's rule
    "redis://[::1]:7/0": "[::1]:7/0",
    "valkey://host:1/2": "host:1/2",
    "valkeys://host": "host:6379/0",
    "unix:///run/redis.sock?db=1": "/run/redis.sock",
    "REDIS://Host:1": "host:1/0",
    "Redis+Sentinel://s1/mymaster": "mymaster by sentinels s1:26379",
    "redis+sentinel://s1:26379,s2:26380/mymaster/0": "mymaster by sentinels s1:26379, s2:26380",
    "redis+sentinel://s1,s2/mymaster": "mymaster by sentinels s1:26379, s2:26379",
    "redis+sentinel://user:hidden@s1/mymaster/4": "mymaster/4 by sentinels s1:26379",
    "redis+sentinel://s1/mymaster?db=4": "mymaster/4 by sentinels s1:26379",
    "rediss+sentinel://[::1]:1,[::2],10.0.0.1:3/my%20master": "my master by sentinels [::1]:1, [::2]:26379, 10.0.0.1:3",
    "valkey+sentinel://s1/mymaster/": "mymaster by sentinels s1:26379",
    "valkeys+sentinel://s1/mymaster?sentinel_password=hidden": "mymaster by sentinels s1:26379",
}

REFUSED = {
    "http://hidden": "is not a URL of Redis",
    "redis:hidden": "is not a URL of Redis",
    "redis://:hidden#hidden@host": "%23",
    "redis://host:hidden/0": "is not a URL",
    "redis://host:99999/0": "is not a URL",
    "redis://host:0/0": "has the port 0",
    "redis://:hidden/hidden@host/0": "must be percent-encoded: / is %2F, ? is %3F, @ is %40",
    "redis://:a@hidden/hidden@host/0": "must be percent-encoded: / is %2F, ? is %3F, @ is %40",
    "redis://:a@b?hidden@host/0": "must be percent-encoded: / is %2F, ? is %3F, @ is %40",
    "redis://host/0?socket_timeout=hidden&socket_timeout=5": "has an option twice",
    "redis://host/0?Socket_Timeout=hidden": "did you mean socket_timeout",
    "redis://[::1/0": "is not a URL",
    "redis://hidden:hidden@h1:1,h2:2/0": "for Sentinels write",
    "redis://host/hidden": "not a number",
    "redis://host/-1": "not a number",
    "redis+sentinel://s1": "does not name the primary",
    "redis+sentinel://s1/": "does not name the primary",
    "redis+sentinel://s1/0": "does not name the primary",
    "redis+sentinel://s1/mymaster/hidden": "not a number",
    "redis+sentinel://s1/mymaster/0/1": "not a number",
    "redis+sentinel:///mymaster": "not host:port",
    "redis+sentinel://s1,,s2/mymaster": "not host:port",
    "redis+sentinel://s1:hidden/mymaster": "not host:port",
    "redis+sentinel://s1:0/mymaster": "not host:port",
    "redis+sentinel://[::1/mymaster": "not host:port",
    "redis+sentinel://[::1]x/mymaster": "not host:port",
    "redis+sentinel://s1/mymaster?sentinel_pasword=hidden": "sentinel_pasword",
    "unix+sentinel:///s/mymaster": "is not a URL of Redis",
    "redis://host/0?decode_responses=true": "leave it out, messages are read as bytes",
    "unix:///run/redis.sock?encoding=latin-1": "leave it out, messages are read as bytes",
    "redis://host/0?protocol=hidden": "it is 2 or 3",
    "redis+sentinel://s1/mymaster?max_connections=5": "leave it out, there are as many",
    "redis://host/0?retry_on_timeout=true": "leave it out, what is retried",
    "redis://host/0?sokcet_timeout=hidden": "did you mean socket_timeout",
    "redis://host/0?whatever=hidden": "there are username, password",
    "redis://host/0?socket_timeout=hidden": "a number of seconds above 0",
    "redis://host/0?socket_timeout=0": "a number of seconds above 0",
    "redis://host/0?socket_connect_timeout=nan": "a number of seconds above 0",
    "redis://host/0?health_check_interval=": "a number of seconds above 0",
    "redis://host/0?socket_keepalive=hidden": "true or false",
    "rediss://host/0?ssl_cert_reqs=hidden": "one of required, optional, none",
    "unix:///run/redis.sock?db=hidden": "not a number",
    "unix://": "names no socket",
    "redis://host/0?ssl_cert_reqs=none": "ssl_cert_reqs, which only rediss:// has",
    "redis+sentinel://s1/mymaster?ssl_ca_certs=/ca.pem": "ssl_ca_certs, which only rediss:// has",
    "redis://host/0?client_name=of%20ours": "printable ASCII without spaces",
    "redis://a..hidden/0": "a part that is empty or longer than 63 characters",
    f"redis+sentinel://s1,{64 * 'h'}.example/mymaster": "a part that is empty or longer than 63 characters",
    "rediss://host/0?ssl_ca_certs=/no/such.pem": "a file with ssl_ca_certs that does not exist",
    f"rediss://host/0?ssl_ca_certs={__file__}": "a file with ssl_ca_certs that holds nothing in PEM",
    f"rediss+sentinel://s1/m?ssl_certfile={__file__}&ssl_keyfile={__file__}": "ssl_keyfile that cannot be used",
}


@pytest.mark.parametrize("url", LOCATIONS)
def test_a_url_says_where_redis_is(url: str) -> None:
    """In logs and errors, without user and password; both kinds of client take the URL."""
    built, blocking = build_redis(url, Redis), build_sync_redis(url)

    assert (location(url), "hidden" in repr(read_redis_url(url))) == (LOCATIONS[url], False)
    assert built.connection_pool.connection_kwargs.keys() <= blocking.connection_pool.connection_kwargs.keys()


@pytest.mark.parametrize("url", REFUSED)
def test_a_wrong_url_is_a_setting_that_is_wrong(url: str) -> None:
    """Its text names the cure, and repeats nothing that may be a password; so do the clients."""
    with pytest.raises(SettingsError, match=r"^REDIS_URL: ") as caught:
        QueueSettings.load(url=SecretStr(url))
    with pytest.raises(QueueUnavailableError, match=r"^REDIS_URL ") as told:
        build_redis(url, Redis)

    assert [REFUSED[url] in str(error.value) for error in (caught, told)] == [True, True]
    assert "hidden" not in f"{caught.value}{told.value}"


def test_servers_and_sentinels_have_users_and_passwords_of_their_own() -> None:
    """A + is a +, as in the part before the host; all else is percent-encoded."""
    url = "redis+sentinel://me:a%40b@s1/m/1?sentinel_username=you&sentinel_password=c+%26d&socket_timeout=2"

    address, kwargs = read_redis_url(url), build_redis(url, Redis).connection_pool.connection_kwargs

    assert (address.sentinel_username, address.sentinel_password) == ("you", "c+&d")
    assert [kwargs[name] for name in ("username", "password", "db", "socket_timeout")] == ["me", "a@b", 1, 2.0]


@pytest.mark.parametrize("url", ["redis+sentinel://s1/m", "redis+sentinel://s1/m?socket_timeout=2"])
def test_the_sentinels_password_may_be_a_setting(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """As the servers' may be; that of the URL comes first."""
    monkeypatch.setenv("REDIS_URL", url)
    monkeypatch.setenv("REDIS_SENTINEL_PASSWORD", "a/b&c")

    complete = QueueSettings.load().url.get_secret_value()

    assert read_redis_url(complete).sentinel_password == "a/b&c"  # noqa: S105 - a test's
    assert with_sentinel_password(complete, "other") == complete
    assert with_sentinel_password("redis://host", "unused") == "redis://host"


def test_arqs_own_check_asks_the_sentinels() -> None:
    """Its settings have no user and password of Sentinels: ``docs/operations.md`` says so."""
    settings = QueueSettings.load(
        url=SecretStr("rediss+sentinel://me:a%40b@s1:1,s2/mymaster/3"), password=SecretStr("other")
    )

    found = redis_settings(settings)

    assert (found.sentinel, found.sentinel_master, found.host) == (True, "mymaster", [("s1", 1), ("s2", 26379)])
    assert (found.ssl, found.username, found.password, found.database) == (True, "me", "other", 3)


def test_no_url_is_read_as_another() -> None:
    """``read_redis_url`` raises an error of its own, which is a ValueError."""
    with pytest.raises(RedisURLError):
        read_redis_url("")


TAKEN: dict[str, dict[str, object]] = {
    "redis://host/0?socket_timeout=2&socket_connect_timeout=1.5": {
        "socket_timeout": 2.0,
        "socket_connect_timeout": 1.5,
    },
    "redis://host/0?client_name=shop&socket_keepalive=false": {"client_name": "shop", "socket_keepalive": False},
    "redis://host/0?health_check_interval=30": {"health_check_interval": 30},
    "redis://host/0?username=me&password=secret": {"username": "me", "password": "secret"},
    "rediss://host/0?ssl_cert_reqs=none": {"ssl_cert_reqs": "none", "ssl_check_hostname": False},
    "rediss://host/0?ssl_cert_reqs=required": {"ssl_cert_reqs": "required", "ssl_check_hostname": True},
    "rediss://host/0?ssl_check_hostname=false": {"ssl_check_hostname": False},
    "rediss://:ssl_cert_reqs=none@host/0": {"ssl_check_hostname": True},  # a password, and no option
}


@pytest.mark.parametrize("url", TAKEN)
def test_an_option_that_is_taken_is_in_force(url: str) -> None:
    """In both clients, and their connections can be made with it."""
    pools: list[Any] = [build_redis(url, Redis).connection_pool, build_sync_redis(url).connection_pool]
    for pool in pools:
        options = pool.connection_kwargs

        assert {name: options[name] for name in TAKEN[url]} == TAKEN[url]
