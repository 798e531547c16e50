"""Describes the application to the library: its jobs, the owner of its engine, and its own commands."""

from pathlib import Path

from arqonce import Application, Command
from jobs.registry import REGISTRY
from worker.lifespan import lifespan

APPLICATION = Application(
    name="users-worker",
    description="A background worker: arq on the wire, users in PostgreSQL.",
    module="worker",
    registry=REGISTRY,
    lifespan=lifespan,
    commands={
        "import": Command("worker.commands.import_people:import_", "Store the people of a CSV file."),
        "demo": Command("worker.commands.demo:demo", "Show it working, on servers of its own."),
    },
    checkout=Path(__file__).parents[1],
)
