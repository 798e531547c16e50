"""Describes the application to the library: its jobs, the owner of its engine, and its own commands."""

from pathlib import Path

from arqonce import Application
from jobs.registry import REGISTRY
from worker.commands.demo import demo
from worker.commands.import_people import import_
from worker.lifespan import lifespan

APPLICATION = Application(
    name="users-worker",
    description="A background worker: arq on the wire, users in PostgreSQL.",
    module="worker",
    registry=REGISTRY,
    lifespan=lifespan,
    commands={"import": import_, "demo": demo},
    checkout=Path(__file__).parents[1],
)
