"""Each recipe of docs/changing-jobs.md: messages of the old code, run by real workers with the new code."""

import importlib
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from pydantic import BaseModel
from redis import Redis as SyncRedis
from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce.client.sync_client import SyncJobClient
from arqonce.contract.compatibility import find_breaks
from arqonce.contract.document import build_document
from arqonce.execution.attempt import Dispatcher
from arqonce.execution.delivery import Delivery
from arqonce.failures import InvalidPayloadError, KeyConflictError, RequestConflictError
from arqonce.outbox import enqueue_in
from arqonce.spec import Registry
from tests import warm
from tests.promised import whereabouts

pytestmark = pytest.mark.usefixtures("starts_processes")

ROOT = Path(__file__).parents[2]
BLOCKS: list[str] = re.findall(
    r"^```python\n(.*?)^```", (ROOT / "docs" / "changing-jobs.md").read_text(), re.DOTALL | re.MULTILINE
)

HEAD = """
from typing import Any, ClassVar
from pydantic import AliasChoices, Field
from sqlalchemy import text
from jobs.fields import UserName
from arqonce.payloads import Payload, Result
from arqonce.spec import JobSpec, Registry

class UserView(Result):
    seen: dict[str, Any]

async def change_name(session, payload):
    await session.execute(text("INSERT INTO users (name) VALUES ('effect')"))
    return UserView(seen=payload.model_dump(mode="json"))
"""
TAIL = "\nif 'REGISTRY' not in vars():\n    REGISTRY = Registry(JobSpec(RenameUser, change_name))\n"

OLD = {"id": 1, "name": "Jane", "reason": "wedding"}
RECIPES = {
    "add a field": (1, OLD | {"asked_by": None}),
    "rename a field": (2, {"id": 1, "full_name": "Jane", "reason": "wedding"}),
    "remove a field": (3, OLD),
    "rename a job": (4, OLD),
}
EACH = pytest.mark.parametrize(("block", "seen"), RECIPES.values(), ids=RECIPES)

Sessions = async_sessionmaker[AsyncSession]


@dataclass(frozen=True)
class Code:
    """Modules made of the document's blocks, and workers that run them; 0 is the code of before."""

    directory: Path
    environment: dict[str, str]

    def load(self, block: int) -> ModuleType:
        """Make a module of a block."""
        name = f"evolved_{block}"
        (self.directory / f"{name}.py").write_text(HEAD + BLOCKS[block] + TAIL)
        sys.modules.pop(name, None)
        importlib.invalidate_caches()
        return importlib.import_module(name)

    def run(self, block: int) -> None:
        """Run a worker with the code of a block until the queue is empty."""
        self.load(block)
        ours = {"PYTHONPATH": f"{self.directory}:{ROOT}", "WORKER_REGISTRY": f"evolved_{block}:REGISTRY"}
        command = [sys.executable, "-m", "worker", "run", "--burst"]
        done = warm.run(command, self.environment | ours)
        assert done.returncode == 0, done.stdout + done.stderr

    def queue(self, job_id: str) -> None:
        """Queue an old message as another language does; there is no result of it any more."""
        message: dict[str, Any] = {"t": None, "f": "rename_user", "a": [], "k": OLD, "et": 1}
        with SyncRedis.from_url(self.environment["REDIS_URL"]) as redis:
            redis.delete(f"arq:result:{job_id}")
            redis.set(f"arq:job:{job_id}", json.dumps(message))
            redis.zadd("arq:queue", {job_id: 1})

    def result(self, job_id: str) -> dict[str, Any]:
        """Return what Redis has as the job's result."""
        with SyncRedis.from_url(self.environment["REDIS_URL"]) as redis:
            found: dict[str, Any] = json.loads(redis.get(f"arq:result:{job_id}") or b"{}")
        return found


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], redis: Redis) -> Code:
    """Begin with an empty queue."""
    assert redis is not None
    monkeypatch.syspath_prepend(tmp_path)
    return Code(tmp_path, environment)


async def _effects(sessions: Sessions) -> int:
    async with sessions() as session:
        return int(await session.scalar(text("SELECT count(*) FROM users WHERE name = 'effect'")) or 0)


@EACH
async def test_a_message_of_the_old_code_is_run_by_the_new(
    code: Code, sessions: Sessions, block: int, seen: dict[str, Any]
) -> None:
    """It waits in the queue while the worker is replaced."""
    code.queue("old")

    code.run(block)

    result = code.result("old")
    assert (result["s"], result["f"], result["r"]["seen"]) == (True, "rename_user", seen)
    assert await _effects(sessions) == 1


@EACH
async def test_a_job_that_the_old_code_has_done_answers_the_new_from_its_receipt(
    code: Code, sessions: Sessions, block: int, seen: dict[str, Any]
) -> None:
    """The old worker dies between commit and answer; the job is delivered again, and takes effect no more."""
    assert seen
    code.queue("done")
    code.run(0)

    code.queue("done")
    code.run(block)

    result = code.result("done")
    assert (result["s"], result["r"]) == (True, {"seen": OLD})
    assert await _effects(sessions) == 1


@EACH
async def test_a_key_that_was_used_before_the_change_means_the_same_request(
    code: Code, sessions: Sessions, block: int, seen: dict[str, Any]
) -> None:
    """A producer of the old code, then the same request from one of the new code, its result long expired."""
    old, new = code.load(0), code.load(block)
    new_class = getattr(new, "ChangeName", None) or new.RenameUser
    with SyncJobClient(code.environment["REDIS_URL"]) as client:
        client.enqueue(old.RenameUser(**OLD), key="order-1")
        code.run(0)
        with SyncRedis.from_url(code.environment["REDIS_URL"]) as redis:
            redis.delete("arq:result:order-1")
        client.enqueue(new_class(**seen), key="order-1")
        code.run(block)

    assert code.result("order-1")["r"] == {"seen": OLD}
    assert await _effects(sessions) == 1


@EACH
async def test_a_promise_of_the_old_code_is_kept_by_the_new(
    code: Code, sessions: Sessions, block: int, seen: dict[str, Any]
) -> None:
    """Its row in the outbox goes with the effect, and a second delivery finds the receipt."""
    old, registry = code.load(0), _registry(code.load(block))
    async with sessions.begin() as session:
        await enqueue_in(session, old.RenameUser(**OLD), key="promised")
    delivery = Delivery("promised", 1, (), OLD)

    answers = [await Dispatcher(sessions).run(registry["rename_user"], delivery) for _ in range(2)]

    async with sessions() as session:
        assert await whereabouts(session, ["promised"]) == {"promised": ["receipts"]}
    assert answers == [{"seen": seen}] * 2
    assert await _effects(sessions) == 1


def _registry(module: ModuleType) -> Registry:
    registry: Registry = module.REGISTRY
    return registry


@EACH
def test_the_contract_of_the_old_code_bears_the_change(code: Code, block: int, seen: dict[str, Any]) -> None:
    """``users-worker schema --check`` lets each recipe through; the payload's schema tells the old name of a field."""
    old, new = (
        build_document(_registry(code.load(number)), title="users-worker", version="1.0") for number in (0, block)
    )

    fields = next(iter(new["components"]["messages"].values()))["payload"]["properties"]["k"]["$ref"].rpartition("/")[2]
    aliases = {
        name: field["x-aliases"]
        for name, field in new["components"]["schemas"][fields]["properties"].items()
        if "x-aliases" in field
    }
    assert find_breaks(old, new) == []
    assert aliases == ({"full_name": ["name"]} if "full_name" in seen else {})


async def test_another_request_under_an_old_key_is_still_refused(code: Code, sessions: Sessions) -> None:
    """A former name widens what is the same job, and not what is the same request."""
    registry = _registry(code.load(4))
    await Dispatcher(sessions).run(registry["rename_user"], Delivery("j1", 1, (), OLD))

    with pytest.raises(RequestConflictError):
        await Dispatcher(sessions).run(registry["change_name"], Delivery("j1", 2, (), OLD | {"id": 2}))


async def test_a_promise_under_a_key_of_before_the_renaming_is_refused(code: Code, session: AsyncSession) -> None:
    """Nothing is promised twice; its producer hears of it at once."""
    await enqueue_in(session, code.load(0).RenameUser(**OLD), key="k1")

    with pytest.raises(KeyConflictError):
        await enqueue_in(session, code.load(4).ChangeName(**OLD), key="k1")


@pytest.mark.parametrize(
    ("args", "fields", "problem"),
    [
        (["1"], {"full_name": "Jane", "name": "Jane"}, "name: Extra inputs are not permitted"),
        (["1", "Jane"], {"name": "Jane"}, "name: Extra inputs are not permitted"),
        (["1"], {}, "full_name: Field required"),
    ],
)
async def test_a_renamed_field_is_given_once(
    code: Code, sessions: Sessions, args: list[str], fields: dict[str, str], problem: str
) -> None:
    """By either name or by position; errors and positions have the name of today."""
    delivery = Delivery("j1", 1, tuple(args), fields)

    with pytest.raises(InvalidPayloadError, match=rf"rename_user: {problem}\. Its fields are: id, full_name, reason"):
        await Dispatcher(sessions).run(_registry(code.load(2))["rename_user"], delivery)


async def test_jobs_of_an_old_name_form_batches(code: Code) -> None:
    """A former name has all that the job has, its limits included."""
    registry = _registry(code.load(4))

    old, new = registry["rename_user"], registry["change_name"]

    assert (old.name, new.name, [spec.name for spec in registry]) == ("rename_user", "change_name", ["change_name"])
    assert (old.payload, old.handler, old.batch, old.deadline) == (new.payload, new.handler, new.batch, new.deadline)


def test_new_producers_write_the_new_name(code: Code) -> None:
    """What they send is what the document says; the alias is for receipts alone."""
    payload: BaseModel = code.load(2).RenameUser(id=1, full_name="Jane")

    assert payload.model_dump(exclude_unset=True) == {"id": 1, "full_name": "Jane"}
