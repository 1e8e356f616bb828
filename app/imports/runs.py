"""Imports as workers run them."""

from sqlalchemy.orm import Session

from app.db.leases import Lease
from app.db.runs import Runs, end
from app.imports.tables import ImportRow
from app.models.tables import VersionRow

_RUNS = Runs(ImportRow, "finish the import")
claim, heartbeat, record = _RUNS.claim, _RUNS.heartbeat, _RUNS.record
fail, finish_cancel, release = _RUNS.fail, _RUNS.finish_cancel, _RUNS.release
postpone, crashed, sweep = _RUNS.postpone, _RUNS.crashed, _RUNS.sweep


def succeed(session: Session, lease: Lease, version: VersionRow) -> None:
    """End an import whose version was added.

    Raises:
        LeaseLost: another worker has the import now.
    """
    row = _RUNS.held(session, lease)
    row.version_id, row.progress = version.id, 1.0
    end(session, row, "succeeded", f"added {version.ref}")
