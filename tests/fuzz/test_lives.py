"""Jobs and deployments under any sequence of requests and workers, on SQLite and on PostgreSQL.

The invariants: states change only along allowed transitions, an ended job does not change, generations only grow,
the wanted modules are those of the last request, and another workspace sees nothing.
"""

import os
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from sqlalchemy import delete, select

from app.access import workspaces
from app.access.keys import SCOPES, Caller
from app.access.tables import WorkspaceRow
from app.db.leases import Lease
from app.db.pages import Window
from app.db.tables import Base
from app.deployments import reports
from app.deployments import service as deployments
from app.deployments.tables import DeploymentRow
from app.errors import AlreadyExists, Conflict, LeaseLost
from app.jobs import runs, states
from app.jobs import service as jobs
from app.jobs.tables import JobRow
from app.modules.tables import ModuleRow
from app.zoo import Zoo
from tests.unit import seeds

LONG = os.environ.get("PNC_FUZZ") == "long"
RUNS = settings(
    max_examples=25 if LONG else 3,
    stateful_step_count=30 if LONG else 12,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)


class Lives(RuleBasedStateMachine):
    """The operations of users and workers on jobs and deployments."""

    opened: Zoo
    job = Bundle("job")

    @initialize()
    def begin(self) -> None:
        """Make a workspace with two models and images, and an empty workspace."""
        with self.opened.database.write() as session:
            for table in reversed(Base.metadata.sorted_tables):
                if table.name != WorkspaceRow.__tablename__:
                    session.execute(delete(table))
            for name in ("red", "blue"):
                with suppress(AlreadyExists):
                    workspaces.create(session, name)
        self.red = self.opened.seen_by(Caller("red", frozenset(SCOPES)))
        self.blue = self.opened.seen_by(Caller("blue", frozenset(SCOPES)))
        with self.red.database.write() as session:
            self.request = seeds.request(session, self.red)
        self.leases: list[Lease] = []
        self.ended: dict[str, str] = {}
        self.generations: dict[str, int] = {}

    @rule(target=job)
    def submit(self) -> str:
        with self.red.database.write() as session:
            return jobs.submit(session, self.request).id

    @rule(job=job, verb=st.sampled_from(["cancel", "pause", "resume", "retry"]))
    def ask(self, job: str, verb: str) -> None:
        with suppress(Conflict), self.red.database.write() as session:
            getattr(jobs, verb)(session, job)

    @rule(job=job, verb=st.sampled_from(["cancel", "pause", "resume", "retry", "get"]))
    def ask_from_elsewhere(self, job: str, verb: str) -> None:
        with self.blue.database.write() as session, pytest.raises(Exception, match="got none with id"):
            getattr(jobs, verb)(session, job)

    @rule()
    def claim(self) -> None:
        with self.opened.database.write() as session:
            lease = runs.claim(session, f"worker{len(self.leases)}")
        if lease is not None:
            self.leases.append(lease)

    @rule(
        end=st.sampled_from(["succeed", "fail", "finish_cancel", "finish_pause", "heartbeat", "record"]), data=st.data()
    )
    def work(self, end: str, data: st.DataObject) -> None:
        if not self.leases:
            return
        lease = data.draw(st.sampled_from(self.leases))
        with suppress(LeaseLost, Conflict), self.opened.database.write() as session:
            if end == "succeed":
                seeds.publish(session, self.opened, lease)
            elif end == "fail":
                runs.fail(session, lease, {"code": "x", "detail": "y"})
            elif end == "record":
                runs.record(session, lease, stage="searching", message="m", progress=0.5)
            else:
                getattr(runs, end)(session, lease)

    @rule(name=st.sampled_from(["one", "two"]))
    def serve(self, name: str) -> None:
        with suppress(Conflict), self.red.database.write() as session:
            deployments.put(session, name, "low")

    @rule(
        name=st.sampled_from(["one", "two"]), verb=st.sampled_from(["attach", "detach", "delete", "refuse", "observe"])
    )
    def change(self, name: str, verb: str) -> None:
        with suppress(Conflict), self.red.database.write() as session:
            row = session.scalars(select(DeploymentRow).where(DeploymentRow.name == name)).one_or_none()
            module = session.scalars(select(ModuleRow.id).limit(1)).first()
            if row is None or row.deleted_at is not None or (module is None and verb in ("attach", "detach")):
                return
            if verb in ("attach", "detach"):
                getattr(deployments, verb)(session, name, module)
            elif verb == "delete":
                deployments.delete(session, name)
            elif verb == "refuse":
                reports.refuse(session, f"red/{name}", row.generation, {"code": "x", "detail": "y"})
            else:
                reports.observe(session, f"red/{name}", row.generation)

    @invariant()
    def jobs_end_once(self) -> None:
        if not hasattr(self, "red"):
            return
        with self.red.database.read() as session:
            for row in session.scalars(select(JobRow)):
                assert row.id not in self.ended or self.ended[row.id] == row.state
                assert (row.state == "succeeded") is (row.module is not None)
                assert (row.finished_at is not None) is (row.state in states.TERMINAL)
                if row.state in states.TERMINAL:
                    self.ended[row.id] = row.state

    @invariant()
    def generations_grow(self) -> None:
        if not hasattr(self, "red"):
            return
        with self.red.database.read() as session:
            for row in session.scalars(select(DeploymentRow)):
                assert row.generation >= self.generations.get(row.name, 0)
                self.generations[row.name] = row.generation
                assert deployments.revision(session, row).generation == row.generation

    @invariant()
    def the_other_workspace_sees_nothing(self) -> None:
        if not hasattr(self, "red"):
            return
        with self.blue.database.read() as session:
            assert jobs.list_jobs(session, Window()).data == []
            assert deployments.list_deployments(session, Window()).data == []
            assert session.scalars(select(ModuleRow)).all() == []


def live(zoo: Zoo) -> None:
    """Run the state machine on a zoo."""
    kind = type("LivesHere", (Lives,), {"opened": zoo})
    run_state_machine_as_test(kind, settings=RUNS)


def test_lives_on_sqlite() -> None:
    with tempfile.TemporaryDirectory() as folder:
        zoo = seeds.new_zoo(Path(folder))
        try:
            live(zoo)
        finally:
            zoo.close()
