"""Zoos with very many rows, written in bulk."""

from datetime import UTC, datetime

from sqlalchemy import insert
from sqlalchemy.orm import Session

from app.datasets.tables import DatasetRow
from app.jobs.tables import JobRow, TrialRow
from app.models.tables import AliasRow, ModelRow, VersionRow
from app.modules.tables import BundleRow, ModuleRow

STATES = ("succeeded", "failed", "cancelled", "queued", "running")
KEY = f"00/{0:062}"
"""Of objects that nobody has put."""
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def crowd(session: Session, models: int, jobs: int, states: tuple[str, ...] = STATES) -> None:
    """Models with a version and an alias each, and jobs between them; every fifth job has a module."""
    spec = {"architecture": "cnn", "classes": ["0", "1"], "input_size": [1, 8, 8], "mean": [0.5], "std": [0.5]}
    numbers = range(models)
    session.execute(
        insert(ModelRow),
        [
            {"id": f"mdl_{i:06}", "name": f"net-{i:06}", "description": "", "last_version": 1, "created_at": NOW}
            for i in numbers
        ],
    )
    session.execute(
        insert(VersionRow),
        [
            {
                "id": f"ver_{i:06}", "model_id": f"mdl_{i:06}", "number": 1, "status": "ready", "spec": spec,
                "digest": f"{i:064x}", "bytes": 1000, "key": KEY, "fingerprint": f"sha256:{i:064x}",
                "parameters": i, "macs": 10, "created_at": NOW, "lease_token": 0, "attempts": 0,
            }
            for i in numbers
        ],
    )  # fmt: skip
    aliases = [{"model_id": f"mdl_{i:06}", "alias": "production", "version_id": f"ver_{i:06}"} for i in numbers]
    session.execute(insert(AliasRow), [{**a, "updated_at": NOW} for a in aliases])
    session.execute(
        insert(DatasetRow),
        [{"id": "ds_1", "name": "digits", "digest": "0", "bytes": 1, "key": KEY, "rows": 10,
          "classes": ["0", "1"], "counts": {"0": 5, "1": 5}, "created_at": NOW}],
    )  # fmt: skip
    _jobs(session, models, jobs, states)


def _jobs(session: Session, models: int, jobs: int, states: tuple[str, ...]) -> None:
    rows = [
        {
            "id": f"job_{i:06}", "state": states[i % len(states)], "target_version_id": f"ver_{i % models:06}",
            "source_version_id": f"ver_{(i + 1) % models:06}", "dataset_id": "ds_1", "config": {"classes": ["1"]},
            "progress": 0.5, "last_seq": 0, "created_at": NOW, "lease_token": 0, "attempts": 0,
        }
        for i in range(jobs)
    ]  # fmt: skip
    session.execute(insert(JobRow), rows)
    done = [row for row in rows if row["state"] == "succeeded"]
    modules = [
        {
            "id": f"mod_{row['id'][4:]}", "job_id": row["id"], "target_version_id": row["target_version_id"],
            "source_version_id": row["source_version_id"], "target_fingerprint": f"sha256:{i:064x}", "classes": ["1"],
            "manifest": {"validation": {"old": 0.9, "new": 0.9, "average": 0.9}}, "created_at": NOW,
        }
        for i, row in enumerate(done)
    ]  # fmt: skip
    session.execute(insert(ModuleRow), modules)
    session.execute(
        insert(BundleRow),
        [
            {"module_id": m["id"], "payload": p, "digest": "0", "bytes": 9, "key": KEY}
            for m in modules
            for p in ("thin", "full")
        ],
    )
    trial = {"attempt": 1, "target_position": "a", "score": 0.5, "parameters": 10}
    session.execute(
        insert(TrialRow),
        [
            {
                **trial, "id": f"trl_{i:06}", "job_id": rows[0]["id"], "source_position": f"b{i // 3}", "round": i % 3,
                "created_at": NOW,
            }
            for i in range(100)
        ],
    )  # fmt: skip
