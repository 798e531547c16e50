"""Says what went wrong with Redis in words that name the cure; the same for every kind of client."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from arqonce.client.answers import late, require_open, silent
from arqonce.connection.redis import explain, explained, location


class ExplainedClient:
    """What every client knows: where Redis is, which queue it uses, and whether it is closed."""

    def __init__(self, url: str, *, queue: str) -> None:
        """Open no connection."""
        self._url = url
        self._queue = queue
        self._is_closed = False

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Do something with Redis.

        Raises:
            QueueUnavailableError: instead of redis-py's errors.
        """
        require_open(is_closed=self._is_closed)
        with explained(self._url):
            yield

    @contextmanager
    def _waiting(
        self, job_id: str, timeout: float | None, *, is_over: Callable[[], bool], is_promised: bool
    ) -> Iterator[None]:
        """Wait for a result.

        Raises:
            TimeoutError: there is none in time; the text says what is known.
            QueueUnavailableError: instead of redis-py's errors.
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
