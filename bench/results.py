"""The measured values of all rounds, by measurement and contender. Can be stored as JSON."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self

from bench.figures import Spread, percentile, spread


@dataclass
class Results:
    """All figures of a run of the benchmark."""

    about: dict[str, str] = field(default_factory=dict)
    """The machine and the versions."""

    measured: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    """Values by measurement and by contender."""

    failures: dict[str, str] = field(default_factory=dict)
    """Reasons of failures, by measurement and contender."""

    def add(self, what: str, name: str, *values: float) -> None:
        """Add values."""
        self.measured.setdefault(what, {}).setdefault(name, []).extend(values)

    def fail(self, what: str, name: str, why: str) -> None:
        """Record that a contender could not be measured."""
        self.failures[f"{what}, {name}"] = why

    def values(self, what: str, name: str) -> list[float]:
        """Return all values; an empty list if it was not measured."""
        return self.measured.get(what, {}).get(name, [])

    def spread(self, what: str, name: str) -> Spread | None:
        """Return median and range of the values; ``None`` if there are none."""
        values = self.values(what, name)
        return spread(values) if values else None

    def median(self, what: str, name: str) -> float | None:
        """Return the median; ``None`` if it was not measured."""
        found = self.spread(what, name)
        return None if found is None else found.median

    def percentile(self, what: str, name: str, share: float) -> float | None:
        """Return a percentile; ``None`` if it was not measured."""
        values = self.values(what, name)
        return percentile(values, share) if values else None

    def write(self, path: Path) -> None:
        """Write the results as JSON."""
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read results that ``write`` has written."""
        return cls(**json.loads(path.read_text()))
