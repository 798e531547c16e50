"""A small Django application, which does what the one of Flask does."""

import json
import os
from datetime import timedelta

import django
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path
from pydantic import ValidationError
from werkzeug.serving import make_server

from arqonce import SyncJobClient
from jobs import CreateUser, EmailTakenError

settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["127.0.0.1"], SECRET_KEY="of one test", USE_TZ=True)
django.setup()
JOBS = SyncJobClient(os.environ["REDIS_URL"])


def create_user(request: HttpRequest) -> JsonResponse:
    """Answer with the user if it is stored within a moment, else with the job."""
    try:
        payload = CreateUser.model_validate_json(request.body)
    except ValidationError as error:
        return JsonResponse({"error": str(error)}, status=422)
    handle = JOBS.enqueue(payload, key=request.headers.get("Idempotency-Key"))
    try:
        user = handle.result(timeout=timedelta(seconds=float(request.GET["wait"])))
    except EmailTakenError as error:
        return JsonResponse({"error": error.message}, status=409)
    except TimeoutError:
        return JsonResponse({"job": handle.job_id}, status=202)
    return JsonResponse(json.loads(user.model_dump_json()), status=201)


def show_job(_request: HttpRequest, job_id: str) -> JsonResponse:
    """Tell where a job is."""
    return JsonResponse({"status": JOBS.handle(CreateUser, job_id).status().value})


urlpatterns = [path("users", create_user), path("jobs/<str:job_id>", show_job)]

if __name__ == "__main__":
    server = make_server("127.0.0.1", 0, get_wsgi_application(), threaded=True)
    print(server.port, flush=True)
    server.serve_forever()
