"""The producers on every page get their result, from one worker for each page, and type-check."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from tests.conftest import StartWorker
from tests.docs.blocks import Block, blocks_in, blocks_of
from tests.docs.test_blocks import OWN_TESTS
from tests.programs import require

NODE = Path(__file__).parent / "node"

pytestmark = pytest.mark.usefixtures("starts_processes")

_JANE = r"User ID: \d+, Name: Jane\n"
PRINTED = {
    "README.md": ["", _JANE, _JANE, _JANE],  # the first is a job, and no program
    "arqonce/README.md": [""],  # the same, with a function that enqueues it
    "docs/outbox.md": [r"User ID: \d+, Name: Jim\ncomplete\n"],
    "docs/producing.md": [
        r"User ID: \d+, Name: Ann\n",
        r"User ID: \d+\n",
        r"True False\n",
        r"\{.*'name': 'Jane'.*\}\n",
    ],
}
"""What the programs of a page print, in their order."""

PROGRAMS = blocks_of("program", besides=frozenset(OWN_TESTS))
DJANGO = blocks_of("django", besides=frozenset(OWN_TESTS))
IN_NODE = blocks_of("js", besides=frozenset(OWN_TESTS))


@pytest.fixture
def _worker(start_worker: StartWorker, sessions: async_sessionmaker[AsyncSession]) -> None:
    assert sessions is not None  # it removes the users afterwards
    start_worker()


def test_every_program_is_run() -> None:
    """None but those of these pages."""
    assert {block.page for block in PROGRAMS} == set(PRINTED)
    assert {page: len(blocks_in(page, "program")) for page in PRINTED} == {
        page: len(printed) for page, printed in PRINTED.items()
    }


@pytest.mark.usefixtures("_worker")
@pytest.mark.parametrize("page", PRINTED)
def test_the_programs_of_a_page_get_their_results(environment: dict[str, str], page: str) -> None:
    """All at once, as services do: clients of both kinds, a promise in a transaction, and plain arq."""
    programs = [
        subprocess.Popen(
            [sys.executable, "-c", block.code],
            env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for block in blocks_in(page, "program")
    ]  # fmt: skip

    done = [program.communicate(timeout=60) for program in programs]

    errors = [error for program, (_, error) in zip(programs, done, strict=True) if program.returncode]
    assert errors == []
    for printed, (output, _) in zip(PRINTED[page], done, strict=True):
        assert re.fullmatch(printed, output)


_SETTINGS = """
import os
from urllib.parse import urlsplit
import django
from django.conf import settings

url = urlsplit(os.environ["DATABASE_URL"])
server = {"HOST": url.hostname, "PORT": url.port, "USER": url.username, "PASSWORD": url.password}
database = {"ENGINE": "django.db.backends.postgresql", "NAME": url.path[1:]} | server
settings.configure(DATABASES={"default": database})
django.setup()
"""


@pytest.mark.usefixtures("_worker")
@pytest.mark.parametrize("block", DJANGO, ids=str)
def test_a_django_service_promises_in_its_transaction(environment: dict[str, str], block: Block) -> None:
    """On the connection that Django has; the same key again has the same user."""
    code = _SETTINGS + block.code + '\nprint(order("Jane", key="o1") == order("Jane", key="o1"))\n'

    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60, check=False
    )

    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr


@pytest.mark.usefixtures("_worker")
@pytest.mark.parametrize("block", IN_NODE, ids=str)
def test_the_producer_in_node_gets_its_user(environment: dict[str, str], tmp_path: Path, block: Block) -> None:
    """Written to the documented keys by npm's redis client."""
    require("node", "npm")
    assert block.file == "producer.mjs"
    (tmp_path / block.file).write_text(block.code)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(NODE / name, tmp_path)
    subprocess.run(
        ["npm", "ci", "--no-audit", "--no-fund"], cwd=tmp_path, env=environment, check=True, capture_output=True
    )

    done = subprocess.run(
        ["node", "producer.mjs"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
    )

    assert done.returncode == 0, done.stderr
    assert re.match(r"true \{\s*id: \d+,\s*name: 'Jane',\s*email: null", done.stdout)
