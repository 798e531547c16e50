"""A small Flask application: it enqueues, waits for a moment, and tells of jobs by their ids."""

import os
from datetime import timedelta

from flask import Flask, request
from pydantic import ValidationError
from werkzeug.serving import make_server

from arqonce import SyncJobClient
from jobs import CreateUser, EmailTakenError

JOBS = SyncJobClient(os.environ["REDIS_URL"])
app = Flask(__name__)


@app.post("/users")
def create_user() -> tuple[dict[str, object], int]:
    """Answer with the user if it is stored within a moment, else with the job."""
    try:
        payload = CreateUser.model_validate(request.get_json())
    except ValidationError as error:
        return {"error": str(error)}, 422
    handle = JOBS.enqueue(payload, key=request.headers.get("Idempotency-Key"))
    try:
        user = handle.result(timeout=timedelta(seconds=float(request.args["wait"])))
    except EmailTakenError as error:
        return {"error": error.message}, 409
    except TimeoutError:
        return {"job": handle.job_id}, 202
    return user.model_dump(mode="json"), 201


@app.get("/jobs/<job_id>")
def show_job(job_id: str) -> dict[str, str]:
    """Tell where a job is."""
    return {"status": JOBS.handle(CreateUser, job_id).status().value}


if __name__ == "__main__":
    server = make_server("127.0.0.1", 0, app, threaded=True)
    print(server.port, flush=True)
    server.serve_forever()
