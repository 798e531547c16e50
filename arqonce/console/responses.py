"""Makes responses: pages in the common layout, redirects, static files."""

from hashlib import sha256
from typing import Any

from aiohttp import web

from arqonce.commands.program import program
from arqonce.console.core import PERSON, console_of
from arqonce.console.rendering import STATIC_TYPES, render, static_files, static_url


def show_page(request: web.Request, template: str, *, status: int = 200, **context: Any) -> web.Response:  # noqa: ANN401 - the template's
    """Render a page. If the script of the page asks for it again and nothing has changed, say only so (304)."""
    from arqonce.console.pages import NAVIGATION  # noqa: PLC0415 - the pages need this module

    person = request.get(PERSON)
    common = {
        "program": program(),
        "person": person,
        "navigation": NAVIGATION if person is not None else (),
        "path": request.path,
        "logs_out": person is not None and console_of(request).cookies.name in request.cookies,
    }
    body = render(template, common | context).encode("utf-8", "replace")
    etag = sha256(body).hexdigest()[:32]
    if status == 200 and any(known.value == etag for known in request.if_none_match or ()):  # noqa: PLR2004
        return web.Response(status=304, headers={"ETag": f'"{etag}"'})
    response = web.Response(body=body, status=status, content_type="text/html", charset="utf-8")
    response.etag = etag
    return response


def see(path: str) -> web.Response:
    """Redirect to a page of the console, after a form was sent."""
    return web.Response(status=303, headers={"Location": path})


async def show_static(request: web.Request) -> web.Response:
    """Show a static file. Its address changes with its content."""
    name = request.match_info["name"]
    if name not in STATIC_TYPES:
        raise web.HTTPNotFound
    is_own = request.path_qs == static_url(name)  # another release must not be kept under the address of this one
    headers = {"Cache-Control": "public, max-age=31536000, immutable" if is_own else "no-cache"}
    return web.Response(body=static_files()[name], content_type=STATIC_TYPES[name], charset="utf-8", headers=headers)
