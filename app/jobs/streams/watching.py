"""Watching of jobs: one thread polls the database for the followers of all jobs.

The thread reads the newest event number of every followed job in one query, several times a second. It then reads the
new events of jobs that have some, and wakes the followers of these jobs. A follower takes the events that it has not
sent yet from the job's shared buffer, or reads older ones from the database. A follower whose client does not read
therefore needs no memory and delays no other follower.
"""

import asyncio
import logging
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from sqlalchemy.orm import Session

from app.access import keys
from app.db.engine import Database
from app.errors import TooMany
from app.jobs import events, states
from app.jobs import service as jobs
from app.jobs.events import Head
from app.jobs.tables import EventRow, JobRow

log = logging.getLogger(__name__)
POLL_SECONDS = 0.3
KEPT = 100
"""Size of a job's shared buffer, in events."""
AT_ONCE, SPREAD_SECONDS = 10, 0.2
"""Followers are woken in groups of `AT_ONCE`, over `SPREAD_SECONDS` seconds; the event loop can work in between."""
RETRY_SECONDS = 5
"""Retry-After of a stream that is refused because there are too many."""


@dataclass(frozen=True)
class Format:
    """Formats events, and the end of a job, as bytes of a stream."""

    event: Callable[[EventRow], bytes]
    end: Callable[[JobRow], bytes]


@dataclass(frozen=True)
class Limits:
    """Limits of open streams."""

    total: Callable[[], int]
    """Limit in this process."""
    per_audience: int
    """Limit for one key, or for one client address if no keys are required."""


@dataclass(eq=False)
class Follower:
    """A stream that waits for a job's new events."""

    job: str
    """Id of the job."""
    key_id: str | None
    """Id of the caller's key, if keys are required; the stream ends when the key is revoked or expires."""
    news: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the job has new events, or the stream must end."""
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)
    is_over: bool = False
    """Whether the stream must end."""


@dataclass
class _Watched:
    followers: set[Follower] = field(default_factory=set)
    head: Head | None = None
    """Newest event number and state; None: not read yet."""
    recent: deque[tuple[int, bytes]] = field(default_factory=lambda: deque(maxlen=KEPT))
    """Numbers and messages of the newest events, without gaps up to the head's number."""
    end: bytes | None = None
    """The end message, if the job has ended."""


class Watch:
    """Watches jobs for all followers of a process; its thread runs while there are followers.

    Args:
        database: A database that belongs to no workspace; the routes check that a caller may see a job.
        format: Formats the events.
        limits: Limits of open streams.
    """

    def __init__(self, database: Database, format: Format, limits: Limits) -> None:
        self._database, self._format, self._limits = database, format, limits
        self._watched: dict[str, _Watched] = {}
        self._audiences: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._is_failing = False

    @contextmanager
    def stream(self, job: str, key_id: str | None, audience: str) -> Iterator[Follower]:
        """Follow a job for the duration of a block, and count it as an open stream.

        Args:
            job: Id of the job.
            key_id: Id of the caller's key, if keys are required.
            audience: Key id or client address whose streams are limited.

        Raises:
            TooMany: a limit of open streams is reached.
        """
        self._enter(audience)
        try:
            with self.follow(job, key_id) as follower:
                yield follower
        finally:
            with self._lock:
                self._audiences[audience] -= 1
                self._audiences += Counter()  # removes entries with count 0

    @contextmanager
    def follow(self, job: str, key_id: str | None) -> Iterator[Follower]:
        """Follow a job for the duration of a block; call on an event loop."""
        follower = self.add(job, key_id)
        try:
            yield follower
        finally:
            self.remove(follower)

    def add(self, job: str, key_id: str | None) -> Follower:
        """Add a follower of a job; call on an event loop. The caller must remove it."""
        follower = Follower(job, key_id)
        with self._lock:
            self._watched.setdefault(job, _Watched()).followers.add(follower)
            if self._thread is None and not self._stop.is_set():
                self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
                self._thread.start()
        return follower

    def remove(self, follower: Follower) -> None:
        """Remove a follower; removing it again changes nothing."""
        with self._lock:
            watched = self._watched.get(follower.job)
            if watched is not None:
                watched.followers.discard(follower)
                if not watched.followers:
                    del self._watched[follower.job]

    def recent(self, job: str, seq: int) -> tuple[list[tuple[int, bytes]], bytes | None] | None:
        """Events of a job from the shared buffer.

        Args:
            job: Id of the job.
            seq: Number of the last event that the follower has sent.

        Returns:
            Numbers and messages of later events, and the end message if the job has ended; None if the buffer does
            not reach back to `seq` and the events must be read from the database.
        """
        with self._lock:
            watched = self._watched.get(job)
            if watched is None or watched.head is None:
                return None
            if seq >= watched.head.seq:
                return [], watched.end
            if not watched.recent or watched.recent[0][0] > seq + 1:
                return None
            return [one for one in watched.recent if one[0] > seq], watched.end

    def close(self) -> None:
        """Stop the thread, and end all streams."""
        self._stop.set()
        with self._lock:
            thread, followers = self._thread, [f for w in self._watched.values() for f in w.followers]
        if thread is not None:
            thread.join()
        self._dismiss(followers)

    def _enter(self, audience: str) -> None:
        most, own = self._limits.total(), self._limits.per_audience
        with self._lock:
            if self._audiences[audience] >= own:
                raise TooMany(
                    f"expected at most {own} open event streams for a key or an address, got one more; close some, or "
                    "raise PNC_MAX_STREAMS_PER_KEY",
                    RETRY_SECONDS,
                )
            if self._audiences.total() >= most:
                raise TooMany(
                    f"expected at most {most} open event streams in this process, got one more; try again later, or "
                    "raise PNC_MAX_STREAMS and the limit of open files",
                    RETRY_SECONDS,
                )
            self._audiences[audience] += 1

    def _run(self) -> None:
        while not self._stop.is_set():
            with self._lock:
                if not self._watched:
                    self._thread = None
                    return
            try:
                self._poll()
                self._is_failing = False
            except Exception as error:  # the database may be unreachable: streams stay open until it is back
                if not self._is_failing:
                    log.warning("new events of jobs cannot be read: %s", type(error).__name__)
                self._is_failing = True
            self._stop.wait(POLL_SECONDS)

    def _poll(self) -> None:
        with self._lock:
            known = {job: watched.head for job, watched in self._watched.items()}
            followers = [f for watched in self._watched.values() for f in watched.followers]
        with self._database.read() as session:
            heads = events.heads(session, list(known))
            in_force = keys.in_force(session, {f.key_id for f in followers if f.key_id is not None})
            changed = {job for job, head in known.items() if head != heads.get(job)}
            for job in changed & heads.keys():
                self._update(session, job, known[job], heads[job])
        over = [f for f in followers if f.job not in heads or (f.key_id is not None and f.key_id not in in_force)]
        self._dismiss(over)
        self._wake([f for f in followers if f.job in changed])

    def _update(self, session: Session, job: str, before: Head | None, head: Head) -> None:
        """Read a job's new events into its shared buffer."""
        first = head.seq if before is None else max(before.seq, head.seq - KEPT)
        rows = events.events_after(session, job, first, KEPT) if first < head.seq else []
        news = [(row.seq, self._format.event(row)) for row in rows]
        end = None
        if head.state in states.TERMINAL:
            end = self._format.end(jobs.get(session, job, *jobs.AS_SHOWN))
        with self._lock:
            watched = self._watched.get(job)
            if watched is None:
                return
            if watched.head is not before or (before is not None and first > before.seq):
                watched.recent.clear()
            watched.recent.extend(news)
            watched.head, watched.end = head, end

    def _dismiss(self, followers: list[Follower]) -> None:
        for follower in followers:
            follower.is_over = True
        self._wake(followers)

    def _wake(self, followers: list[Follower]) -> None:
        for loop in {follower.loop for follower in followers}:
            news = [follower.news for follower in followers if follower.loop is loop]
            for start in range(0, len(news), AT_ONCE):
                with suppress(RuntimeError):  # the event loop is closed, so its followers have ended
                    loop.call_soon_threadsafe(_set, news[start : start + AT_ONCE])
                if len(news) > AT_ONCE:
                    self._stop.wait(SPREAD_SECONDS * AT_ONCE / len(news))


def _set(news: list[asyncio.Event]) -> None:
    for one in news:
        one.set()
