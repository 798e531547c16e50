"""One file for each page: its routes, and what the template gets."""

from typing import NamedTuple

from arqonce.console.pages import dead, job, jobs, overview, queues
from arqonce.console.routes import Route

ROUTES: tuple[Route, ...] = (*overview.ROUTES, *queues.ROUTES, *jobs.ROUTES, *job.ROUTES, *dead.ROUTES)


class Entry(NamedTuple):
    """A page in the navigation."""

    path: str
    title: str


NAVIGATION = (
    Entry("/", "Overview"),
    Entry("/queues", "Queues"),
    Entry("/jobs", "Jobs"),
    Entry("/dead", "Dead letters"),
)
