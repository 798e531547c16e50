"""Puts the console together: its routes, and what each request must pass."""

from aiohttp import web

from arqonce.console.access import Role
from arqonce.console.acts import show_done
from arqonce.console.core import CONSOLE, Console
from arqonce.console.guard import (
    add_headers,
    explain_errors,
    require_known_host,
    require_own_origin,
    require_person,
)
from arqonce.console.live import VIEWERS, leave_viewers, tell_changes
from arqonce.console.log_in import log_in, log_out, show_log_in
from arqonce.console.pages import ROUTES as PAGES
from arqonce.console.responses import show_static
from arqonce.console.routes import Route, page

_LARGEST_FORM = 64 * 1024

ROUTES = (
    *PAGES,
    page("/done/{number}", show_done),
    page("/live", tell_changes),
    Route(method="POST", path="/log-out", handler=log_out, role=Role.READER),
)
"""All routes for those who are logged in. The others are the log-in and the static files."""


def build_app(console: Console) -> web.Application:
    """Build the application of a console whose servers are open."""
    guards = (explain_errors, require_known_host(console.settings.console), require_own_origin, require_person)
    app = web.Application(middlewares=guards, client_max_size=_LARGEST_FORM)
    app[CONSOLE] = console
    app[VIEWERS] = {}
    app.on_response_prepare.append(add_headers)
    app.on_shutdown.append(leave_viewers)
    app.router.add_get("/log-in", show_log_in)
    app.router.add_post("/log-in", log_in)
    app.router.add_get("/static/{name}", show_static)
    for route in ROUTES:
        app.router.add_route(route.method, route.path, route.handle)
        if route.method == "GET" and route.handler is not tell_changes:  # which has no end
            app.router.add_route("HEAD", route.path, route.handle)
    return app
