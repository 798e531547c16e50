"""``audit``: lists what operators did."""

import json
from typing import Annotated

import typer

from arqonce.commands.asking import AsJson, ask
from arqonce.commands.durations import duration_of
from arqonce.commands.group import build_group
from arqonce.commands.table import print_table
from arqonce.ledger.audit import list_acts
from arqonce.ledger.tables import AuditRecord


def build_audit_app() -> typer.Typer:
    """Build the command group."""
    return build_group({"list": list_})


def list_(
    *,
    since: Annotated[str | None, typer.Option(help="Only those of the last 30m, 1d and so on.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1_000_000, help="Most acts to list.")] = 100,
    as_json: AsJson = False,
) -> None:
    """List operators' acts, the last one first: when, who, what, on what, how many it concerned, and why.

    For programs, in a pipe, the columns are separated by tabs; --json has the same.
    """
    age = None if since is None else duration_of("--since", since)
    acts = [_summary(act) for act in ask(lambda session: list_acts(session, since=age, limit=limit))]
    if as_json:
        typer.echo(json.dumps(acts, ensure_ascii=False))
        return
    titles = ("at", "who", "act", "target", "number", "why")
    print_table(titles, [[str(value if value is not None else "-") for value in act.values()] for act in acts])


def _summary(act: AuditRecord) -> dict[str, object]:
    return {
        "at": act.at.isoformat(timespec="seconds"),
        "who": act.who,
        "act": act.act,
        "target": act.target,
        "number": act.number,
        "why": act.why,
    }
