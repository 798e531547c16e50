"""Asks a process's port of operations, as Prometheus, Kubernetes and KEDA do."""

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import NamedTuple

from prometheus_client.parser import text_string_to_metric_families

from arqonce.metrics.families import BY_NAME
from arqonce.testing.worker_process import WorkerProcess
from tests.conftest import wait_until

Figures = dict[tuple[str, frozenset[tuple[str, str]]], float]


class Answer(NamedTuple):
    """What was answered."""

    status: int
    text: str
    headers: Mapping[str, str]


def port_of(worker: WorkerProcess) -> int:
    """Wait until the port is open; return it."""

    def ports() -> list[int]:
        lines = [json.loads(line) for line in worker.log.splitlines() if line.startswith("{")]
        return [int(line["port"]) for line in lines if line["event"] == "operations port open"]

    wait_until(lambda: bool(ports()), 20)
    return ports()[0]


def ask(port: int, path: str, **headers: str) -> Answer:
    """Send one request."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=15) as response:  # noqa: S310 - as above
            return Answer(response.status, response.read().decode(), dict(response.headers))
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, error.read().decode(), dict(error.headers))


def parse(text: str) -> Figures:
    """Read Prometheus' text; each of its metrics must be one of ours, of the kind that it is said to be."""
    figures: Figures = {}
    for family in text_string_to_metric_families(text):
        known = BY_NAME.get(family.name) or BY_NAME[f"{family.name}_total"]
        assert (family.type, family.documentation) == (known.kind, known.help)
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in figures, f"{key} is there twice"
            figures[key] = sample.value
    return figures


def scrape(port: int) -> Figures:
    """Return all figures of a process."""
    answer = ask(port, "/metrics")
    assert answer.status == 200, answer
    return parse(answer.text)


def value(figures: Figures, name: str, **labels: str) -> float | None:
    """Return one figure: of all labels, if none are given, the sum."""
    wanted = set(labels.items())
    found = [number for (known, given), number in figures.items() if known == name and wanted <= given]
    return sum(found) if found else None
