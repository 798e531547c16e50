"""Reads settings from the environment and from secret files, and explains invalid ones.

Owns the rules that all settings classes share. Reads nothing until ``load`` is called.
"""

import os
import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, get_origin

from pydantic import AfterValidator, BeforeValidator, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SecretsSettingsSource,
    SettingsConfigDict,
)

from arqonce.misspelt import misspelt

_DEFAULT_SECRETS = Path("/run/secrets")
"""Where Docker and Podman mount secrets. ``SECRETS_DIR`` overrides it (systemd: ``%d``)."""

_SHORTEST = timedelta(milliseconds=1)
"""To PostgreSQL and Redis, which count in ms, less would be 0: no limit, or an error."""

_UNITS = {"ms": 0.001, "": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|)")


_AT_ENDS = " \t\r\n\v\f\0\ufeff\u200b\u00a0"
"""Characters that have no meaning at the ends of a value: white space, and the marks of text files."""


_UNFIT = re.compile("[\0\ud800-\udfff]")
"""NUL, and what Python makes of bytes that are not UTF-8: no server takes them, and drivers stumble over them."""

_QUOTES = ("'", '"')
"""A pair around a value is dropped: the env-file of Docker and the data of a Kubernetes secret keep it."""

_AS_THEY_ARE = "password"
"""Settings with this ending keep their quotes, which may be meant."""


class SettingsError(ValueError):
    """Settings are missing or invalid. The text has one line for each, with its cure."""


def read_duration(text: str) -> timedelta:
    """Parse a duration such as ``500ms``, ``30s``, ``5m``, ``1h`` or ``2d``; a bare number is seconds.

    Raises:
        ValueError: ``text`` is not a duration.
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ValueError("is not a duration such as 500ms, 30s, 5m, 1h or 2d (a bare number is seconds)")
    try:
        return timedelta(seconds=float(match[1]) * _UNITS[match[2]])
    except OverflowError:
        raise ValueError("is longer than the longest duration that can be represented") from None


def _parse_duration(value: object) -> object:
    return read_duration(value) if isinstance(value, str) else value


def _require_positive(value: timedelta) -> timedelta:
    if value < _SHORTEST:
        raise ValueError("must be at least 1ms")
    return value


def fitting(pattern: str, problem: str) -> AfterValidator:
    """Return what refuses a text that does not match the pattern as a whole."""

    def require(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(problem)
        return value

    return AfterValidator(require)


def at_most(longest: timedelta) -> AfterValidator:
    """Return what refuses a longer duration."""

    def require(value: timedelta) -> timedelta:
        if value > longest:
            raise ValueError(
                f"must be at most {longest.days}d" if longest.days else f"must be at most {longest.seconds}s"
            )
        return value

    return AfterValidator(require)


PositiveDuration = Annotated[timedelta, BeforeValidator(_parse_duration), AfterValidator(_require_positive)]
"""A positive duration, written ``500ms``, ``30s``, ``5m``, ``1h`` or ``2d``; a bare number is seconds."""

LONGEST = timedelta(days=36_500)
"""100 years: longer ones are beyond what timers and PostgreSQL's times can represent."""

Duration = Annotated[PositiveDuration, at_most(LONGEST)]
"""One of at most 100 years."""


class EnvironmentSettings(BaseSettings):
    """Settings from environment variables and, for secrets, from files of the same name in lower case."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    other_names: ClassVar[Mapping[str, str]] = {}
    """Names that other libraries have for what a field is here: refused, with the field that is meant."""

    @classmethod
    def load(cls, **values: Any) -> Self:  # noqa: ANN401 - passed on to pydantic, which checks it
        """Read and validate the settings; ``values`` override the environment.

        Raises:
            SettingsError: a setting is missing, invalid or misspelt; the text names it and the cure.
        """
        wrong_names = list(_misspelt(cls))
        try:
            settings = cls(**values)
        except ValidationError as error:
            # "from None": the original error would print the values, including secrets.
            raise SettingsError("\n".join([*(_explain(cls, each) for each in error.errors()), *wrong_names])) from None
        if wrong_names:
            raise SettingsError("\n".join(wrong_names))
        return settings

    @classmethod
    def variable(cls, field: str) -> str:
        """Return the name of the environment variable of ``field``."""
        return f"{cls.model_config['env_prefix']}{field}".upper()

    @classmethod
    def given(cls, field: str) -> str | None:
        """Return the text of ``field`` in the environment or its secret file, not validated; ``None`` if it is not set.

        Raises:
            SettingsError: a secret file cannot be read.
        """
        for source in cls._sources(EnvSettingsSource(cls)):
            if (value := source().get(field)) is not None:
                return str(value)
        return None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the hook's signature
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the hook's signature
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the hook's signature
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return the sources: environment, then secret files. The directory is read on each load, not on import."""
        return (init_settings, *cls._sources(env_settings))

    @classmethod
    def _sources(cls, environment: PydanticBaseSettingsSource) -> Iterator[PydanticBaseSettingsSource]:
        yield _Trimmed(cls, environment)
        if directory := _secrets_directory():
            _require_readable(cls, directory)
            yield _Trimmed(cls, SecretsSettingsSource(cls, secrets_dir=directory))


class _Trimmed(PydanticBaseSettingsSource):
    """Another source without what editors, shells and Kubernetes' secrets add to values. An empty value is none.

    One of several words may be in capitals, as in INFO.
    """

    def __init__(self, settings_cls: type[BaseSettings], source: PydanticBaseSettingsSource) -> None:
        super().__init__(settings_cls)
        self._source = source

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Return what the other source has."""
        return self._source.get_field_value(field, field_name)

    def __call__(self) -> dict[str, Any]:
        """Return the values that are left."""
        given = self._source()
        for name, value in given.items():
            if isinstance(value, str) and _UNFIT.search(value.strip(_AT_ENDS)):
                variable = f"{self.settings_cls.model_config['env_prefix']}{name}".upper()
                raise SettingsError(f"{variable}: is not text in UTF-8, or has a NUL in it. Write it anew.")
        trimmed = {
            name: self._trimmed(name, value) if isinstance(value, str) else value for name, value in given.items()
        }
        return {name: self._word(name, value) for name, value in trimmed.items() if value != ""}

    @staticmethod
    def _trimmed(name: str, value: str) -> str:
        text = value.strip(_AT_ENDS)
        if name.endswith(_AS_THEY_ARE) or text[:1] not in _QUOTES or len(text) < 2 or text[-1] != text[0]:  # noqa: PLR2004
            return text
        return text[1:-1].strip(_AT_ENDS)

    def _word(self, name: str, value: object) -> object:
        field = self.settings_cls.model_fields.get(name)
        is_choice = field is not None and get_origin(field.annotation) is Literal
        return value.lower() if is_choice and isinstance(value, str) else value


def require_valid(*kinds: type[EnvironmentSettings]) -> None:
    """Check that all of these classes can be loaded.

    Raises:
        SettingsError: lists every missing or invalid setting, one per line, with its cure.
    """
    problems = []
    for kind in kinds:
        try:
            kind.load()
        except SettingsError as error:
            problems.append(str(error))
    if problems:
        raise SettingsError("\n".join(problems))


def _secrets_directory() -> Path | None:
    named = os.environ.get("SECRETS_DIR", "").strip(_AT_ENDS)
    directory = Path(named) if named else _DEFAULT_SECRETS
    if directory.is_dir():
        return directory
    if named:
        message = f"SECRETS_DIR: {named} is not a directory. Create it or unset SECRETS_DIR."
        raise SettingsError(message)
    return None


def _require_readable(cls: type[BaseSettings], directory: Path) -> None:
    for field in cls.model_fields:
        file = directory / f"{cls.model_config['env_prefix']}{field}".lower()
        if not file.exists():
            continue
        try:
            if not file.is_file():  # the text of a pipe could be read once only
                raise SettingsError(f"{file.name.upper()}: {file} is not a file. Put the value into a file.")
            file.read_text()
        except OSError:
            user = os.geteuid()
            text = f"{file.name.upper()}: {file} cannot be read by user {user}. Make it readable: chmod or chown."
            raise SettingsError(text) from None
        except UnicodeDecodeError:
            raise SettingsError(f"{file.name.upper()}: {file} is not text in UTF-8. Rewrite it in UTF-8.") from None


_PROBLEMS = {
    "missing": "is not set",
    "extra_forbidden": "there is no such entry",
    "dict_type": "is not an object of JSON",
    "model_type": "is not an object of JSON",
}
"""What is said of pydantic's errors where its own text is for programmers."""

_OF_KUBERNETES = "has what Kubernetes sets for a Service of this name: write enableServiceLinks: false for the pod"


def _explain(cls: type[EnvironmentSettings], detail: ErrorDetails) -> str:
    field = str(detail["loc"][0]) if detail["loc"] else ""
    info = cls.model_fields.get(field)
    if info is None:
        return detail["msg"].removeprefix("Value error, ")
    problem = _PROBLEMS.get(detail["type"]) or detail["msg"].removeprefix("Value error, ")
    if field == "port" and str(detail["input"]).startswith("tcp://"):
        problem = _OF_KUBERNETES
    # Shortened: somebody may have put a token where a name belongs.
    place = ".".join(f"{part:.15}" for part in map(str, detail["loc"][1:]) if part != "[key]")
    return f"{cls.variable(field)}: {f'{place}: ' if place else ''}{problem}. {_cure(cls, field, info)}"


def _cure(cls: type[EnvironmentSettings], field: str, info: FieldInfo) -> str:
    cure = _set_it_to([str(example) for example in info.examples or []]) or f"It is: {info.description}"
    if "Secret" in str(info.annotation):
        cure += f", or put that in a file named {cls.variable(field).lower()} in /run/secrets or $SECRETS_DIR"
    return cure + "."


def _set_it_to(examples: list[str]) -> str:
    match examples:
        case []:
            return ""
        case [example]:  # a value, or a description of it
            return f"Set it to {example}" if " " in example else f"Set it to a value such as {example}"
        case _:
            return f"Set it to one of {', '.join(examples)}"


def _misspelt(cls: type[EnvironmentSettings]) -> Iterator[str]:
    known = {cls.variable(field): cls.variable(field) for field in cls.model_fields}
    known |= {cls.variable(name): cls.variable(field) for name, field in cls.other_names.items()}
    return misspelt(known, cls.model_config["env_prefix"], os.environ)
