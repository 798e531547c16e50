"""Workers: where they run, what they do; lets one take no more jobs, or take jobs again."""

from datetime import timedelta

from aiohttp import web

from arqonce.connection.redis import explained
from arqonce.console.acts import Preview, see_done, show_preview
from arqonce.console.asked import Asked, Name, PageError, Reason, read_form, read_query
from arqonce.console.core import console_of, may_act, person_of
from arqonce.console.done import Done, Link
from arqonce.console.rendering import link, number, sentence
from arqonce.console.responses import show_page
from arqonce.console.routes import act, page, preview
from arqonce.console.workers import Worker
from arqonce.control.workers import give_order, record_order

_PATIENCE = timedelta(seconds=6)
"""How long the page waits for a worker to obey: it looks for orders every 5 s."""


class _AskedWorker(Asked):
    id: Name

    @property
    def page(self) -> Link:
        """Its page."""
        return Link(link("/worker", id=self.id), "The worker")


class _Order(_AskedWorker):
    reason: Reason | None = None


async def show_workers(request: web.Request) -> web.Response:
    """List the live workers."""
    reading = await console_of(request).poll.latest()
    return show_page(request, "workers.html", reading=reading, may_act=may_act(request))


async def show_worker(request: web.Request) -> web.Response:
    """Show one worker, and what it runs."""
    asked = read_query(request, _AskedWorker)
    reading = await console_of(request).poll.latest()
    worker = next((one for one in reading.workers if one.live.id == asked.id), None)
    if worker is None and reading.queues is not None:
        raise _gone()
    return show_page(request, "worker.html", reading=reading, worker=worker, may_act=may_act(request))


async def preview_drain(request: web.Request) -> web.Response:
    """Say what it would do to drain a worker."""
    return await _preview(request, quiet=True)


async def preview_undrain(request: web.Request) -> web.Response:
    """Say what it would do to let it take jobs again."""
    return await _preview(request, quiet=False)


async def _preview(request: web.Request, *, quiet: bool) -> web.Response:
    asked = read_query(request, _AskedWorker)
    worker = await _find(request, asked.id)
    drains = [
        "It takes no more jobs, within 5 s. What it runs ends.",
        "Its process stays alive, until somebody lets it take jobs again, or ends it. One started in its place works.",
        "Other workers of its queues go on.",
    ]
    return show_preview(
        request,
        Preview(
            title=f"Drain {worker.where}" if quiet else f"Let {worker.where} take jobs again",
            number=f"one worker, which runs {_jobs(worker.said.running or 0)}",
            sentences=drains if quiet else ["It takes jobs again, within 5 s."],
            samples=[f"{job.job_name} {job.id}" for job in worker.said.jobs],
            button="Drain it" if quiet else "Let it work",
            action="/workers/drain" if quiet else "/workers/undrain",
            fields={"id": asked.id},
            back=asked.page,
        ),
    )


async def drain(request: web.Request) -> web.Response:
    """Drain a worker."""
    return await _order(request, quiet=True)


async def undrain(request: web.Request) -> web.Response:
    """Let a worker take jobs again."""
    return await _order(request, quiet=False)


async def _order(request: web.Request, *, quiet: bool) -> web.Response:
    console, asked = console_of(request), await read_form(request, _Order)
    worker = await _find(request, asked.id)
    async with console.sessions.begin() as session:
        await record_order(session, worker.live, quiet=quiet, who=person_of(request).name, why=asked.reason)
    with explained(console.settings.queue.url.get_secret_value()):
        doing = await give_order(console.redis, worker.live, quiet=quiet, limit=_PATIENCE)
    where, takes = worker.where, "takes no more jobs" if quiet else "takes jobs again"
    if doing is None:
        title = f"{where} has been ordered: it {takes} as soon as it hears of it"
        sentences = ["It has not answered yet. The order waits for an hour."]
    else:
        title, sentences = f"{where} {takes}", [f"It runs {_jobs(Worker.read(worker.live, doing).said.running or 0)}."]
    return see_done(request, Done(title=title, sentences=sentences, is_complete=doing is not None, links=[asked.page]))


async def _find(request: web.Request, worker_id: str) -> Worker:
    reading = await console_of(request).poll.fresh()
    if reading.queues is None:
        raise PageError(503, "Redis is away", sentence(reading.redis_trouble or ""))
    found = next((one for one in reading.workers if one.live.id == worker_id), None)
    if found is None:
        raise _gone()
    return found


def _jobs(count: int) -> str:
    return "no job" if count == 0 else "one job" if count == 1 else f"{number(count)} jobs"


def _gone() -> PageError:
    return PageError(404, "This worker is not alive", "It has ended, or was started again under another number.")


ROUTES = (
    page("/workers", show_workers),
    page("/worker", show_worker),
    preview("/workers/drain", preview_drain),
    act("/workers/drain", drain),
    preview("/workers/undrain", preview_undrain),
    act("/workers/undrain", undrain),
)
