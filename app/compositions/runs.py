"""Compositions as workers fit them."""

from typing import Any

from sqlalchemy.orm import Session

from app.compositions.tables import CompositionRow
from app.db.leases import Lease
from app.db.runs import Runs, end
from app.store.objects import Stored

_RUNS = Runs(CompositionRow, "fit the composition")
claim, heartbeat, record = _RUNS.claim, _RUNS.heartbeat, _RUNS.record
fail, finish_cancel, release = _RUNS.fail, _RUNS.finish_cancel, _RUNS.release
postpone, crashed, sweep = _RUNS.postpone, _RUNS.crashed, _RUNS.sweep


def succeed(session: Session, lease: Lease, stored: Stored, manifest: dict[str, Any]) -> None:
    """End a composition whose file is in the store.

    Raises:
        LeaseLost: another worker has the composition now.
    """
    row = _RUNS.held(session, lease)
    row.key, row.digest, row.bytes, row.manifest = stored.key, stored.digest, stored.bytes, manifest
    row.progress = 1.0
    end(session, row, "ready", "fitted")
