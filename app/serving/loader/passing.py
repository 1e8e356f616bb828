"""Which errors pass by themselves: the same may work in a moment, and nothing is wrong with what was to be loaded."""

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from pnc_core.errors import is_out_of_memory

_AWAY = (OSError, DBAPIError, PoolTimeout)


def is_passing(error: BaseException) -> bool:
    """Whether store, database, disk or memory are at fault, and not what was to be loaded."""
    is_away = isinstance(error, _AWAY) and not isinstance(error, IsADirectoryError)  # an object that is damaged
    return is_away or is_out_of_memory(error)
