"""Settings of the connection to the queue, for workers and for services that enqueue. Opens no connection."""

from typing import Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from arqonce.connection.url import read_redis_url, require_files, with_sentinel_password
from arqonce.environment import EnvironmentSettings


class QueueSettings(EnvironmentSettings):
    """The ``REDIS_*`` variables."""

    model_config = SettingsConfigDict(env_prefix="REDIS_")

    url: SecretStr = Field(
        description="URL of Redis or Valkey, which holds the queue; rediss:// for TLS, redis+sentinel:// for Sentinels",
        examples=["redis://host:6379/0"],
    )
    password: SecretStr | None = Field(
        default=None, description="password, if not in the URL", examples=["the password"]
    )

    sentinel_password: SecretStr | None = Field(
        default=None, description="password of the Sentinels, if not in the URL", examples=["the Sentinels' password"]
    )

    @property
    def plain_password(self) -> str | None:
        """The password in clear text, for connecting."""
        return None if self.password is None else self.password.get_secret_value()

    @field_validator("url")
    @classmethod
    def _require_redis(cls, value: SecretStr) -> SecretStr:
        require_files(read_redis_url(value.get_secret_value()))
        return value

    @model_validator(mode="after")
    def _complete_url(self) -> Self:
        """Put the Sentinels' password into the URL: other modules know of Sentinels only through it."""
        if self.sentinel_password is not None:
            url = with_sentinel_password(self.url.get_secret_value(), self.sentinel_password.get_secret_value())
            object.__setattr__(self, "url", SecretStr(url))  # the model is frozen
        return self
