"""The supervisor's check whether the serving process still runs networks."""

import time
from contextlib import suppress

import httpx

STOPPED = "inference_stopped"
"""Code of an answer after which only a restart of the serving process helps."""
CHECK_SECONDS = 5.0
"""Time between two requests."""


class Pulse:
    """Ask the serving process whether it runs networks, at most every `CHECK_SECONDS`.

    Args:
        url: Address of the serving process.
    """

    def __init__(self, url: str) -> None:
        self._url = f"{url}/readyz"
        self._asked = time.monotonic()

    def has_stopped(self) -> bool:
        """Whether the serving process answers that it no longer runs networks. No answer counts as False."""
        if time.monotonic() - self._asked < CHECK_SECONDS:
            return False
        self._asked = time.monotonic()
        with suppress(httpx.TransportError, ValueError):
            answer = httpx.get(self._url, timeout=1, trust_env=False)
            return answer.status_code == 503 and answer.json().get("code") == STOPPED
        return False
