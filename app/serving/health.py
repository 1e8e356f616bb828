"""Whether the serving process can answer predictions."""

import asyncio
from dataclasses import dataclass

from app.process.pulse import STOPPED
from app.serving.answering import Host
from app.serving.engine.capacity import TooLate

SECONDS = 10.0
"""How long a look at what is wanted may have to wait for others."""


@dataclass(frozen=True)
class NotReady:
    """Why it cannot."""

    code: str
    detail: str


async def is_ready(host: Host) -> NotReady | None:
    """Why predictions cannot be answered, or not all of them; None: they can."""
    reason = host.engine.trouble()
    if reason is not None:
        return NotReady(STOPPED, reason)
    try:
        until = asyncio.get_running_loop().time() + SECONDS
        settled = await host.asking.run("", host.registry.settled, until)
    except TooLate:
        return NotReady("not_ready", f"expected the database to answer within {SECONDS:g} s, got no answer; ask again")
    if settled:
        return None
    detail = "expected every deployment at its wanted generation, got some that are still loading; ask again"
    return NotReady("not_ready", detail)
