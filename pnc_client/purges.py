"""What a purge takes away, or would."""

from pnc_client.http import Http
from pnc_client.schemas.purges import Purge


def purge(http: Http, path: str, *, dry_run: bool) -> Purge:
    """Remove what lies at a path for good, or only ask what would go."""
    return http.read(Purge, http.request("GET" if dry_run else "POST", f"{path}/purge"))
