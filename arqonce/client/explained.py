"""Converts errors of Redis to errors whose texts name the cure, for every client."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from arqonce.client.answers import late, require_open, silent
from arqonce.connection.redis import explain, explained, location
from arqonce.wire.bounds import require_queue


class ExplainedClient:
    """Base class of the clients: the address of Redis, the queue, and whether the client is closed."""

    def __init__(self, url: str, *, queue: str) -> None:
        """Store the address and the queue. Does not connect."""
        self._url = url
        self._queue = require_queue(queue)
        self._is_closed = False

    def __reduce__(self) -> NoReturn:
        """Refuse to be copied or pickled, as an argument of another process is.

        Raises:
            TypeError: always; the text names the cure.
        """
        raise TypeError(
            "a client holds connections, so it cannot be copied or sent to another process: make one there. "
            "In place of a handle send its job_id, and call client.handle with the class of the payload and that"
        )

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Convert redis-py's errors in the block.

        Raises:
            QueueUnavailableError: in place of redis-py's errors.
        """
        require_open(is_closed=self._is_closed)
        with explained(self._url):
            yield

    @contextmanager
    def _waiting(
        self, job_id: str, timeout: float | None, *, is_over: Callable[[], bool], is_promised: bool
    ) -> Iterator[None]:
        """Convert the errors of a wait for a result.

        Raises:
            TimeoutError: no result in time; the text says what is known.
            QueueUnavailableError: in place of redis-py's errors.
        """
        require_open(is_closed=self._is_closed)
        try:
            yield
        except RedisError as error:
            if isinstance(error, RedisTimeoutError) and is_over():
                raise silent(job_id, timeout, location(self._url)) from error
            raise explain(error, self._url) from error
        except TimeoutError:
            raise late(job_id, timeout, queue=self._queue, is_promised=is_promised) from None
