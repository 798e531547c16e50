"""Links from jobs to pages of the project's own, such as its admin: CONSOLE_LINKS."""

from collections.abc import Mapping
from urllib.parse import quote


def own_link(links: Mapping[str, str] | None, job_name: str | None, job_id: str) -> str | None:
    """Return the address for a job; ``None`` if the project has named none for its kind. Its id stays data in it."""
    template = (links or {}).get(job_name or "")
    return None if template is None else template.replace("{job_id}", quote(job_id.encode("utf-8", "replace"), safe=""))
