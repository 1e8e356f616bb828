"""Retries while the database or the store is unreachable for a short time."""

import logging
import time
from collections.abc import Callable

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_random_exponential

from app.errors import Misconfigured
from app.store.objects import seen_through
from app.zoo import Zoo

log = logging.getLogger(__name__)
PATIENCE_SECONDS = 60
REPORT_SECONDS = 0.5
"""Shortest interval between written reports of progress."""
UNREACHABLE = (DBAPIError, Misconfigured, OSError, PoolTimeout)
"""Errors that are worth a retry, because their cause is not the row."""

retrying = retry(
    retry=retry_if_exception_type(UNREACHABLE),
    wait=wait_random_exponential(multiplier=0.2, max=5),
    stop=stop_after_delay(PATIENCE_SECONDS),
    reraise=True,
)
"""Decorator: retries for a minute, then raises the last error."""


def raise_if_store_is_down(zoo: Zoo, error: Exception) -> None:
    """Check that an error does not come from an unavailable store, before the row ends with the error.

    Raises:
        StoreUnavailable: the whole store is unavailable, not a single object.
    """
    seen = seen_through(zoo.store, error)
    if seen is not error:
        raise seen from None


def progress_writer(
    zoo: Zoo, write: Callable[[Session, float, str], None], seconds: float = REPORT_SECONDS
) -> Callable[[float, str], None]:
    """A function that writes progress (finished share, message), at most once in an interval.

    Progress that cannot be written is left out, since the next report replaces it.

    Args:
        zoo: The zoo.
        write: Writes one report in a session.
        seconds: The interval.
    """
    last = 0.0

    def report(share: float, message: str) -> None:
        nonlocal last
        if time.monotonic() - last < seconds:
            return
        last = time.monotonic()
        try:
            with zoo.database.write() as session:
                write(session, share, message)
        except UNREACHABLE as error:
            log.warning("progress is not written yet and will be retried: %s", error)

    return report
