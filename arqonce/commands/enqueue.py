"""``enqueue JOB``: one command for each job of the registry, with the payload's fields as options."""

import asyncio
import inspect
import json
from collections.abc import Callable, Collection
from dataclasses import dataclass, is_dataclass
from datetime import timedelta
from enum import Enum
from types import UnionType
from typing import Annotated, Any, NewType, Union, get_args, get_origin

import typer
from pydantic import AliasChoices, BaseModel
from pydantic.fields import FieldInfo

from arqonce.client.client import JobClient, JobHandle
from arqonce.commands.durations import duration_of
from arqonce.commands.program import program
from arqonce.failures import InvalidPayloadError, JobFailedError
from arqonce.payloads import Payload
from arqonce.process.exit_codes import ExitCode
from arqonce.settings.worker import QueueSettings, WorkerSettings
from arqonce.spec import Registry
from arqonce.wire.arguments import read_payload
from arqonce.wire.status import JobStatus


@dataclass(frozen=True)
class _Option:
    kind: object
    text: str
    default: object = None


OWN_OPTIONS = {
    "key": _Option(str | None, "Idempotency key: a repeated key enqueues nothing."),
    "delay": _Option(str | None, "Run after this delay, such as 30s or 5m."),
    "unique_for": _Option(str | None, "An equal job of the last 10m, 1h and so on is the same job. Not with a key."),
    "expires": _Option(str | None, "If no worker has started it in this time from now, such as 1h, do not run it."),
    "wait": _Option(bool, "Wait for the result and print it.", default=False),
    "timeout": _Option(str, "Longest wait for the result, from when the job is due.", default="30s"),
    "json": _Option(bool, "Print one JSON object, for scripts.", default=False),
}
"""The options of every job. Where a field has the name of one, the option begins with ``--job-``."""


_OWN = "_own_"
"""Begins the parameters of own options: no field of a model begins with an underscore."""


def build_enqueue_app(registry: Registry) -> typer.Typer:
    """Build the command group from the registry."""
    app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
    for spec in registry:
        app.command(spec.name, help=spec.payload.__doc__)(_build_command(spec.payload))
    return app


def _build_command(payload: type[Payload[BaseModel]]) -> Callable[..., None]:
    def command(**options: Any) -> None:  # noqa: ANN401 - typer fills in the signature below
        own = {name: options.pop(_OWN + name) for name in OWN_OPTIONS}
        given = {name: value for name, value in options.items() if value is not None}
        fields = {name: _parse(payload.model_fields[name], name, value) for name, value in given.items()}
        asyncio.run(_enqueue(read_payload(payload, [], fields), _read_request(own)))

    fields = [_parameter(name, field, payload) for name, field in payload.model_fields.items()]
    own = [_own_parameter(name, option, payload) for name, option in OWN_OPTIONS.items()]
    command.__signature__ = inspect.Signature(fields + own)  # type: ignore[attr-defined] # inspect's own protocol
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in fields + own}
    return command


def _parameter(name: str, field: FieldInfo, payload: type[Payload[BaseModel]]) -> inspect.Parameter:
    wants = "JSON" if _is_json(field.annotation) else "TEXT"
    need = "Required." if field.is_required() else None
    option = typer.Option(*_flags(name, field, payload), metavar=wants, help=need)
    return _keyword(name, Annotated[str | None, option], None)


def _flags(name: str, field: FieldInfo, payload: type[BaseModel]) -> list[str]:
    """Return the names of a field's option: those under which messages have it, each with hyphens as well."""
    alias = field.validation_alias
    others = alias.choices if isinstance(alias, AliasChoices) else [alias]
    names = [name, *(one for one in others if isinstance(one, str) and one not in payload.model_fields)]
    taken = {_own_flag(own, payload) for own in OWN_OPTIONS}
    flags = dict.fromkeys(f"--{form}" for one in names for form in (one, one.replace("_", "-")))
    return [flag for flag in flags if flag not in taken]


def _own_flag(name: str, payload: type[BaseModel]) -> str:
    return ("--job-" if name in payload.model_fields else "--") + name.replace("_", "-")


def _own_parameter(name: str, option: _Option, payload: type[Payload[BaseModel]]) -> inspect.Parameter:
    given = typer.Option(_own_flag(name, payload), metavar=None if option.kind is bool else "TEXT", help=option.text)
    return _keyword(_OWN + name, Annotated[option.kind, given], option.default)


def _keyword(name: str, annotation: object, default: object) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)


def _is_json(annotation: object) -> bool:
    """Return whether a field holds a list, a mapping or a model, or may hold one."""
    if get_origin(annotation) in {Union, UnionType, Annotated}:
        return any(map(_is_json, get_args(annotation)))
    kind = get_origin(annotation) or annotation
    if isinstance(kind, NewType):
        return _is_json(kind.__supertype__)
    if not isinstance(kind, type) and hasattr(kind, "__value__"):  # of Python 3.12: type Lines = list[str]
        return _is_json(kind.__value__)
    if not isinstance(kind, type) or issubclass(kind, str | bytes | Enum):
        return False
    return issubclass(kind, Collection | BaseModel) or is_dataclass(kind)


def _parse(field: FieldInfo, name: str, value: str) -> object:
    if not _is_json(field.annotation):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise InvalidPayloadError(f"--{name} is not JSON: {error}") from None


@dataclass(frozen=True, kw_only=True)
class _Request:
    key: str | None
    delay: timedelta | None
    unique_for: timedelta | None
    expires: timedelta | None
    wait: bool
    timeout: timedelta
    json: bool


def _read_request(own: dict[str, Any]) -> _Request:
    times = {name: own[name] for name in ("delay", "unique_for", "expires", "timeout") if own[name] is not None}
    read = {
        name: duration_of("--" + name.replace("_", "-"), text, longest=timedelta.max) for name, text in times.items()
    }
    return _Request(**own | read)


async def _enqueue(payload: Payload[BaseModel], request: _Request) -> None:
    settings = QueueSettings.load()
    url, queue = settings.url.get_secret_value(), WorkerSettings.load().default_queue
    async with JobClient(url, password=settings.plain_password, queue=queue) as client:
        handle = await client.enqueue(
            payload, key=request.key, delay=request.delay, unique_for=request.unique_for, expires=request.expires
        )
        outcome = "new" if handle.is_new else "duplicate"
        answer: dict[str, Any] = {"job_id": handle.job_id, "outcome": outcome}
        if not request.json:
            typer.echo(f"job {handle.job_id} ({outcome})", err=request.wait)
        if request.wait:
            answer["result"] = await _wait(handle, request.timeout + (request.delay or timedelta(0)))
    if request.json:
        typer.echo(json.dumps(answer, ensure_ascii=False))
    elif request.wait:
        typer.echo(json.dumps(answer["result"], ensure_ascii=False, indent=2))


async def _wait(handle: JobHandle[BaseModel], longest: timedelta) -> dict[str, Any]:
    try:
        return (await handle.result(timeout=longest)).model_dump(mode="json")
    except JobFailedError as error:
        # Also if the worker rejects the payload: the job was enqueued, and has failed.
        typer.echo(f"{program()}: {error}", err=True)
        raise typer.Exit(ExitCode.FAILED) from error
    except TimeoutError as error:
        info = await handle.info()
        if info.status is not JobStatus.DEFERRED or info.due is None:
            raise
        text = f"job {handle.job_id} has no result after {longest}: its next attempt is due at {info.due:%X} UTC"
        raise TimeoutError(text) from error
