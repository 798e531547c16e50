"""What every measurement needs: the servers, an observer, and the contenders' target."""

from dataclasses import dataclass
from pathlib import Path

from bench.contenders import Contender
from bench.servers import BenchServers, Observer
from bench.target import Target


@dataclass(frozen=True)
class Stage:
    """The environment in which contenders are measured."""

    servers: BenchServers
    observer: Observer
    directory: Path
    target: Target

    def log_of(self, contender: Contender) -> Path:
        """Return the file for the contender's output."""
        return self.directory / f"{contender.name}.log"
