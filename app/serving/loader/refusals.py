"""Generations that the serving process does not serve."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Refusal:
    """A generation that is refused or postponed."""

    generation: int
    code: str
    detail: str
    until: float
    """Time of the next attempt on the monotonic clock."""
    waits: int = 0
    """Number of postponements; 0: the generation is refused."""

    def document(self) -> dict[str, Any]:
        """The problem as the deployment's row stores it."""
        return {"code": self.code, "detail": self.detail, **({"passes": True} if self.waits else {})}
