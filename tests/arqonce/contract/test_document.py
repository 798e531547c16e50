"""The contract is valid, and who knows nothing else can enqueue and read by it."""

import json
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import pytest
from jsonschema import Draft7Validator, Draft202012Validator
from pydantic import ValidationError
from redis.asyncio import Redis
from redis.exceptions import ResponseError
from referencing import Registry as Resources
from referencing.jsonschema import DRAFT202012
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce.contract.document import DIALECT, build_document, build_schemas
from arqonce.failures import JobFailedError
from arqonce.spec import Registry
from jobs.payloads import CreateUser, CreateUsers, FindUser, GetOrCreateUser, NewUser
from jobs.registry import REGISTRY
from tests.conftest import StartWorker, wait_until_async
from tests.programs import require

NODE = Path(__file__).parent / "node"

EXAMPLES = [
    CreateUser(name="Jane"),
    CreateUser(name="Jane", email="jane@example.org"),
    GetOrCreateUser(name="Jane", email="jane@example.org"),
    FindUser(name="Jane"),
    CreateUsers(users=[NewUser(name="Jane"), NewUser(name="Jim", email="jim@example.org")]),
]


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    """Build the document of all jobs, as it is read from a file."""
    built: dict[str, Any] = json.loads(json.dumps(build_document(REGISTRY, title="users-worker", version="1.0")))
    return built


@pytest.fixture(scope="module")
def asyncapi(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return AsyncAPI's own JSON Schema, from its npm package."""
    require("npm")
    folder = tmp_path_factory.mktemp("node")
    for name in ("package.json", "package-lock.json"):
        shutil.copy(NODE / name, folder)
    subprocess.run(["npm", "ci", "--no-audit", "--no-fund"], cwd=folder, check=True, capture_output=True)
    file = folder / "node_modules" / "@asyncapi" / "specs" / "schemas" / "3.0.0.json"
    schema: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return schema


def _validator(document: dict[str, Any], message: str) -> Draft202012Validator:
    """Return what judges a message by the document alone."""
    resources = Resources().with_resource("urn:contract", DRAFT202012.create_resource(document))
    return Draft202012Validator({"$ref": f"urn:contract#/components/messages/{message}/payload"}, registry=resources)


@pytest.mark.usefixtures("starts_processes")
def test_document_is_valid_by_the_schema_of_asyncapi(document: dict[str, Any], asyncapi: dict[str, Any]) -> None:
    """AsyncAPI publishes what a document of version 3.0.0 may hold."""
    judge = Draft7Validator(asyncapi)

    assert [error.message for error in judge.iter_errors(document)] == []
    assert not judge.is_valid(document | {"channels": {"queue": {"address": 1}}})


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    """AsyncAPI's schema does not follow them."""
    references = {value for key, value in _items(document) if key == "$ref"}

    for reference in references:
        found: Any = document
        for part in reference.removeprefix("#/").split("/"):
            found = found[part]
    assert len(references) > 20


def _items(node: Any) -> list[tuple[str, Any]]:  # noqa: ANN401 - JSON
    if isinstance(node, list):
        return [item for one in node for item in _items(one)]
    if isinstance(node, dict):
        return [*node.items(), *(item for one in node.values() for item in _items(one))]
    return []


@pytest.mark.parametrize("name", build_schemas(REGISTRY))
def test_each_json_schema_is_valid_and_stands_alone(name: str) -> None:
    """It names its dialect, and refers to nothing outside itself."""
    schema = json.loads(json.dumps(build_schemas(REGISTRY)[name]))

    Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == DIALECT
    assert {value for key, value in _items(schema) if key == "$ref" and not value.startswith("#/$defs/")} == set()


@pytest.mark.parametrize("payload", EXAMPLES, ids=lambda payload: payload.job_name)
def test_what_our_clients_write_is_in_the_contract(document: dict[str, Any], payload: CreateUser) -> None:
    """The same fields, in the same form."""
    message: dict[str, Any] = {"t": None, "f": payload.job_name, "a": [], "k": payload.model_dump(mode="json"), "et": 1}

    _validator(document, payload.job_name).validate(message)
    Draft202012Validator(build_schemas(REGISTRY)[f"{payload.job_name}.payload.schema.json"]).validate(message["k"])


@pytest.mark.parametrize(
    "fields", [{}, {"name": ""}, {"name": "x" * 201}, {"name": 1}, {"name": "Jane", "age": 1}, {"name": "\n"}]
)
def test_what_the_worker_refuses_is_not_in_the_contract(document: dict[str, Any], fields: dict[str, Any]) -> None:
    """As far as JSON Schema can say it."""
    message: dict[str, Any] = {"t": None, "f": "create_user", "a": [], "k": fields, "et": 1}

    assert not _validator(document, "create_user").is_valid(message)
    with pytest.raises(ValidationError):
        CreateUser.model_validate(fields)


def test_every_kind_of_failure_is_told(document: dict[str, Any]) -> None:
    """With what it means."""
    told = {
        kind["const"]: kind["description"]
        for kind in document["components"]["schemas"]["JobFailure"]["properties"]["type"]["anyOf"]
        if "const" in kind
    }

    assert {"email_taken", "invalid_payload", "aborted", JobFailedError.code} <= told.keys()
    assert told["email_taken"] == "Another user has this e-mail."


def _filled(parts: list[str], values: dict[str, str]) -> list[str]:
    return [values[part[1:-1]] if part[1:-1] in values else part.format(**values) for part in parts]


def _values(name: str, fields: dict[str, Any]) -> dict[str, str]:
    now = time.time_ns() // 1_000_000
    message = json.dumps({"t": None, "f": name, "a": [], "k": fields, "et": now})
    return {"job_id": uuid4().hex, "message": message, "due_ms": str(now), "expiry_ms": "600000"}


async def _send(redis: Any, commands: list[list[str]]) -> list[Any]:  # noqa: ANN401 - see below
    """Send them on one connection, as they are: redis-py's client takes no transaction that is written by hand."""
    connection = redis.connection_pool.make_connection()
    await connection.connect()
    answers = []
    for command in commands:
        await connection.send_command(*command)
        answers.append(await connection.read_response())
    await connection.disconnect()
    return answers


async def _answer(redis: Any, document: dict[str, Any], values: dict[str, str]) -> dict[str, Any]:  # noqa: ANN401 - see below
    (command,) = document["x-redis"]["result"]["commands"]
    command = _filled(command, values)

    async def is_there() -> bool:
        return await redis.execute_command(*command) is not None

    await wait_until_async(is_there, 20)
    answer: dict[str, Any] = json.loads(await redis.execute_command(*command))
    return answer


async def test_a_producer_that_knows_only_the_document_gets_its_answers(
    document: dict[str, Any],
    redis: Any,  # noqa: ANN401 - Redis, whose execute_command has no types
    start_worker: StartWorker,
    sessions: async_sessionmaker[AsyncSession],
) -> None:
    """By the plain commands and by the script; results and failures are as described."""
    assert sessions is not None  # it removes the users afterwards
    start_worker()
    recipe = document["x-redis"]["enqueue"]
    by_commands = _values("create_user", {"name": "Jane", "email": "jane@example.org"})
    by_script = _values("create_user", {"name": "Joan", "email": "jane@example.org"})

    said = await _send(redis, [_filled(command, by_commands) for command in recipe["commands"]])
    created = await _answer(redis, document, by_commands)
    keys, arguments = (_filled(recipe[part], by_script) for part in ("script_keys", "script_arguments"))
    added = [await redis.eval(recipe["script"], len(keys), *keys, *arguments) for _ in range(2)]
    refused = await _answer(redis, document, by_script)

    assert (said, added) == ([b"OK", b"QUEUED", b"QUEUED", [b"OK", 1]], [[1], [0]])
    _validator(document, "create_user.result").validate(created)
    _validator(document, "failure").validate(refused)
    assert (created["r"]["name"], refused["r"]["type"]) == ("Jane", "email_taken")


async def test_the_script_refuses_keys_in_a_wrong_order(document: dict[str, Any], redis: Redis) -> None:
    """Else the message would be written where the queue is, and no worker could go on."""
    recipe = document["x-redis"]["enqueue"]
    keys = _filled(recipe["script_keys"], {"job_id": "swapped"})

    for wrong in (list(reversed(keys)), keys[:1], ["arq:jobs:mistyped", keys[1]]):
        with pytest.raises(ResponseError, match="the keys must be arq:job:<id> of each job, and last the queue"):
            await cast("Any", redis).eval(recipe["script"], len(wrong), *wrong, "1", "1000", "{}")
    assert await redis.keys() == []


def test_a_registry_without_jobs_has_a_contract() -> None:
    """As a new project's, before its first job."""
    document = build_document(Registry(), title="shop", version="1")

    assert list(document["components"]["schemas"]) == ["JobFailure"]
