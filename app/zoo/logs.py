"""How every process logs: one line a message, on standard error."""

import logging

from app.zoo.settings import Settings


def log_to_stderr(settings: Settings, process: str) -> None:
    """Set the root logger up; libraries that chatter are kept to warnings.

    Args:
        settings: Says how much is logged.
        process: Named in every line.
    """
    logging.basicConfig(level=settings.log_level.upper(), format=f"%(levelname)s {process}: %(message)s")
    for chatty in ("alembic", "httpx"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
