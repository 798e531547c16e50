"""Which refusals mean that the next connection may lead to another server, and what ROLE may answer."""

import pytest
from redis.exceptions import BusyLoadingError, ReadOnlyError, ResponseError

from arqonce.connection.primary import (
    ClusterError,
    ReplicaError,
    SentinelPortError,
    StaleConnectionError,
    leads_elsewhere,
    may_be_asked,
)
from arqonce.connection.redis import is_outage, is_refusal

LEADS_ELSEWHERE = [
    ReadOnlyError("You can't write against a read only replica."),
    ResponseError("READONLY You can't write against a read only replica. script: 1, on @user_script:1."),
    ResponseError("Error running script (call to f_1): @user_script:1: -READONLY You can't write against a read only"),
    ResponseError("MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'."),
    ResponseError("NOREPLICAS Not enough good replicas to write."),
    ResponseError("UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)"),
    BusyLoadingError("Redis is loading the dataset in memory"),
]

STAYS = [
    ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value"),
    ResponseError("OOM command not allowed when used memory > 'maxmemory'."),
    ResponseError("MISCONF Errors writing to the AOF file"),
    ResponseError("value is READONLY"),
]


@pytest.mark.parametrize("error", LEADS_ELSEWHERE, ids=str)
def test_a_demoted_server_is_left(error: ResponseError) -> None:
    """Nothing was done; the same command may succeed elsewhere."""
    assert (leads_elsewhere(error), is_outage(error)) == (True, True)


@pytest.mark.parametrize("error", STAYS, ids=str)
def test_other_refusals_leave_the_connection(error: ResponseError) -> None:
    """Another connection would hear the same."""
    assert not leads_elsewhere(error)


def test_errors_of_ours_are_refusals_and_outages() -> None:
    """So whoever waits for Redis waits after them, too."""
    ours = [StaleConnectionError("You can't write against a read only replica."), ReplicaError("it is a replica")]

    assert [(is_refusal(error), is_outage(error)) for error in ours] == [(True, True)] * 2


@pytest.mark.parametrize("answer", [[b"role", b"master"], {b"role": b"master"}, [b"id", 1], [b"role"], b"OK", None, 1])
def test_who_does_not_say_that_it_is_a_replica_is_trusted(answer: object) -> None:
    """A proxy may answer anything."""
    assert may_be_asked(answer)


def test_who_does_not_understand_is_asked_once() -> None:
    """A proxy, or a server of long ago."""
    assert not may_be_asked(ResponseError("unknown command 'HELLO'"))


OTHERS: dict[type[ResponseError], dict[bytes, object]] = {
    ReplicaError: {b"mode": b"standalone", b"role": b"replica"},
    ClusterError: {b"mode": b"cluster", b"role": b"master"},
    SentinelPortError: {b"mode": b"sentinel"},
}


@pytest.mark.parametrize("error", OTHERS)
def test_what_cannot_hold_a_queue_says_so(error: type[ResponseError]) -> None:
    """In both protocols: a list, and a map."""
    flat = [part for pair in OTHERS[error].items() for part in pair]
    for answer in (OTHERS[error], flat):
        with pytest.raises(error):
            may_be_asked(answer)
