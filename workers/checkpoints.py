"""Stores a job's checkpoints as rows and objects, and shares the job's trials among workers."""

import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from app.db.leases import Lease
from app.jobs import steps
from app.store import object_locks
from app.store.objects import Stored, verified_file
from app.zoo import Zoo
from pnc_core.errors import Cancelled
from pnc_core.method.checkpoints import State, Work
from workers.retry import retrying

POLL_SECONDS = 0.3


class StoredCheckpoints:
    """The checkpoints of one job, readable by every worker on every machine.

    Args:
        zoo: The open zoo.
        job_id: The job.
        lease: The job's lease in the process that runs the job; None in a helper, which only reads.
        cancelled: Returns whether the job is cancelled; called while waiting for helpers.
    """

    def __init__(self, zoo: Zoo, job_id: str, lease: Lease | None, cancelled: Callable[[], bool]) -> None:
        self._zoo, self._job, self._lease, self._cancelled = zoo, job_id, lease, cancelled
        self._offered: dict[str, State] = {}
        self._kept_at = time.monotonic()

    def load(self, step: str) -> State | None:
        """See `pnc_core.method.checkpoints.Checkpoints.load`."""
        with self._zoo.database.read() as session:
            row = steps.find(session, self._job, [step]).get(step)
        if row is None or row.key is None or row.digest is None:
            return None
        with verified_file(self._zoo.store, row.key, row.digest) as path:
            return State.read(path)

    def offer(self, step: str, state: State) -> None:
        """See `Checkpoints.offer`. States are stored every `checkpoint_seconds`, and by `flush`; a helper stores
        none.
        """
        if self._lease is None:
            return
        self._offered[step] = state
        if time.monotonic() >= self._kept_at + self._zoo.settings.checkpoint_seconds:
            self.flush()

    def flush(self) -> None:
        """Store the offered states.

        Raises:
            LeaseLost: another worker has the job now.
        """
        offered, self._offered = self._offered, {}
        for step, state in offered.items():
            self._keep(step, state)

    def save(self, step: str, state: State) -> None:
        """See `Checkpoints.save`."""
        self._offered = {}
        self._keep(step, state)

    def each(self, names: Sequence[str], work: Work) -> Iterable[State]:
        """See `Checkpoints.each`. With a broker, idle workers run some of the steps."""
        missing = self._missing(names)
        if self._lease is None or self._zoo.database.notifier is None or len(missing) < 2:
            for name, state in zip(missing, work(missing) if missing else [], strict=True):
                self.save(name, state)
        else:
            self._share(missing, work)
        states = [self.load(name) for name in names]
        return [state for state in states if state is not None]

    @retrying
    def _missing(self, names: Sequence[str]) -> list[str]:
        with self._zoo.database.read() as session:
            found = steps.find(session, self._job, names)
        return [name for name in names if name not in found or found[name].key is None]

    @retrying
    def _keep(self, step: str, state: State) -> None:
        assert self._lease is not None
        stored = put_state(self._zoo, state)
        with self._zoo.database.write() as session:
            steps.keep(session, self._lease, step, stored)
            object_locks.put_again(session, self._zoo.store, stored.key, lambda: put_state(self._zoo, state))
        self._kept_at = time.monotonic()

    def _share(self, names: list[str], work: Work) -> None:
        """Share the steps with all workers, run one after another here, and wait for the steps of other workers.

        A helper first loads networks and images. Steps that take less time than this are not shared.
        """
        assert self._lease is not None
        began, first = time.monotonic(), names.pop(0)
        self.save(first, work([first])[0])
        if time.monotonic() - began < self._zoo.settings.share_seconds:
            for name, state in zip(names, work(names), strict=True):
                self.save(name, state)
            return
        self._offer_to_all(self._lease, names)
        while self._missing(names):
            taken = self._take(self._lease)
            if taken is not None:
                lease, name = taken
                self.finish(lease, work([name])[0])
            elif self._cancelled():
                raise Cancelled("the job was cancelled")
            else:
                time.sleep(POLL_SECONDS)

    @retrying
    def _offer_to_all(self, lease: Lease, names: list[str]) -> None:
        with self._zoo.database.write() as session:
            steps.share(session, lease, names)

    @retrying
    def _take(self, lease: Lease) -> tuple[Lease, str] | None:
        with self._zoo.database.write() as session:
            return steps.claim_own(session, lease)

    @retrying
    def finish(self, lease: Lease, state: State) -> None:
        """Store the state of a finished shared step.

        Raises:
            LeaseLost: another worker has the step now.
        """
        stored = put_state(self._zoo, state)
        with self._zoo.database.write() as session:
            steps.finish(session, lease, stored)
            object_locks.put_again(session, self._zoo.store, stored.key, lambda: put_state(self._zoo, state))


def put_state(zoo: Zoo, state: State) -> Stored:
    """Put a state into the store, keyed by its digest."""
    with tempfile.NamedTemporaryFile(dir=zoo.staging) as file:
        path = Path(file.name)
        path.write_bytes(state.to_bytes())
        return zoo.store.put(path)
