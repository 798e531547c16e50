"""Settings of the console. Reads the environment only in ``load``."""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, field_validator, model_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from arqonce.addresses import require_listening
from arqonce.console.access import Peers, PersonName, Rights, TokenRights, read_peers
from arqonce.database.settings import DatabaseSettings
from arqonce.environment import Duration, EnvironmentSettings, at_most, fitting, require_valid
from arqonce.settings.operations import is_loopback
from arqonce.settings.queue import QueueSettings
from arqonce.settings.worker import WorkerSettings

_SHORTEST_KEY = 32

_LONGEST_WAIT = timedelta(seconds=1)
"""How much longer than a statement may take the client waits for a server that has become silent."""

LinkTemplate = Annotated[
    str, fitting(r"(https?://|/)[\x21-\x7e]{1,1000}", "is not a link: it begins with https://, http:// or /")
]

_NAME = re.compile(r"([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[0-9]+)?")
"""How a browser names a host, in lower case."""


def _names(hosts: str) -> list[str]:
    return [name for name in re.split(r"[\s,]+", hosts) if name]


def _read_json(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value, object_pairs_hook=_require_different)
    except json.JSONDecodeError as error:
        raise ValueError(f"is not JSON ({error.msg}, at character {error.pos + 1})") from None


def _require_different(entries: list[tuple[str, object]]) -> dict[str, object]:
    if len(found := dict(entries)) < len(entries):
        raise ValueError("is JSON in which an object has two entries of one name")
    return found


class ConsoleSettings(EnvironmentSettings):
    """The ``CONSOLE_*`` variables."""

    model_config = SettingsConfigDict(env_prefix="CONSOLE_")

    host: Annotated[str, Field(min_length=1), AfterValidator(require_listening)] = Field(
        default="127.0.0.1", description="address on which the console listens", examples=["127.0.0.1"]
    )
    port: Annotated[int, Field(ge=0, le=65535)] = Field(
        default=9180, description="its port; 0 selects a free one, which is logged", examples=["9180"]
    )
    socket: str | None = Field(
        default=None,
        description="Unix socket to listen on, in place of address and port",
        examples=["/run/console.sock"],
    )
    hosts: str | None = Field(
        default=None,
        description="names by which browsers reach it, with the port unless it is that of HTTP or HTTPS, separated by "
        "commas; localhost always is one",
        examples=["jobs.example.org"],
    )
    tokens: Annotated[Mapping[PersonName, TokenRights] | None, NoDecode, BeforeValidator(_read_json)] = Field(
        default=None,
        description="who may log in, as JSON with hashes of tokens; `console token NAME` makes a token and its entry",
        examples=["what the command console token prints"],
    )
    key: SecretStr | None = Field(
        default=None,
        description=f"key that signs cookies, of at least {_SHORTEST_KEY} characters; by default a new one at each "
        "start, which logs everybody out",
        examples=["what openssl rand -hex 32 prints"],
    )
    session: Duration = Field(default=timedelta(hours=8), description="how long a log-in holds", examples=["8h"])
    https: bool = Field(
        default=False,
        description="whether browsers reach it by HTTPS, through a proxy; then they send its cookie by HTTPS alone",
        examples=["true"],
    )
    proxies: str | None = Field(
        default=None,
        description="addresses and networks of proxies whose headers are believed, separated by commas; unix is "
        "whoever may connect to CONSOLE_SOCKET",
        examples=["10.0.0.5, 10.1.0.0/16"],
    )
    user_header: Annotated[str, fitting("[A-Za-z][A-Za-z0-9-]{0,99}", "is not a header's name")] | None = Field(
        default=None,
        description="header in which these proxies name the user that they have authenticated",
        examples=["X-Forwarded-User"],
    )
    users: Annotated[Mapping[PersonName, Rights] | None, NoDecode, BeforeValidator(_read_json)] = Field(
        default=None,
        description="rights of these users, as JSON",
        examples=['{"jane@example.org": {"role": "operator"}}'],
    )
    links: Annotated[Mapping[str, LinkTemplate] | None, NoDecode, BeforeValidator(_read_json)] = Field(
        default=None,
        description="links from jobs to pages of your own, by kind, as JSON; {job_id} is replaced",
        examples=['{"charge": "https://admin.example.org/charges?job={job_id}"}'],
    )
    statement_timeout: Annotated[Duration, at_most(timedelta(days=1))] = Field(
        default=timedelta(seconds=4),
        description="PostgreSQL cancels a statement of the console after this",
        examples=["4s"],
    )

    @property
    def trusted(self) -> Peers:
        """The proxies."""
        return read_peers(self.proxies or "")

    @property
    def names(self) -> frozenset[str]:
        """The names of this page, in lower case."""
        return frozenset(_names((self.hosts or "").lower()))

    @field_validator("hosts")
    @classmethod
    def _require_names(cls, value: str | None) -> str | None:
        for name in _names(value or ""):
            if not _NAME.fullmatch(name.lower()):
                raise ValueError(f"{name[:100]!r} is not a host as browsers name it, without scheme, path and *")
        return value

    @field_validator("socket")
    @classmethod
    def _require_socket(cls, value: str | None) -> str | None:
        if value is not None and os.path.exists(value) and not Path(value).is_socket():  # noqa: PTH110 - never raises
            raise ValueError("is there already, and is no socket: name another path")
        return value

    @field_validator("proxies")
    @classmethod
    def _require_peers(cls, value: str | None) -> str | None:
        read_peers(value or "")
        return value

    @field_validator("key")
    @classmethod
    def _require_strong_key(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value()) < _SHORTEST_KEY:
            raise ValueError(f"has less than {_SHORTEST_KEY} characters")
        return value

    @model_validator(mode="after")
    def _require_somebody(self) -> Self:
        if self.user_header is not None and (self.proxies is None or not self.users):
            raise ValueError(
                "CONSOLE_USER_HEADER: is set without CONSOLE_PROXIES and CONSOLE_USERS. Set both: whose header is "
                "believed, and what each user may do."
            )
        if self.trusted.unix and self.socket is None:
            raise ValueError(
                "CONSOLE_PROXIES: has unix, but CONSOLE_SOCKET is not set. Set it, or name the proxy's address."
            )
        if not self.tokens and self.user_header is None:
            raise ValueError(
                "CONSOLE_TOKENS: is not set, so nobody could log in. Set it to what the command console token prints, "
                "or put that in a file named console_tokens in /run/secrets or $SECRETS_DIR."
            )
        if not self.names and (self.socket is not None or not is_loopback(self.host)):
            raise ValueError(
                "CONSOLE_HOSTS: is not set, but others than this host can reach the console. Set it to the names that "
                "browsers use, such as jobs.example.org: requests for any other name are refused."
            )
        return self


@dataclass(frozen=True)
class Settings:
    """All settings of the console."""

    database: DatabaseSettings
    queue: QueueSettings
    worker: WorkerSettings
    console: ConsoleSettings

    @classmethod
    def load(cls, name: str = "arqonce") -> Self:
        """Read the environment and the secret files. ``name`` is the application's.

        Raises:
            SettingsError: lists every missing or invalid setting, one per line, with its cure.
        """
        require_valid(DatabaseSettings, QueueSettings, WorkerSettings, ConsoleSettings)
        console, database = ConsoleSettings.load(), DatabaseSettings.load()
        limits: dict[str, object] = {
            "statement_timeout": console.statement_timeout,
            "command_timeout": console.statement_timeout + _LONGEST_WAIT,
        }
        if "application_name" not in database.model_fields_set:
            limits["application_name"] = f"{name} console"
        return cls(database.model_copy(update=limits), QueueSettings.load(), WorkerSettings.load(), console)
