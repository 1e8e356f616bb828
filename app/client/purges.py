"""What a purge takes away, or would."""

from datetime import datetime

from app.client.http import Http
from app.client.types import Answer, Fault


class PurgedObject(Answer):
    """Bytes of what is purged."""

    digest: str
    bytes: int
    fate: str
    """`stored`, `kept`, `gone`, or `left` to the next sweep."""
    kept_by: str | None


class Purge(Answer):
    """What a purge takes away, or would."""

    kind: str
    id: str
    name: str
    rows: list[str]
    objects: list[PurgedObject]
    obstacles: list[Fault]
    """What stands in the way; with any, nothing goes."""
    purged_at: datetime | None
    """When it went; none: it is there still."""


def purge(http: Http, path: str, *, dry_run: bool) -> Purge:
    """Remove what lies at a path for good, or only ask what would go."""
    return http.read(Purge, http.request("GET" if dry_run else "POST", f"{path}/purge"))
