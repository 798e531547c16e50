"""Builds the contract: an AsyncAPI 3.0 document, and a JSON Schema (2020-12) for each payload and result.

The schemas are generated from the models that validate messages. They omit rules that JSON Schema cannot express, such
as ``FindUser``'s exactly one of three.
"""

import inspect
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from arqonce import failures
from arqonce.contract.aliases import AliasedSchemas
from arqonce.contract.redis import describe_redis
from arqonce.failures import JobFailedError
from arqonce.spec import JobSpec, Registry
from arqonce.wire.bounds import MAX_BYTES
from arqonce.wire.keys import LATEST_MS, QUEUE, RESULT_KEY
from arqonce.wire.trace import LONGEST_TRACESTATE, TRACEPARENT, TRACEPARENT_PATTERN, TRACESTATE

Schema = dict[str, Any]

DIALECT = "https://json-schema.org/draft/2020-12/schema"

_REF = "#/components/schemas/{model}"

_MS: Schema = {"type": "integer", "minimum": 0, "maximum": LATEST_MS, "description": "In ms since 1970."}

_EXPIRES = """\
Optional: when the job expires, in ms since 1970. A job that no worker has started by then does not run, and fails \
with expired. Older workers and plain arq workers ignore it. Let the message live longer than that: expiry_ms."""

_PARENT = "The id of the job whose handler enqueued this one, in its transaction. Nobody else writes it."

_TRACE = """\
Optional: the producer's W3C trace context, as OpenTelemetry's propagators write it into an object. The worker's spans \
are linked to it. What is invalid in it is ignored. Older workers and plain arq workers ignore all of it."""

_FAILURE = "JobFailure"
"""The schema name of failures."""


def result_message(job: str) -> str:
    """Return the name of the message that carries a job's result."""
    return f"{job}.result"


def build_document(registry: Registry, *, title: str, version: str) -> dict[str, Any]:
    """Return the AsyncAPI 3.0 document of all jobs, including those under former names."""
    payloads, results = _refs(registry)
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": title,
            "version": version,
            "description": "Jobs on arq's keys in Redis or Valkey, as JSON in UTF-8. x-redis has keys and commands; "
            "x-aliases of a field are other names under which it is read: one of them at a time.",
            "license": {"name": "MIT"},
        },
        "defaultContentType": "application/json",
        "channels": _channels(registry.names),
        "operations": {name: _operation(spec) for name, spec in registry.by_name.items()},
        "components": {
            "messages": dict(_messages(registry, payloads, results)),
            "schemas": _definitions(registry) | {_FAILURE: _failure_schema(registry)},
        },
        "x-redis": describe_redis(),
    }


def build_schemas(registry: Registry) -> dict[str, Schema]:
    """Return a separate JSON Schema for each payload and result and for failures, by file name."""
    schemas = {"failure.schema.json": _failure_schema(registry)}
    for spec in registry:
        schemas[f"{spec.name}.payload.schema.json"] = spec.payload.model_json_schema(
            schema_generator=AliasedSchemas, mode="validation"
        )
        answer: type[BaseModel] = spec.payload.result_type()
        schemas[f"{spec.name}.result.schema.json"] = answer.model_json_schema(mode="serialization")
    return {name: {"$schema": DIALECT} | schema for name, schema in schemas.items()}


def _channels(names: list[str]) -> dict[str, Any]:
    answers = [*map(result_message, names), "failure"]
    return {
        "queue": {
            "address": QUEUE,
            "title": "The queue",
            "description": f"Messages are written as x-redis says; each has at most {MAX_BYTES} bytes.",
            "messages": {name: _ref("components", "messages", name) for name in names},
        },
        "result": {
            "address": f"{RESULT_KEY}{{job_id}}",
            "title": "The answer of one job",
            "description": "A string, kept for an hour unless the worker is set otherwise.",
            "parameters": {"job_id": {"description": "The id under which the job was enqueued."}},
            "messages": {name: _ref("components", "messages", name) for name in answers},
        },
    }


def _ref(*path: str) -> Schema:
    return {"$ref": "#/" + "/".join(path)}


def _operation(spec: JobSpec[Any, Any]) -> dict[str, Any]:
    return {
        "action": "receive",
        "channel": _ref("channels", "queue"),
        "title": spec.name,
        "description": _described(spec),
        "messages": [_ref("channels", "queue", "messages", spec.name)],
        "reply": {
            "channel": _ref("channels", "result"),
            "messages": [
                _ref("channels", "result", "messages", name) for name in (result_message(spec.name), "failure")
            ],
        },
    }


def _described(spec: JobSpec[Any, Any]) -> str:
    if spec.name in spec.former_names:
        return f"A former name of {spec.payload.job_name}: new producers use that."
    return inspect.getdoc(spec.payload) or spec.name


def _messages(
    registry: Registry, payloads: dict[str, Schema], results: dict[str, Schema]
) -> Iterator[tuple[str, dict[str, Any]]]:
    for name in registry.names:
        yield name, {"name": name, "title": f"Do {name}", "payload": _job_schema(name, payloads[name])}
        answer = {"title": f"{name} is done", "payload": _answer_schema(results[name], name=name, is_success=True)}
        yield result_message(name), {"name": result_message(name)} | answer
    failed = _answer_schema(_ref("components", "schemas", _FAILURE), name=None, is_success=False)
    yield "failure", {"name": "failure", "title": "The job has failed", "payload": failed}


def _job_schema(name: str, payload: Schema) -> Schema:
    position = "Always []. Only producers that use arq itself pass the first fields of k by position."
    return {
        "type": "object",
        "required": ["t", "f", "a", "k", "et"],
        "properties": {
            "t": {"type": "null", "description": "arq's count of attempts."},
            "f": {"const": name},
            "a": {"type": "array", "maxItems": 0, "description": position},
            "k": payload,
            "et": _MS | {"description": "When the job was enqueued, in ms since 1970."},
            "xt": _MS | {"description": _EXPIRES},
            "p": {"type": "string", "description": _PARENT},
            "tc": _trace_schema(),
        },
    }


def _trace_schema() -> Schema:
    return {
        "type": "object",
        "description": _TRACE,
        "properties": {
            TRACEPARENT: {"type": "string", "pattern": TRACEPARENT_PATTERN},
            TRACESTATE: {"type": "string", "maxLength": LONGEST_TRACESTATE},
        },
    }


def _answer_schema(answer: Schema, *, name: str | None, is_success: bool) -> Schema:
    fields: Schema = {
        "s": {"const": is_success},
        "r": answer,
        "f": {"type": "string"} if name is None else {"const": name},
        "t": {"type": "integer", "description": "How many attempts there were."},
        "et": _MS | {"description": "When the job was enqueued, in ms since 1970; 0 if its message cannot be read."},
        "st": _MS | {"description": "When its last attempt began, in ms since 1970."},
        "ft": _MS | {"description": "When it ended, in ms since 1970."},
    }
    tag = {
        "type": "string",
        "description": "The tag of the request: another one than of a first answer, another request.",
    }
    return {"type": "object", "required": list(fields), "properties": fields | {"h": tag}}


def _refs(registry: Registry) -> tuple[dict[str, Schema], dict[str, Schema]]:
    """Return, by job, references to the schemas of payloads and of results."""
    found, _ = models_json_schema(_models(registry), ref_template=_REF, schema_generator=AliasedSchemas)
    payloads = {name: found[spec.payload, "validation"] for name, spec in registry.by_name.items()}
    results = {name: found[spec.payload.result_type(), "serialization"] for name, spec in registry.by_name.items()}
    return payloads, results


def _definitions(registry: Registry) -> dict[str, Schema]:
    _, schemas = models_json_schema(_models(registry), ref_template=_REF, schema_generator=AliasedSchemas)
    definitions: dict[str, Schema] = schemas.get("$defs", {})  # a registry may be empty yet
    return definitions


def _models(registry: Registry) -> list[tuple[type[BaseModel], Any]]:
    taken: list[tuple[type[BaseModel], Any]] = [(spec.payload, "validation") for spec in registry]
    return taken + [(spec.payload.result_type(), "serialization") for spec in registry]


def _failure_schema(registry: Registry) -> Schema:
    kinds = [{"const": kind, "description": text} for kind, text in _failure_codes(registry).items()]
    other = {"type": "string", "description": "A kind that a later version adds, or the class of a foreign exception."}
    return {
        "title": _FAILURE,
        "description": "Why a job has failed.",
        "type": "object",
        "required": ["type", "message"],
        "properties": {
            "type": {"anyOf": [*kinds, other]},
            "message": {"type": "string", "description": "For people. Our own failures never repeat a person's data."},
        },
    }


def _failure_codes(registry: Registry) -> dict[str, str]:
    """Return the meaning of each failure code: those of ``arqonce.failures`` and of the registry's refusals."""
    classes: list[type[JobFailedError]] = [
        found for found in vars(failures).values() if isinstance(found, type) and issubclass(found, JobFailedError)
    ]
    classes += [refusal.error for spec in registry for refusal in spec.refusals.values()]
    return {found.code: (inspect.getdoc(found) or found.code).splitlines()[0] for found in classes}
