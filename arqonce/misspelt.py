"""Says what is meant by a name that is nearly that of an option or a setting. Reads nothing itself."""

import difflib
from collections.abc import Collection, Iterator, Mapping

_FILE = "_FILE"
"""Images of Docker read the value of NAME from the file that NAME_FILE names."""


def meant_among(known: Collection[str], name: str) -> str:
    """Return a question after the one that is nearest to a name, or a list of all."""
    near = difflib.get_close_matches(name.lower(), known, n=1)
    return f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"


def misspelt(known: Mapping[str, str], prefix: str, environment: Mapping[str, str]) -> Iterator[str]:
    """Yield what is said of variables with such names. ``known`` has settings by their own and other libraries' names.

    Only near misses: platforms inject variables of their own, such as REDIS_PORT or WORKER_SERVICE_HOST.
    """
    for name in environment:
        written = name.upper()
        if not written.startswith(prefix) or known.get(written) == written:
            continue
        if (meant := written.removesuffix(_FILE)) in known and meant not in environment:
            yield f"{name}: there is no such setting. Put the value into a file {meant.lower()} in $SECRETS_DIR"
            continue
        near = difflib.get_close_matches(written, known, n=1, cutoff=0.85)
        for meant in {known[one] for one in near} - environment.keys():
            yield f"{name}: there is no such setting. Did you mean {meant}?"
