"""Settings of the port of operations: metrics and probes. Reads the environment only in ``load``."""

from ipaddress import ip_address
from typing import Annotated, Self

from pydantic import AfterValidator, Field, SecretStr, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from arqonce.addresses import is_address, require_listening
from arqonce.environment import EnvironmentSettings

SHORTEST_TOKEN = 20
"""Shortest bearer token, in characters: a shorter one can be guessed."""


class OperationsSettings(EnvironmentSettings):
    """The ``OPS_*`` variables."""

    model_config = SettingsConfigDict(env_prefix="OPS_")

    port: Annotated[int, Field(ge=0, le=65535)] | None = Field(
        default=None,
        description="port of /metrics, /livez, /readyz and /queue.json; none by default; 0 selects a free one",
        examples=["9100"],
    )
    host: Annotated[str, Field(min_length=1), AfterValidator(require_listening)] = Field(
        default="127.0.0.1",
        description="address of that port; any but loopback needs a token",
        examples=["127.0.0.1"],
    )
    token: SecretStr | None = Field(
        default=None,
        description=f"bearer token for /metrics and /queue.json, of at least {SHORTEST_TOKEN} characters",
        examples=["what openssl rand -hex 24 prints"],
    )

    @field_validator("token")
    @classmethod
    def _require_strong_token(cls, value: SecretStr | None) -> SecretStr | None:
        token = "" if value is None else value.get_secret_value()
        if value is not None and len(token) < SHORTEST_TOKEN:
            raise ValueError(f"has less than {SHORTEST_TOKEN} characters")
        if not (token.isascii() and token.isprintable() and " " not in token):
            raise ValueError("has a character that no header can hold")
        return value

    @model_validator(mode="after")
    def _require_token_for_others(self) -> Self:
        if self.port is not None and self.token is None and not is_loopback(self.host):
            raise ValueError(
                f"OPS_TOKEN: is not set, but OPS_HOST is {self.host:.100}, which others can reach. Set it to what "
                "openssl rand -hex 24 prints, or put that in a file named ops_token in /run/secrets or $SECRETS_DIR; "
                "or listen on 127.0.0.1."
            )
        return self


def is_loopback(host: str) -> bool:
    """Return whether only this host can reach the address."""
    if is_address(host):
        return ip_address(host).is_loopback
    return host.lower() == "localhost"  # any other name may mean any address
