"""Builds the OpenAPI 3.1 document of the service from the models of requests and responses."""

import json
from typing import Any, Literal

from aiohttp import web
from aiohttp.typedefs import Handler
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from arqonce.versions import version_of
from jobs.payloads import CreateUser, CreateUsers, FoundUsers, StoredUsers, UserView
from web.answers import AcceptedJob
from web.job_status import JobView
from web.problems import PROBLEM_JSON, Problem
from web.users import ByEmail, ByName, NamedUser

_REF = "#/components/schemas/{model}"

_READ: list[type[BaseModel]] = [CreateUser, CreateUsers, ByName, ByEmail]
_WRITTEN: list[type[BaseModel]] = [NamedUser, UserView, FoundUsers, StoredUsers, AcceptedJob, JobView, Problem]

_REASONS = {
    400: "The body is not JSON or is malformed, or the Idempotency-Key is not a valid job id",
    401: "No bearer token, or an unknown one",
    404: "Not found",
    409: "While the client waited, the job failed: its e-mail is taken, it was aborted, or it has expired",
    408: "The body did not arrive in time",
    413: "The body, or the job, is too large",
    415: "The body is not application/json, or has an unknown Content-Encoding",
    422: "The request does not match this description, or its Idempotency-Key was used for another request",
    500: "An error of the service, or the job failed while the client waited",
    503: "PostgreSQL or Redis is unavailable, or too many jobs are queued: try again after Retry-After seconds",
}

_KEY_SCHEMA = {"type": "string", "minLength": 1, "maxLength": 200, "pattern": "^[!-~]+$"}
_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "Becomes the job's id: a repeated request is accepted and adds nothing. Bare or quoted.",
    "schema": _KEY_SCHEMA,
}
_PREFER = {
    "name": "Prefer",
    "in": "header",
    "description": "wait=N: respond with the result if it is ready within N seconds (RFC 7240).",
    "schema": {"type": "string", "examples": ["wait=5"]},
}
_SECONDS = {"type": "integer", "minimum": 1, "maximum": 999_999_999}
_UNIQUE_FOR = {
    "name": "Job-Unique-For",
    "in": "header",
    "description": "In seconds: an equal request that was accepted with it within that time is the same job. "
    "Not with an Idempotency-Key.",
    "schema": _SECONDS,
}
_EXPIRES_IN = {
    "name": "Job-Expires-In",
    "in": "header",
    "description": "In seconds from now: a job that no worker has started by then does not run, and fails.",
    "schema": _SECONDS,
}
_LOCATION = {"Location": {"required": True, "schema": {"type": "string"}}}
_RETRY_AFTER = {"Retry-After": {"required": True, "schema": {"type": "string", "pattern": "^[0-9]+$"}}}


def describe(*, needs_token: bool) -> Handler:
    """Return the handler of ``/openapi.json``."""
    body = json.dumps(build_document(needs_token=needs_token)).encode()

    async def show(_request: web.Request) -> web.StreamResponse:
        return web.Response(body=body, content_type="application/json")

    return show


def build_document(*, needs_token: bool) -> dict[str, Any]:
    """Build the document, with or without bearer authentication."""
    models: list[tuple[type[BaseModel], Literal["validation", "serialization"]]] = []
    models += [(model, "validation") for model in _READ]
    models += [(model, "serialization") for model in _WRITTEN]
    _, schemas = models_json_schema(models, ref_template=_REF)
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "users-web",
            "version": version_of("users-worker") or "0",
            "description": "Users, written by background jobs.",
        },
        "paths": _paths(schemas["$defs"], needs_token=needs_token),
        "components": {"schemas": schemas["$defs"]},
    }
    if needs_token:
        document["components"]["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"bearer": []}]
    return document


def _paths(schemas: dict[str, Any], *, needs_token: bool) -> dict[str, Any]:
    always = (401, 500, 503) if needs_token else (500, 503)

    def operation(name: str, *answers: dict[str, Any], problems: tuple[int, ...], **more: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
        responses = {key: answer for part in answers for key, answer in part.items()}
        responses |= {str(status): _problem(status) for status in sorted({*problems, *always})}
        return {"operationId": name, "responses": responses, **more}

    user = operation("userByName", _answer(200, NamedUser), problems=(404, 422), parameters=_query(ByName, schemas))
    found = operation("usersByEmail", _answer(200, FoundUsers), problems=(422,), parameters=_query(ByEmail, schemas))
    one = operation("userById", _answer(200, UserView), problems=(404,), parameters=[_ID])
    job = operation("jobById", _answer(200, JobView), problems=(404,), parameters=[_JOB_ID])
    post = operation(
        "createUser", _answer(201, UserView, _LOCATION), _ACCEPTED, problems=_REFUSALS, **_body(CreateUser)
    )
    batch = operation("createUsers", _answer(200, StoredUsers), _ACCEPTED, problems=_REFUSALS, **_body(CreateUsers))
    return {
        "/user": {"get": user},
        "/users": {"get": found, "post": post},
        "/users/{id}": {"get": one},
        "/users/batch": {"post": batch},
        "/jobs/{id}": {"get": job},
    }


_REFUSALS = (400, 408, 409, 413, 415, 422)

_ID = {
    "name": "id", "in": "path", "required": True, "schema": {"type": "integer", "minimum": 1, "maximum": 2**63 - 1},
}  # fmt: skip
_JOB_ID = {"name": "id", "in": "path", "required": True, "schema": _KEY_SCHEMA}  # fmt: skip


def _answer(status: int, model: type[BaseModel], headers: dict[str, Any] | None = None) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": _REF.format(model=model.__name__)}}}
    answer = {"description": (model.__doc__ or "").partition("\n")[0], "content": content}
    return {str(status): answer | ({"headers": headers} if headers else {})}


_ACCEPTED = _answer(202, AcceptedJob, _LOCATION)


def _problem(status: int) -> dict[str, Any]:
    content = {PROBLEM_JSON: {"schema": {"$ref": _REF.format(model=Problem.__name__)}}}
    headers = {"headers": _RETRY_AFTER} if status == 503 else {}  # noqa: PLR2004 - the retryable status
    return {"description": _REASONS[status], "content": content, **headers}


def _query(model: type[BaseModel], schemas: dict[str, Any]) -> list[dict[str, Any]]:
    fields = schemas.pop(model.__name__)["properties"]
    return [{"name": name, "in": "query", "required": True, "schema": schema} for name, schema in fields.items()]


def _body(model: type[BaseModel]) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": _REF.format(model=model.__name__)}}}
    return {
        "parameters": [_KEY, _UNIQUE_FOR, _EXPIRES_IN, _PREFER],
        "requestBody": {"required": True, "content": content},
    }
