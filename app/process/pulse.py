"""Whether the serving process still runs networks, as its supervisor sees it."""

import time
from contextlib import suppress

import httpx

STOPPED = "inference_stopped"
"""The code of its answer when only another process helps."""
LOOK_SECONDS = 5.0
"""How often it is asked."""


class Pulse:
    """Asks the serving process now and then.

    Args:
        url: Where it listens.
    """

    def __init__(self, url: str) -> None:
        self._url = f"{url}/readyz"
        self._asked = time.monotonic()

    def has_stopped(self) -> bool:
        """Has it said that it does not run networks any more? No answer at all says nothing."""
        if time.monotonic() - self._asked < LOOK_SECONDS:
            return False
        self._asked = time.monotonic()
        with suppress(httpx.TransportError, ValueError):
            answer = httpx.get(self._url, timeout=1, trust_env=False)
            return answer.status_code == 503 and answer.json().get("code") == STOPPED
        return False
