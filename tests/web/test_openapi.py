"""The description: a valid OpenAPI document, and the service does what it says, whatever is sent (schemathesis)."""

import json
import os
import subprocess
import sys
from pathlib import Path

from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from tests.conftest import StartWorker
from tests.web.conftest import TOKEN, StartWeb, WebProcess
from web.openapi import build_document

ROOT = Path(__file__).parents[2]

_CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,"
    "response_schema_conformance,positive_data_acceptance,negative_data_rejection,unsupported_method,ignored_auth"
)


def test_the_service_does_what_it_describes(
    start_web: StartWeb, start_worker: StartWorker, tmp_path: Path, sessions: async_sessionmaker[AsyncSession]
) -> None:
    """Hundreds of right and wrong requests: every answer is one that the document has, and none is 5xx."""
    assert sessions is not None  # it removes the users afterwards
    start_worker()
    service = start_web(WEB_TOKENS=TOKEN, WEB_MAX_WAIT="2s")

    done = subprocess.run(
        [
            Path(sys.executable).parent / "schemathesis", "run", f"{service.url}/openapi.json",
            "--header", f"Authorization: Bearer {TOKEN}", "--checks", _CHECKS, "--max-examples", "60",
            "--generation-deterministic", "--no-color",
        ],
        env=os.environ | {"SCHEMATHESIS_HOOKS": "tests.web.unique_keys", "PYTHONPATH": str(ROOT)},
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=110,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout[-6000:] + service.log[-1000:]


async def test_the_document_is_served_as_it_was_built(service: WebProcess) -> None:
    """Version 3.1, with every reference resolved, and without tokens where none is needed."""
    document = (await service.get("/openapi.json")).json

    assert document == json.loads(json.dumps(build_document(needs_token=False)))
    assert document["openapi"] == "3.1.0"
    assert "security" not in document
