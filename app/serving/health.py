"""Readiness of the serving process."""

import asyncio
from dataclasses import dataclass

from app.process.pulse import STOPPED
from app.serving.answering import Host
from app.serving.engine.capacity import TooLate

SECONDS = 10.0
"""Longest wait for a thread that compares wanted and served deployments."""


@dataclass(frozen=True)
class NotReady:
    """Reason why predictions cannot be answered."""

    code: str
    detail: str


async def unreadiness(host: Host) -> NotReady | None:
    """Reason why some predictions cannot be answered; None: the process is ready."""
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
