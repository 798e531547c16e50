"""Writes figures in Prometheus' text format, version 0.0.4."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate

from arqonce.metrics.families import FAMILIES, Family
from arqonce.metrics.store import Labels, Samples

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def render(groups: Iterable[tuple[Mapping[str, str], Samples]]) -> bytes:
    """Write groups of figures, each with labels of its own beside those of the metrics."""
    found: dict[str, list[tuple[Mapping[str, str], Labels, Sequence[float]]]] = {}
    for extra, samples in groups:
        for (name, labels), numbers in samples.items():
            found.setdefault(name, []).append((extra, labels, numbers))
    lines = (line for family in FAMILIES if family.name in found for line in _family(family, found[family.name]))
    return "".join(f"{line}\n" for line in lines).encode(errors="replace")


def _family(family: Family, series: Iterable[tuple[Mapping[str, str], Labels, Sequence[float]]]) -> Iterator[str]:
    yield f"# HELP {family.name} {family.help}"
    yield f"# TYPE {family.name} {family.kind}"
    for one in series:
        yield from _series(family, *one)


def _series(family: Family, extra: Mapping[str, str], labels: Labels, numbers: Sequence[float]) -> Iterator[str]:
    named = ",".join(
        f'{name}="{_escape(value)}"' for name, value in [*extra.items(), *zip(family.labels, labels, strict=True)]
    )
    if family.kind != "histogram":
        yield f"{family.name}{_braced(named)} {_number(numbers[0])}"
        return
    *buckets, total = numbers
    bounds = [*map(_number, family.buckets), "+Inf"]
    counts = list(accumulate(buckets))
    comma = "," if named else ""
    for bound, count in zip(bounds, counts, strict=True):
        yield f'{family.name}_bucket{{{named}{comma}le="{bound}"}} {_number(count)}'
    yield f"{family.name}_sum{_braced(named)} {_number(total)}"
    yield f"{family.name}_count{_braced(named)} {_number(counts[-1])}"


def _braced(named: str) -> str:
    return f"{{{named}}}" if named else ""


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return str(int(value)) if value.is_integer() else repr(value)
