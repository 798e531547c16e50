"""Takes permits for claimed jobs of limited kinds, between their claim and their start."""

from collections.abc import Sequence

from redis.exceptions import RedisError

from arqonce.engine.permits import Admission, Applicant
from arqonce.engine.queue import Queue
from arqonce.engine.run import Run
from arqonce.work import Job, Work

_STARTS, _PARKED, _RETURNS = Admission.STARTS, Admission.PARKED, Admission.RETURNS


async def admit(
    leases: Queue, work: Work, runs: Sequence[Run], others: Sequence[Job]
) -> tuple[Sequence[Run], Sequence[Job], Sequence[Job]]:
    """Take permits for the jobs of runs; return what can start, what is to be given back, and what was parked.

    Of ``others``, which have no slot, those that could not start are parked as well. One round trip.
    """
    jobs = [job for run in runs for job in run.jobs]
    asked = [Applicant(job.claim, job.permits, has_slot=True) for job in jobs if job.permits]
    asked += [Applicant(job.claim, job.permits, has_slot=False) for job in others if job.permits]
    try:
        answers = await leases.take_permits(asked)
    except (RedisError, OSError):  # the main loop hears of it, too
        answers = [_RETURNS] * len(asked)
    found = {one.claim.job_id: answer for one, answer in zip(asked, answers, strict=True)}
    parked = [job for job in (*jobs, *others) if found.get(job.claim.job_id) is _PARKED]
    admitted = [[job for job in run.jobs if found.get(job.claim.job_id, _STARTS) is _STARTS] for run in runs]
    returning = [job for job in jobs if found.get(job.claim.job_id) is _RETURNS]
    returning += [job for job in others if found.get(job.claim.job_id) is not _PARKED]
    return [Run(work, starting) for starting in admitted if starting], returning, parked
