"""Wake-ups by Redis: a waiting row wakes one idle worker, and workers take turns at work that one of them must do.

A list for each table holds a mark for each row that began to wait. An idle loop of a worker blocks on its list, so that
Redis gives each mark to one loop and no process polls the database. Marks may be lost, and rows may become due without
a mark; therefore one worker of the cluster looks at the database every few seconds. Without Redis every worker does.
"""

import logging
from collections.abc import Iterable
from functools import cached_property
from typing import TYPE_CHECKING

from app.process.troubles import Complaints

if TYPE_CHECKING:
    from redis import Redis

_complain = Complaints(logging.getLogger(__name__))
MOST_MARKS = 1000
"""Marks that a list keeps. A worker that was woken takes all waiting rows, so further marks would only wake others."""
ANSWER_SECONDS = 3.0


class WakeUps:
    """Marks of waiting rows and turns in one Redis.

    Args:
        broker_url: For instance `redis://127.0.0.1:6379/0`.
    """

    def __init__(self, broker_url: str) -> None:
        self._url = broker_url

    @cached_property
    def _redis(self) -> "Redis":
        from redis import Redis

        return Redis.from_url(self._url, socket_connect_timeout=ANSWER_SECONDS, socket_timeout=ANSWER_SECONDS)

    def mark(self, tables: Iterable[str]) -> None:
        """Wake one idle loop for each table. A mark that cannot be sent is only logged."""
        try:
            with self._redis.pipeline(transaction=False) as commands:
                for table in tables:
                    commands.lpush(_list(table), "1")
                    commands.ltrim(_list(table), 0, MOST_MARKS - 1)
                commands.execute()
        except Exception as error:
            _complain("a worker cannot be woken; one looks at the database within seconds", error)

    def wait(self, table: str, seconds: int) -> bool | None:
        """Wait for a mark of a table.

        Returns:
            Whether there was one; None: Redis does not answer, and no time has passed.
        """
        try:
            return self._redis.brpop([_list(table)], timeout=seconds) is not None
        except Exception as error:
            _complain("Redis cannot be asked for waiting rows; the database is asked", error)
            return None

    def has_turn(self, work: str, seconds: float) -> bool:
        """Whether this process must do a piece of work now. No other process has the turn for this number of seconds.

        Without Redis every process has it.
        """
        try:
            return bool(self._redis.set(f"pnc.turn.{work}", "1", nx=True, px=max(1, int(1000 * seconds))))
        except Exception as error:
            _complain("Redis cannot be asked for a turn; the work is done", error)
            return True

    def close(self) -> None:
        """Close the connections."""
        self._redis.close()


def _list(table: str) -> str:
    return f"pnc.waiting.{table}"
