"""The served deployments of this process, kept equal to the wanted state.

The wanted state is in the database. The registry polls it, and `sync` makes it look at once.
It builds and warms up a new snapshot beside the served one, and then replaces the reference.
If that fails, the served snapshot stays. A replaced snapshot finishes its running requests,
and the last few generations can still be requested by number.
"""

import logging
import threading
import time

from sqlalchemy.orm import Session

from app.db.ids import new_id
from app.db.isolation import parted
from app.deployments import desired, replicas
from app.deployments.desired import DesiredDeployment
from app.deployments.replicas import Observation
from app.errors import Loading, NotFound, ZooError
from app.process.troubles import Complaints, is_passing, one_line
from app.serving.canary.counts import Counts
from app.serving.engine import metrics
from app.serving.engine.engine import Engine
from app.serving.engine.modes import Mode
from app.serving.loader.building import Builder
from app.serving.loader.refusals import Refusal
from app.serving.loader.reports import Report, Reports
from app.serving.loader.snapshot import Snapshot
from app.store.objects import seen_through
from app.zoo import Zoo
from pnc_core.errors import PncError

log = logging.getLogger(__name__)
_complain = Complaints(log)
POLL_SECONDS = 0.5
PREPARING_SECONDS = 0.1
"""The same while a deployment waits for the engine of its target."""
WHOLE_SECONDS = 30.0
"""Interval of whole rounds while the wanted state does not change."""
RETRY_SECONDS = 10.0
"""A refused generation that is still wanted is tried again after this time, a postponed one sooner."""
STALE_SECONDS = 5.0
"""Age from which the list of wanted deployments is outdated: an unknown name may be a new deployment."""
KEPT_GENERATIONS = 4
"""Generations of a deployment that can be requested by number."""
READ_AHEAD = 8
"""Number of the newest modules of a served target that are loaded in advance."""


class Registry:
    """Snapshots by deployment name.

    Args:
        zoo: Holds the wanted state, weights and bundles.
        engine: Runs programs before they are served.
        mode: How networks are prepared.
    """

    def __init__(self, zoo: Zoo, engine: Engine, mode: Mode) -> None:
        self.zoo, self.mode = zoo, mode
        self.replica = new_id("rep")
        self._reported = -replicas.BEAT_SECONDS
        """Time of the last report on the monotonic clock."""
        self._snapshots: dict[str, Snapshot] = {}
        self._earlier: dict[str, tuple[Snapshot, ...]] = {}
        self._refusals: dict[str, Refusal] = {}
        """The last refusal of each deployment, for later requests."""
        self._wanted: dict[str, int] = {}
        """Wanted generations, as last read or announced."""
        self._wanted_at: float | None = None
        """Time of that reading on the monotonic clock; None: before the first complete pass."""
        self._mark: desired.Mark | None = None
        """Mark of the wanted state at the last whole round; None: that round failed."""
        self._whole_at = 0.0
        """Time of the last whole round on the monotonic clock."""
        self._preparing: set[str] = set()
        """Deployments that wait for the engine of their target."""
        self._unfit: set[tuple[str, str]] = set()
        """Modules whose loading in advance failed. They are tried again only when they are attached."""
        self.counts = Counts()
        self._builder = Builder(zoo, engine, mode, self._snapshots.get)
        self._reports = Reports(zoo, self.replica, self._report)
        self._changing = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._poll, name="registry", daemon=True)

    def start(self) -> None:
        """Start the thread that follows the wanted state."""
        self._thread.start()

    def close(self) -> None:
        """Stop the thread, write waiting reports, and remove this replica."""
        self._stop.set()
        self._thread.join()
        try:
            self._reports.catch_up()
            self.counts.write(self.zoo.database)
            with self.zoo.database.write() as session:
                replicas.leave(session, self.replica)
        except Exception as error:
            if not is_passing(error):
                raise
            log.warning("could not remove this replica: %s", one_line(error))  # it expires without heartbeats

    def names(self, workspace: str) -> list[str]:
        """Names of the served deployments of a workspace."""
        served = (parted(name) for name in list(self._snapshots))  # a copy, since another thread may change the dict
        return sorted(bare for owner, bare in served if owner == workspace)

    def get(self, name: str, generation: int | None = None) -> Snapshot:
        """The served snapshot of a deployment, or an earlier one by its generation.

        Raises:
            NotFound: the deployment or the generation does not exist.
            Loading: the deployment is not served yet, or the wanted state has not been read yet.
        """
        snapshot = self._snapshots.get(name)
        if snapshot is None:
            raise self._missing(name)
        if generation is None or generation == snapshot.generation:
            return snapshot
        for earlier in self._earlier.get(name, ()):
            if earlier.generation == generation:
                return earlier
        if generation == self._wanted.get(name) and self.refusal(name, generation) is None:
            raise Loading(f"{name}: expected generation {generation}, got one that is still loading; try again")
        kept = sorted({snapshot.generation, *(s.generation for s in self._earlier.get(name, ()))})
        raise NotFound(f"{name}: expected one of the generations {kept}, got {generation}; older ones are not kept")

    def _missing(self, name: str) -> ZooError:
        """The error for a deployment that is not served."""
        refusal = self._refusals.get(name)
        if refusal is not None and refusal.waits:
            return Loading(refusal.detail)
        if refusal is not None:
            return NotFound(f"expected a served deployment, got none named {name!r:.80}; {refusal.detail}")
        read = self._wanted_at
        if name in self._wanted or read is None or time.monotonic() - read > STALE_SECONDS:
            return Loading(f"expected a served deployment, got {name!r:.80}, which is still loading; try again")
        return NotFound(
            f"expected a served deployment, got none named {name!r:.80}; make it with PUT /v1/deployments/<name>"
        )

    def sync(self, name: str | None = None) -> None:
        """Bring one deployment, or all of them, to the wanted state now."""
        if name is not None:
            self._wanted.setdefault(name, 0)  # makes `get` answer `Loading` while another deployment loads
        with self._changing:
            began = time.monotonic()
            with self.zoo.database.read() as session:
                wanted = {d.name: d for d in desired.deployments(session)}
            self._wanted = {d.name: d.generation for d in wanted.values()}
            if self._wanted_at is not None:
                self._wanted_at = began
            for gone in self._snapshots.keys() - wanted.keys():
                self._snapshots.pop(gone).use.replace()
                self._earlier.pop(gone, None)
            self._preparing &= wanted.keys()
            for deployment in wanted.values():
                if name in (None, deployment.name):
                    self._converge(deployment)
            if name is None:
                self._wanted_at = began
            self._builder.keep_only([*wanted.values()])

    def refusal(self, name: str, generation: int) -> Refusal | None:
        """The refusal of a generation, also of one that is no longer wanted; None: it was not refused."""
        refusal = self._refusals.get(name)
        return refusal if refusal is not None and (refusal.generation, refusal.waits) == (generation, 0) else None

    def check_loaded(self, name: str, generation: int) -> None:
        """Check that a generation is not postponed.

        Raises:
            Loading: the generation is postponed.
        """
        refusal = self._refusals.get(name)
        if refusal is not None and refusal.generation == generation and refusal.waits:
            raise Loading(refusal.detail)

    def is_preparing(self, name: str) -> bool:
        """Whether a deployment waits for the engine of its target. The thread of this registry then serves it."""
        return name in self._preparing

    def settled(self) -> bool:
        """Whether every wanted generation is served, refused or postponed, after a first complete pass."""
        if self._wanted_at is None:
            return False
        with self.zoo.database.read() as session:
            wanted = desired.deployments(session)
        return all(self._is_settled(d) for d in wanted)

    def _is_settled(self, wanted: DesiredDeployment) -> bool:
        served, refused = self._snapshots.get(wanted.name), self._refusals.get(wanted.name)
        return wanted.generation in {s.generation for s in (served, refused) if s is not None}

    def _is_due(self, wanted: DesiredDeployment) -> bool:
        refused = self._refusals.get(wanted.name)
        again = refused is not None and refused.generation == wanted.generation and time.monotonic() >= refused.until
        return again or not self._is_settled(wanted)

    def _converge(self, wanted: DesiredDeployment) -> None:
        """Serve a wanted deployment, or record why not. An error of one deployment does not affect others."""
        if not self._is_due(wanted):
            return
        started = time.monotonic()
        try:
            snapshot = self._builder.snapshot(wanted)
        except Exception as error:
            self._preparing.discard(wanted.name)
            self._decline(wanted, seen_through(self.zoo.store, error))
            return
        if snapshot is None:
            self._preparing.add(wanted.name)
            return
        self._publish(snapshot)
        self._preparing.discard(wanted.name)
        metrics.SWAP_SECONDS.observe(time.monotonic() - started)
        self._reports.add(Report(wanted.name, wanted.version_id, wanted.generation))
        about = {"deployment": wanted.name, "generation": wanted.generation}
        log.info("serving with %d modules", len(wanted.modules), extra=about)

    def _decline(self, wanted: DesiredDeployment, error: Exception) -> None:
        """Postpone a generation after an error of the environment, and refuse it after any other error."""
        if is_passing(error):
            self._postpone(wanted, error)
        elif isinstance(error, (PncError, ZooError)):
            self._refuse(wanted, error.code, str(error))
        else:
            log.error("%s: cannot serve generation %d", wanted.name, wanted.generation, exc_info=error)
            detail = f"expected to load generation {wanted.generation}, got {type(error).__name__}; see serving's log"
            self._refuse(wanted, "internal_error", detail)

    def _publish(self, snapshot: Snapshot) -> None:
        name, before = snapshot.deployment, self._snapshots.get(snapshot.deployment)
        self._snapshots[name] = snapshot
        snapshot.program.ask_for_programs()
        if snapshot.second is not None:
            snapshot.second.program.ask_for_programs()
        postponed = self._refusals.get(name)
        if postponed is not None and postponed.generation == snapshot.generation:
            del self._refusals[name]
        if before is not None:
            before.use.replace()
            self._earlier[name] = (before, *self._earlier.get(name, ()))[: KEPT_GENERATIONS - 1]

    def _refuse(self, wanted: DesiredDeployment, code: str, detail: str) -> None:
        self._note(wanted, Refusal(wanted.generation, code, detail, time.monotonic() + RETRY_SECONDS))

    def _postpone(self, wanted: DesiredDeployment, error: Exception) -> None:
        before = self._refusals.get(wanted.name)
        waits = before.waits + 1 if before is not None and before.generation == wanted.generation else 1
        until = time.monotonic() + min(RETRY_SECONDS, POLL_SECONDS * 2 ** min(waits, 10))
        detail = (
            f"expected to load generation {wanted.generation}, got for now: {one_line(error)}; "
            "it stays wanted and is tried again"
        )
        self._note(wanted, Refusal(wanted.generation, Loading.code, detail, until, waits))

    def _note(self, wanted: DesiredDeployment, refusal: Refusal) -> None:
        self._refusals[wanted.name] = refusal
        about = {"deployment": wanted.name, "generation": wanted.generation}
        if refusal.waits < 2:  # repeated postponements are logged once
            word = "postponed" if refusal.waits else "refused"
            log.warning("%s (%s): %s", word, refusal.code, refusal.detail, extra=about)
        report = Report(wanted.name, wanted.version_id, wanted.generation, refusal.document(), passes=refusal.waits > 0)
        self._reports.add(report)

    def _report(self, session: Session) -> None:
        observed = {name: Observation(snapshot.generation) for name, snapshot in list(self._snapshots.items())}
        for name, refused in list(self._refusals.items()):
            if name not in observed or refused.generation > observed[name].generation:
                observed[name] = Observation(refused.generation, refused.document())
        replicas.report(session, self.replica, observed)
        self._reported = time.monotonic()

    def _beat(self) -> None:
        """Send a heartbeat of this replica if the last report is old."""
        if time.monotonic() - self._reported >= replicas.BEAT_SECONDS:
            with self.zoo.database.write() as session:
                self._report(session)

    def _read_ahead(self) -> None:
        """Load attachable modules in advance, so that attaching takes little time."""
        with self.zoo.database.read() as session:
            wanted = desired.deployments(session)
            fitting = [(d, desired.attachable(session, d, READ_AHEAD)) for d in wanted]
        for deployment, modules in fitting:
            for module in modules:
                trunk, key = self._builder.trunks.get(deployment.version_id), (deployment.version_id, module.digest)
                if trunk is None or self._stop.is_set():
                    return
                if key in self._unfit or self._builder.modules.get(*key) is not None:
                    continue
                try:
                    self._builder.loaded(deployment, trunk, module)
                except (PncError, ZooError) as error:
                    if is_passing(seen_through(self.zoo.store, error)):
                        raise
                    self._unfit.add(key)
                    log.warning("%s: cannot be attached to %s: %s", module.id, deployment.name, error)

    def follow(self) -> None:
        """Do one round: sync, report, write counts, send a heartbeat, and load modules in advance. Errors are logged.

        A round in which nothing has changed only reads the mark of the wanted state.
        """
        try:
            began = time.monotonic()
            with self.zoo.database.read() as session:
                mark = desired.mark(session)
            if mark == self._mark and not self._has_work(began):
                self._wanted_at = began
                self._reports.catch_up()
                self._beat()
                self.counts.write_due(self.zoo.database)
                return
            self._mark, self._whole_at = None, began
            self.sync()
            self._reports.catch_up()
            self._beat()
            self.counts.write_due(self.zoo.database)
            self._read_ahead()
            self._mark = mark
        except Exception as error:
            _complain("cannot follow the wanted state; trying again", seen_through(self.zoo.store, error))

    def _has_work(self, now: float) -> bool:
        """Whether a round has work although the wanted state has not changed."""
        refused = list(self._refusals.items())
        is_due = any(now >= one.until for name, one in refused if one.generation == self._wanted.get(name))
        return is_due or self._wanted_at is None or bool(self._preparing) or now - self._whole_at >= WHOLE_SECONDS

    def _poll(self) -> None:
        while not self._stop.is_set():
            self.follow()
            self._stop.wait(PREPARING_SECONDS if self._preparing else POLL_SECONDS)
