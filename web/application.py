"""Builds the service: routes, middlewares, startup and cleanup."""

from aiohttp import web

from web.job_status import show_job
from web.openapi import describe
from web.outages import OUTAGES, Outages
from web.problems import answering_with_problems
from web.resources import answer_who_waits, opening
from web.settings import Settings
from web.tokens import require_token
from web.users import create_user, create_users, list_users, show_user, show_user_by_name


def build_app(settings: Settings) -> web.Application:
    """Construct the application. Its resources are opened when it starts; its middlewares run in this order."""
    tokens, outages = settings.web.token_list, Outages()
    # Then follows the middleware of the sessions, see web.sessions.
    app = web.Application(middlewares=[answering_with_problems(outages), require_token(tokens)])
    app[OUTAGES] = outages
    app.router.add_get("/user", show_user_by_name)
    app.router.add_get("/users", list_users)
    app.router.add_post("/users", create_user)
    app.router.add_post("/users/batch", create_users)
    app.router.add_get(r"/users/{id:[1-9][0-9]{0,18}}", show_user)
    app.router.add_get("/jobs/{id:[^/]+}", show_job)  # the default pattern excludes { and }
    app.router.add_get("/openapi.json", describe(needs_token=bool(tokens)))
    app.cleanup_ctx.append(opening(settings))
    app.on_shutdown.append(answer_who_waits)
    return app
