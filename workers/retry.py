"""Retries while the database or the store is unreachable for a short time."""

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_random_exponential

from app.errors import Misconfigured
from app.store.objects import seen_through
from app.zoo import Zoo

PATIENCE_SECONDS = 60
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
