"""Settings of the HTTP service. Reads the environment only in ``load``."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, SecretStr, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from arqonce import DatabaseSettings, QueueSettings
from arqonce.addresses import require_listening
from arqonce.environment import Duration, EnvironmentSettings, require_valid
from arqonce.queues import ServedQueues
from arqonce.settings.operations import SHORTEST_TOKEN, OperationsSettings, is_loopback
from arqonce.wire.bounds import MAX_BYTES
from arqonce.wire.keys import QUEUE


def _require_one(queue: str) -> str:
    names = ServedQueues.parse(queue).names
    if len(names) > 1:
        raise ValueError(f"names {len(names)} queues: name the one of them in which jobs are to wait")
    return names[0]


class WebSettings(EnvironmentSettings):
    """The ``WEB_*`` variables."""

    model_config = SettingsConfigDict(env_prefix="WEB_")

    host: Annotated[str, Field(min_length=1), AfterValidator(require_listening)] = Field(
        default="127.0.0.1", description="address to listen on; any but loopback needs tokens", examples=["127.0.0.1"]
    )
    port: Annotated[int, Field(ge=0, le=65535)] = Field(
        default=8080, description="port to listen on; 0 selects a free one, which is logged", examples=["8080"]
    )
    tokens: SecretStr | None = Field(
        default=None,
        description=f"bearer tokens of at least {SHORTEST_TOKEN} characters, separated by white space",
        examples=["what openssl rand -hex 24 prints"],
    )
    queue: Annotated[str, AfterValidator(_require_one)] = Field(
        default=QUEUE, description="key of the queue, the same as the workers'", examples=[QUEUE]
    )
    accept_through: Literal["queue", "outbox"] = Field(
        default="queue",
        description="queue: write jobs into Redis; outbox: promise them in PostgreSQL, even while Redis is unavailable",
        examples=["queue", "outbox"],
    )
    max_queued: Annotated[int, Field(ge=1)] = Field(
        default=100_000, description="no more jobs are accepted when the queue has this many", examples=["100000"]
    )
    max_body: Annotated[int, Field(ge=1024, le=MAX_BYTES)] = Field(
        default=MAX_BYTES, description="largest body of a request, in bytes", examples=[str(MAX_BYTES)]
    )
    max_header: Annotated[int, Field(ge=4096, le=1024 * 1024)] = Field(
        default=16 * 1024,
        description="largest header of a request, in bytes; its URL may have half of it",
        examples=["16384"],
    )
    max_connections: Annotated[int, Field(ge=1, le=100_000)] = Field(
        default=1000,
        description="most open connections; new ones get 503. The process needs twice as many open files",
        examples=["1000"],
    )
    header_timeout: Duration = Field(
        default=timedelta(seconds=10),
        description="longest time for a header to arrive, from its first byte, or from the connection's start",
        examples=["10s"],
    )
    body_timeout: Duration = Field(
        default=timedelta(seconds=30), description="longest time for a body to arrive", examples=["30s"]
    )
    send_timeout: Duration = Field(
        default=timedelta(seconds=30), description="longest time for a client to take a response", examples=["30s"]
    )
    idle_timeout: Duration = Field(
        default=timedelta(seconds=75),
        description="how long an idle connection is kept; longer than a proxy before the service keeps it",
        examples=["75s"],
    )
    max_wait: Duration = Field(
        default=timedelta(seconds=30), description="longest wait for Prefer: wait=N", examples=["30s"]
    )
    pool_size: Annotated[int, Field(ge=1, le=1000)] = Field(
        default=10, description="most connections to PostgreSQL", examples=["10"]
    )
    shutdown_grace: Duration = Field(
        default=timedelta(seconds=20),
        description="how long requests may continue after SIGTERM; the supervisor's own limit must be longer",
        examples=["20s"],
    )
    log_format: Literal["auto", "console", "json"] = Field(
        default="auto", description="console for people, json for machines; auto: console on a terminal",
        examples=["auto", "console", "json"],
    )  # fmt: skip
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="lowest level to log", examples=["debug", "info", "warning", "error"]
    )

    @property
    def token_list(self) -> list[str]:
        """The tokens in clear text."""
        return [] if self.tokens is None else self.tokens.get_secret_value().split()

    @field_validator("tokens")
    @classmethod
    def _require_strong_tokens(cls, value: SecretStr | None) -> SecretStr | None:
        for token in [] if value is None else value.get_secret_value().split():
            if len(token) < SHORTEST_TOKEN:
                raise ValueError(f"has a token of less than {SHORTEST_TOKEN} characters")
            if "," in token:
                raise ValueError("has a token with a comma: tokens are separated by white space")
            if not (token.isascii() and token.isprintable()):
                raise ValueError("has a token with a character that no header can hold")
        return value

    @model_validator(mode="after")
    def _require_tokens_for_others(self) -> Self:
        if not self.token_list and not is_loopback(self.host):
            raise ValueError(
                f"WEB_TOKENS: is not set, but WEB_HOST is {self.host:.100}, which others can reach. Set it to what "
                "openssl rand -hex 24 prints, or put that in a file named web_tokens in /run/secrets or $SECRETS_DIR; "
                "or listen on 127.0.0.1."
            )
        return self


@dataclass(frozen=True)
class Settings:
    """All settings of the service."""

    database: DatabaseSettings
    queue: QueueSettings
    web: WebSettings
    operations: OperationsSettings | None = None

    @classmethod
    def load(cls) -> Self:
        """Read the environment and the secret files.

        Raises:
            SettingsError: lists every missing or invalid setting, one per line, with its cure.
        """
        require_valid(DatabaseSettings, QueueSettings, WebSettings, OperationsSettings)
        database = DatabaseSettings.load()
        if "application_name" not in database.model_fields_set:
            database = database.model_copy(update={"application_name": "users-web"})
        return cls(database, QueueSettings.load(), WebSettings.load(), OperationsSettings.load())
