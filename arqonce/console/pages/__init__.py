"""One file for each page: its routes, and what the template gets."""

from typing import NamedTuple

from arqonce.console.pages import audit, dead, doctor, job, jobs, overview, pauses, queues, schedules, workers
from arqonce.console.routes import Route

ROUTES: tuple[Route, ...] = (
    *overview.ROUTES,
    *queues.ROUTES,
    *pauses.ROUTES,
    *jobs.ROUTES,
    *job.ROUTES,
    *dead.ROUTES,
    *schedules.ROUTES,
    *workers.ROUTES,
    *audit.ROUTES,
    *doctor.ROUTES,
)


class Entry(NamedTuple):
    """A page in the navigation."""

    path: str
    title: str
    also: str | None = None
    """The path of one of what the page lists."""

    def has(self, path: str) -> bool:
        """Return whether the page at ``path`` belongs to this entry."""
        known = [one for one in (self.path, self.also) if one is not None]
        return path in known or any(one != "/" and path.startswith(f"{one}/") for one in known)


NAVIGATION = (
    Entry("/", "Overview"),
    Entry("/queues", "Queues", "/queue"),
    Entry("/jobs", "Jobs", "/job"),
    Entry("/dead", "Dead letters"),
    Entry("/schedules", "Schedules"),
    Entry("/workers", "Workers", "/worker"),
    Entry("/audit", "Audit"),
    Entry("/doctor", "Doctor"),
)
