"""Where the queue is: the same for workers and for services that enqueue. Opens no connection."""

from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import SettingsConfigDict

from db.environment import EnvironmentSettings


class QueueSettings(EnvironmentSettings):
    """The ``REDIS_*`` variables."""

    model_config = SettingsConfigDict(env_prefix="REDIS_")

    url: SecretStr = Field(
        description="Redis or Valkey that holds the queue, as a URL; rediss:// for TLS",
        examples=["redis://host:6379/0"],
    )
    password: SecretStr | None = Field(
        default=None, description="password, where it shall not stand in the URL", examples=["the password"]
    )

    @property
    def plain_password(self) -> str | None:
        """The password in the clear, for connecting."""
        return None if self.password is None else self.password.get_secret_value()

    @field_validator("url")
    @classmethod
    def _require_redis(cls, value: SecretStr) -> SecretStr:
        try:
            parts = urlsplit(value.get_secret_value())
        except ValueError:
            raise ValueError("is not a URL") from None  # the original text repeats the URL and its password
        if parts.scheme not in {"redis", "rediss", "unix"}:
            raise ValueError("is not a URL of Redis")
        if parts.fragment:
            raise ValueError("has a #: write it as %23 in user or password")
        return value
