"""Describes the jobs of a worker: which handler runs which payload, with which limits; and its schedules."""

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import cached_property
from typing import Any, Generic, TypeVar, cast

from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncSession

from arqonce.database.schema import Schema
from arqonce.failures import JobFailedError
from arqonce.handlers import require_async, takes_job
from arqonce.job import JobContext
from arqonce.limits import Limit, in_force, require_limits
from arqonce.payloads import AnyPayload, Payload
from arqonce.phases import LONGEST, Phases
from arqonce.resources import Resource
from arqonce.schedules.schedule import Schedule
from arqonce.wire.bounds import NAME_RULE, is_name

ResultT = TypeVar("ResultT", bound=BaseModel)
PayloadT = TypeVar("PayloadT", bound=Payload[BaseModel])
Handler = (
    Callable[[AsyncSession, PayloadT], Awaitable[ResultT]]
    | Callable[[AsyncSession, PayloadT, JobContext], Awaitable[ResultT]]
)
BatchHandler = (
    Callable[[AsyncSession, Sequence[PayloadT]], Awaitable[Sequence[ResultT | JobFailedError]]]
    | Callable[[AsyncSession, Sequence[PayloadT], Sequence[JobContext]], Awaitable[Sequence[ResultT | JobFailedError]]]
)


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """The failure that a producer receives for a violated constraint; ``message`` names the cure."""

    error: type[JobFailedError]
    message: str


@dataclass(frozen=True)
class JobSpec(Generic[PayloadT, ResultT]):
    """One kind of job."""

    payload: type[PayloadT]

    handler: Handler[PayloadT, ResultT] | Phases[PayloadT, Any, ResultT]
    """Takes the session and the payload and, if it has a third parameter, the job's context. Or the phases of a job
    that works without a transaction first."""

    batch: BatchHandler[PayloadT, ResultT] | None = field(default=None, kw_only=True)
    """Handles many payloads in one call. Returns a result or a ``JobFailedError`` for each, in the same order.

    It must write nothing for a payload for which it returns an error. If it raises, the jobs run again one by one with
    ``handler``. Jobs of one batch commit together or not at all. A third parameter gets the jobs' contexts.
    """

    shares_transaction: bool = field(default=False, kw_only=True)
    """Whether jobs that are claimed together run one after the other in one transaction.

    For short handlers, which it makes several times faster. Each has a session of its own, and its own answer. If one
    fails, all roll back and run again, it by itself. A slow one shares with nobody.
    """

    max_batch: int = field(default=500, kw_only=True)
    """Most payloads in one call of ``batch``, or most jobs that share a transaction."""

    deadline: timedelta = field(default=timedelta(seconds=30), kw_only=True)
    """Longest duration of one attempt, including the wait for a connection; at most 12 hours. A longer one is retried.

    Of a job with phases, that of its store.
    """

    max_attempts: int = field(default=5, kw_only=True)
    """Most attempts, including those that ended in a crash of the worker, before the job fails for good."""

    refusals: Mapping[str, Refusal] = field(default_factory=dict, kw_only=True)
    """The failure for the producer when the database reports a violated constraint, by the constraint's name."""

    reads_only: bool = field(default=False, kw_only=True)
    """Whether the job only reads. It may then run again at any time, and leaves no receipt.

    PostgreSQL rejects its writes (25006); its notifications are dropped.
    """

    limits: Sequence[Limit] = field(default=(), kw_only=True)
    """How many jobs of the kind run at once, or start in a time, in all workers together. See ``Limit``."""

    former_names: tuple[str, ...] = field(default=(), kw_only=True)
    """Earlier names of the job on the wire. Jobs queued under these names still run, and are recorded under them."""

    _called: str | None = field(default=None, kw_only=True, repr=False)
    """The former name under which the job was queued. Set by ``Registry``."""

    def __post_init__(self) -> None:
        """Validate the spec now, not at its first job.

        Raises:
            TypeError: a value is invalid; the text names the class or function, and the cure.
        """
        _require_payload(self.payload)
        if self.phases is None:
            require_async(self.handler, "handler", self.payload.job_name)
        else:
            self.phases.require_valid(self.payload.job_name)
            self._require_alone()
        _ = self.takes_job
        if not isinstance(cast("object", self.shares_transaction), bool):
            raise TypeError(f"the job {self.payload.job_name}: shares_transaction is True or False")
        if self.batch is not None:
            if self.shares_transaction:
                raise TypeError(f"the job {self.payload.job_name} has a batch handler: remove shares_transaction")
            require_async(self.batch, "batch", self.payload.job_name)
            _ = self.batch_takes_jobs
        if isinstance(cast("object", self.former_names), str):
            raise TypeError(f"the job {self.payload.job_name}: former_names is a tuple of names, such as ('old',)")
        if not all(map(is_name, self.former_names)):
            raise TypeError(f"the job {self.payload.job_name}: each of former_names must be {NAME_RULE}")
        if not (isinstance(self.deadline, timedelta) and timedelta(0) < self.deadline <= LONGEST):
            raise TypeError(
                f"the job {self.payload.job_name}: deadline is a timedelta of at most 12 hours, such as "
                "timedelta(seconds=30)"
            )
        if not all(isinstance(number, int) and number >= 1 for number in (self.max_batch, self.max_attempts)):
            raise TypeError(f"the job {self.payload.job_name}: max_batch and max_attempts are 1 or more")
        if not all(isinstance(cast("object", refusal), Refusal) for refusal in self.refusals.values()):
            raise TypeError(
                f"the job {self.payload.job_name}: refusals has a Refusal for the name of each constraint, such as "
                '{"users_email_key": Refusal(error=EmailTakenError, message="...")}'
            )
        object.__setattr__(self, "limits", require_limits(self.payload, self.limits))

    def _require_alone(self) -> None:
        for word, is_given in {"batch": self.batch is not None, "shares_transaction": self.shares_transaction}.items():
            if is_given:
                raise TypeError(f"the job {self.payload.job_name} has phases, so that it runs alone: remove {word}")

    @cached_property
    def phases(self) -> Phases[PayloadT, Any, ResultT] | None:
        """The phases of the job; ``None`` if it has but a handler."""
        return self.handler if isinstance(self.handler, Phases) else None

    @cached_property
    def stores(self) -> Callable[..., Awaitable[ResultT]]:
        """What runs in the job's transaction: its handler, or the second of its phases."""
        return self.handler.store if isinstance(self.handler, Phases) else self.handler

    @cached_property
    def takes_job(self) -> bool:
        """Whether what runs in the transaction takes the job's context."""
        name = self.payload.job_name
        if self.phases is not None:
            return self.phases.store_takes_job(name)
        return takes_job(self.handler, f"the handler of {name}", "session, payload", "job: JobContext")

    @cached_property
    def work_takes_job(self) -> bool:
        """Whether the first of its phases takes the job's context."""
        return self.phases is not None and self.phases.work_takes_job(self.payload.job_name)

    @cached_property
    def batch_takes_jobs(self) -> bool:
        """Whether the batch handler takes the jobs' contexts."""
        role, more = f"the batch of {self.payload.job_name}", "jobs: Sequence[JobContext]"
        return self.batch is not None and takes_job(self.batch, role, "session, payloads", more)

    @property
    def name(self) -> str:
        """The job's name on the wire."""
        return self._called or self.payload.job_name

    @property
    def all_names(self) -> tuple[str, ...]:
        """The current name, then the former ones."""
        return (self.payload.job_name, *self.former_names)


def _require_payload(payload: object) -> None:
    if not (isinstance(payload, type) and issubclass(payload, Payload)):
        raise TypeError(f"{payload!r:.100} is no payload: give the class, which inherits from Payload[SomeResult]")
    if not isinstance(name := getattr(payload, "job_name", None), str) or not name:
        raise TypeError(
            f"{payload.__qualname__} has no job_name: give the class the job's name on the wire, "
            'job_name: ClassVar[str] = "..."'
        )
    if not is_name(name):
        raise TypeError(f"{payload.__qualname__}.job_name must be {NAME_RULE}")
    result: object = payload.result_type()
    if not (isinstance(result, type) and issubclass(result, BaseModel)):
        raise TypeError(f"{payload.__qualname__} must inherit from Payload[SomeResult], of a class that is a Result")


class Registry:
    """All jobs of a worker, by wire name."""

    def __init__(
        self,
        *specs: JobSpec[Any, Any],
        schedules: Iterable[Schedule] = (),
        resources: Iterable[Resource[Any]] = (),
        schema: Schema | None = None,
    ) -> None:
        """Collect the specs. ``schema`` describes the project's tables that the jobs need.

        Each worker opens the ``resources`` in this order when it starts, and closes them in reverse when it ends.

        Raises:
            TypeError: ``specs`` or ``resources`` contains something else.
            ValueError: two specs share a wire name, current or former; two schedules, or two resources, share a name;
                or the payload of a schedule is of no kind of job here.
        """
        self.schemas: tuple[Schema, ...] = () if schema is None else (schema,)
        self.resources = _require_own_resources(resources)
        self.setting: str | None = None
        """The value of WORKER_REGISTRY from which the registry was loaded, if any."""
        _require_own_names(specs)
        self._current = specs
        self._specs = {spec.name: spec for spec in specs}
        self._specs |= {name: replace(spec, _called=name) for spec in specs for name in spec.former_names}
        self.schedules: Mapping[str, Schedule] = _by_own_names(schedules)
        """The schedules by name."""
        for schedule in self.schedules.values():
            if isinstance(schedule.payload, Payload):
                self.require_kind_of(schedule, schedule.payload)

    def require_kind_of(self, schedule: Schedule, payload: AnyPayload) -> None:
        """Return if a job here runs the schedule's payload.

        Raises:
            ValueError: there is none.
        """
        if payload.job_name not in self._specs:
            raise ValueError(
                f"the schedule {schedule.name} promises jobs of the kind {payload.job_name}, which this registry does "
                f"not have: add JobSpec({type(payload).__name__}, ...)"
            )

    def joined(self, others: Iterable["Registry"]) -> "Registry":
        """Return a registry of these jobs and of those of ``others``.

        Raises:
            ValueError: two jobs have the same wire name, or two schedules or two resources the same name.
        """
        registries = [self, *others]
        joined = Registry(
            *(spec for registry in registries for spec in registry),
            schedules=(schedule for registry in registries for schedule in registry.schedules.values()),
            resources=dict.fromkeys(resource for registry in registries for resource in registry.resources),
        )
        joined.schemas = tuple(dict.fromkeys(schema for registry in registries for schema in registry.schemas))
        return joined

    def __iter__(self) -> Iterator[JobSpec[Any, Any]]:
        """Yield the specs in the order of registration, each under its current name."""
        return iter(self._current)

    @property
    def limits(self) -> Mapping[str, str]:
        """The limits of all jobs as Redis is to know them."""
        return in_force((spec.payload.job_name, spec.limits) for spec in self)

    @property
    def longest_deadline(self) -> timedelta:
        """The longest deadline of its jobs; zero if there are none."""
        return max((spec.deadline for spec in self), default=timedelta(0))

    @property
    def by_name(self) -> Mapping[str, JobSpec[Any, Any]]:
        """The specs by every name that a queued job may have, former ones included."""
        return self._specs

    def __contains__(self, name: object) -> bool:
        """Return whether a job has this wire name, current or former."""
        return name in self._specs

    def __getitem__(self, name: str) -> JobSpec[Any, Any]:
        """Return the spec with this wire name, current or former."""
        return self._specs[name]

    @property
    def names(self) -> list[str]:
        """The wire names in the order of registration: current names first, then former ones."""
        return list(self._specs)


def _require_own_names(specs: Iterable[JobSpec[Any, Any]]) -> None:
    owners: dict[str, str] = {}
    for spec in specs:
        if not isinstance(cast("object", spec), JobSpec):
            raise TypeError(f"{spec!r:.100} is no JobSpec: write Registry(JobSpec(...), JobSpec(...)), without a list")
        payload = f"{spec.payload.__module__}.{spec.payload.__qualname__}"
        for name in spec.all_names:
            if name in owners:
                raise ValueError(
                    f"two jobs have the same job_name {name}: those of {owners[name]} and {payload}. "
                    "Give each payload a wire name of its own"
                )
            owners[name] = payload


def _by_own_names(schedules: Iterable[Schedule]) -> dict[str, Schedule]:
    found: dict[str, Schedule] = {}
    for schedule in schedules:
        if found.setdefault(schedule.name, schedule) is not schedule:
            raise ValueError(f"two schedules have the name {schedule.name}: give each a name of its own")
    return found


def _require_own_resources(resources: Iterable[Resource[Any]]) -> tuple[Resource[Any], ...]:
    if isinstance(resources, Resource):
        raise TypeError(f"resources is a list: Registry(..., resources=[{resources.name.upper()}])")
    found: dict[str, Resource[Any]] = {}
    for resource in resources:
        if not isinstance(cast("object", resource), Resource):
            raise TypeError(f"{resource!r:.100} is no resource: name what arqonce.Resource(name, opener) returns")
        if resource.name in found:
            raise ValueError(f"two resources have the name {resource.name}: give each its own, and name it once")
        found[resource.name] = resource
    return tuple(found.values())
