"""Checks whether a version of the contract breaks queued jobs, producers or readers of an older version."""

from dataclasses import dataclass
from enum import Enum
from typing import Any

from arqonce.contract.aliases import fields_by_name
from arqonce.contract.document import result_message
from arqonce.contract.narrowing import answer_narrowings, request_narrowings

_VERSION = "3.0.0"
"""The version of AsyncAPI that is written and read."""


class ContractError(Exception):
    """The document was not written by ``build_document``."""


class Side(Enum):
    """The side that a change breaks."""

    PRODUCERS = "queued jobs and older producers"
    READERS = "readers of results"


@dataclass(frozen=True)
class Break:
    """One change that is not compatible with the older version."""

    where: str
    what: str
    side: Side

    def __str__(self) -> str:
        """Describe the change in one line."""
        return f"{self.where}: {self.what} (breaks {self.side.value})"


def find_breaks(old: dict[str, Any], new: dict[str, Any]) -> list[Break]:
    """Compare two documents; return the changes in the new one that break the old one's jobs, producers or readers.

    New jobs, new optional fields, wider limits, and new fields of results are compatible.

    Raises:
        ContractError: ``old`` was not written by ``build_document``.
    """
    try:
        _require_version(old)
        found = _redis_breaks(old["x-redis"], new["x-redis"])
        for job in old["operations"]:
            found += _job_breaks(job, old, new)
        return found + _failure_breaks(old, new)
    except (KeyError, TypeError, AttributeError) as error:
        text = "this is not a document of the command schema: give one that an older version wrote"
        raise ContractError(text) from error


def _require_version(document: dict[str, Any]) -> None:
    if document["asyncapi"] != _VERSION:
        raise ContractError(
            f"{document['info']['title']} is a document of AsyncAPI {document['asyncapi']}, not {_VERSION}"
        )


def _job_breaks(job: str, old: dict[str, Any], new: dict[str, Any]) -> list[Break]:
    if job not in new["operations"]:
        return [Break(job, "job removed or renamed: keep the old name in its former_names", Side.PRODUCERS)]
    answer = result_message(job)
    asked, answered = ((_payload(old, name), _payload(new, name)) for name in (job, answer))
    requests = request_narrowings(*asked, path=job, roots=(old, new))
    answers = answer_narrowings(*answered, path=answer, roots=(old, new))
    return [
        *(Break(*one, Side.PRODUCERS) for one in sorted(requests)),
        *_order_breaks(job, _fields(asked[0], old), _fields(asked[1], new)),
        *(Break(*one, Side.READERS) for one in sorted(answers)),
    ]


def _payload(document: dict[str, Any], message: str) -> dict[str, Any]:
    found: dict[str, Any] = document["components"]["messages"][message]["payload"]
    return found


def _fields(message: dict[str, Any], root: dict[str, Any]) -> dict[str, Any]:
    payload = root["components"]["schemas"][message["properties"]["k"]["$ref"].rpartition("/")[2]]
    fields: dict[str, Any] = payload.get("properties", {})
    return fields


def _order_breaks(job: str, old: dict[str, Any], new: dict[str, Any]) -> list[Break]:
    meant, now = fields_by_name(new), list(new)
    before = [meant.get(name, name) for name in old]
    if set(before) - set(now) or now[: len(before)] == before:
        return []
    return [Break(f"{job}.k", "fields have another order: arq's producers may pass them by position", Side.PRODUCERS)]


def _failure_breaks(old: dict[str, Any], new: dict[str, Any]) -> list[Break]:
    gone = [kind for kind in _kinds(old) if kind not in _kinds(new)]
    payloads = _payload(old, "failure"), _payload(new, "failure")
    changed = answer_narrowings(*payloads, path="failure", roots=(old, new))
    return [
        *(Break(f"failure.r.type.{kind}", "kind of failure removed or renamed", Side.READERS) for kind in gone),
        *(Break(*one, Side.READERS) for one in sorted(changed)),
    ]


def _kinds(document: dict[str, Any]) -> list[str]:
    kinds = document["components"]["schemas"]["JobFailure"]["properties"]["type"]["anyOf"]
    return [kind["const"] for kind in kinds if "const" in kind]


def _redis_breaks(old: dict[str, Any], new: dict[str, Any]) -> list[Break]:
    moved = [
        Break(f"x-redis.keys.{name}", f"was {key}, is now {new['keys'].get(name)}", Side.PRODUCERS)
        for name, key in old["keys"].items()
        if new["keys"].get(name) != key
    ]
    ids = request_narrowings(old["job_id"], new["job_id"], path="x-redis.job_id", roots=(old, new))
    if new["max_bytes"] < old["max_bytes"]:
        text = f"was {old['max_bytes']}, is now {new['max_bytes']}"
        moved.append(Break("x-redis.max_bytes", text, Side.PRODUCERS))
    return moved + [Break(*one, Side.PRODUCERS) for one in ids]
