"""The set of modules that answers a request.

A request that names modules or a generation gets exactly these. Any other request is drawn with the probability of the
canary's share. In the mode `canary` the canary answers a drawn request, in the mode `shadow` it does not; in both modes
the other set runs on it afterwards, and is compared with the answer. Requests are drawn independently of each other, so
that no pattern in the order of requests decides which of them are drawn.
"""

import random
from dataclasses import dataclass

from app.errors import NotFound
from app.serving.loader.snapshot import Choice, Snapshot
from app.serving.protocol.tensors import BadRequest
from pnc_core.preprocessing import Geometry

MAIN, CANARY = "main", "canary"


@dataclass(frozen=True)
class Assignment:
    """The set of modules that answers a request, and the one that it is compared with."""

    choice: Choice
    """The set that answers."""
    canary: str | None = None
    """Id of the canary in whose counts the request is; None: in none."""
    other: Choice | None = None
    """The set that runs on the request afterwards; None: the request was not drawn."""

    @property
    def sees(self) -> list[Geometry]:
        """Geometries of the networks that see a decoded image, the target's first."""
        mine = self.choice.program.sees
        return list(dict.fromkeys([*mine, *(() if self.other is None else self.other.program.sees)]))


def assigned(snapshot: Snapshot, ids: tuple[str, ...] | None, module_set: str | None, *, is_drawn: bool) -> Assignment:
    """The modules that answer one request.

    Args:
        snapshot: The snapshot that answers.
        ids: Ids of attached modules that the request names; None: it names none.
        module_set: The set that the request names, `main` or `canary`; None: it names none.
        is_drawn: Whether the request may be drawn for the canary if it names neither modules nor a set.

    Raises:
        NotFound: a named module is not attached, or there is no canary.
        BadRequest: the request names both modules and a set, or another set.
    """
    if module_set is None:
        return _drawn(snapshot) if ids is None and is_drawn else Assignment(snapshot.chosen(ids))
    if ids is not None:
        raise BadRequest("expected modules or module_set, got both; leave one out")
    if module_set == MAIN:
        return Assignment(snapshot.chosen(None))
    if module_set != CANARY:
        raise BadRequest(f"module_set: expected {MAIN} or {CANARY}, got {module_set!r:.80}")
    if snapshot.canary is None:
        raise NotFound(f"{snapshot.deployment}: expected a deployment with a canary, got one without; start it first")
    return Assignment(snapshot.canary)


def _drawn(snapshot: Snapshot) -> Assignment:
    main, canary, second = snapshot.chosen(None), snapshot.canary, snapshot.second
    if canary is None or second is None:
        return Assignment(main)
    wanted = second.wanted
    if not is_hit(wanted.share):
        return Assignment(main, wanted.id)
    answers, other = (canary, main) if wanted.mode == CANARY else (main, canary)
    return Assignment(answers, wanted.id, other)


def is_hit(share: float) -> bool:
    """Draw with this probability; 0: never, 1: always."""
    return random.random() < share  # noqa: S311 - decides nothing secret
