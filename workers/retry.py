"""Waiting out a database or store that is away for a moment."""

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_random_exponential

from app.errors import Misconfigured

PATIENCE_SECONDS = 60
UNREACHABLE = (DBAPIError, Misconfigured, OSError, PoolTimeout)
"""What is worth another try: nothing about the row itself is wrong."""

retrying = retry(
    retry=retry_if_exception_type(UNREACHABLE),
    wait=wait_random_exponential(multiplier=0.2, max=5),
    stop=stop_after_delay(PATIENCE_SECONDS),
    reraise=True,
)
"""Tries again for a minute; then the error goes on."""
