"""One look at the database for all that wait for news of jobs, however many they are.

A thread asks a few times a second for the last event of every job that is followed, in one query, and reads the events
of those that have news. Followers are only woken. What a follower has not seen it takes from the newest events, which
are kept once a job and shared, or it reads by its own number. One that does not read costs no memory and delays nobody.
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
"""Newest events of a job that followers share."""
AT_ONCE, SPREAD_SECONDS = 10, 0.2
"""Followers that are woken together, and how long it takes until all are; in between the event loop is free."""
RETRY_SECONDS = 5
"""When a follower that was one too many may come back."""


@dataclass(frozen=True)
class Wording:
    """How events and ends are told to followers."""

    event: Callable[[EventRow], bytes]
    end: Callable[[JobRow], bytes]


@dataclass(frozen=True)
class Limits:
    """How many may follow at once."""

    total: Callable[[], int]
    """In this process."""
    per_audience: int
    """Of one key, or of one address where there are no keys."""


@dataclass(eq=False)
class Follower:
    """One that waits for a job's news."""

    job: str
    key_id: str | None
    """Key that it came with; it is over when the key has ended."""
    news: asyncio.Event = field(default_factory=asyncio.Event)
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)
    is_over: bool = False


@dataclass
class _Watched:
    followers: set[Follower] = field(default_factory=set)
    head: Head | None = None
    """None: not looked at yet."""
    recent: deque[tuple[int, bytes]] = field(default_factory=lambda: deque(maxlen=KEPT))
    """Numbers and words of the newest events, without gaps up to the head's."""
    end: bytes | None = None


class Watch:
    """Looks for all followers of a process; its thread lives while there are any.

    Args:
        database: Belongs to no workspace; that a follower may see its job was checked before.
        wording: How news are told.
        limits: How many may follow.
    """

    def __init__(self, database: Database, wording: Wording, limits: Limits) -> None:
        self._database, self._wording, self._limits = database, wording, limits
        self._watched: dict[str, _Watched] = {}
        self._audiences: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._is_blind = False

    @contextmanager
    def stream(self, job: str, key_id: str | None, audience: str) -> Iterator[Follower]:
        """Follow a job for the length of a block, as one of the streams that are counted.

        Args:
            job: Its id.
            key_id: Key that the follower came with, if there are keys.
            audience: What is limited: a key or an address.

        Raises:
            TooMany: as many follow as may.
        """
        self._enter(audience)
        try:
            with self.follow(job, key_id) as follower:
                yield follower
        finally:
            with self._lock:
                self._audiences[audience] -= 1
                self._audiences += Counter()  # forgets those with none

    @contextmanager
    def follow(self, job: str, key_id: str | None) -> Iterator[Follower]:
        """Follow a job for the length of a block; only on an event loop."""
        follower = self.add(job, key_id)
        try:
            yield follower
        finally:
            self.remove(follower)

    def add(self, job: str, key_id: str | None) -> Follower:
        """A new follower, which somebody has to remove; only on an event loop."""
        follower = Follower(job, key_id)
        with self._lock:
            self._watched.setdefault(job, _Watched()).followers.add(follower)
            if self._thread is None and not self._stop.is_set():
                self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
                self._thread.start()
        return follower

    def remove(self, follower: Follower) -> None:
        """Forget a follower; again is fine."""
        with self._lock:
            watched = self._watched.get(follower.job)
            if watched is not None:
                watched.followers.discard(follower)
                if not watched.followers:
                    del self._watched[follower.job]

    def recent(self, job: str, seq: int) -> tuple[list[tuple[int, bytes]], bytes | None] | None:
        """Numbers and words of events after number `seq`, and the job's end if these are the last.

        Returns:
            None if they are not at hand and must be read.
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
        """Look no more, and let all followers go."""
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
                    f"expected at most {own} open event streams of a key or an address, got one more; close some, or "
                    "raise PNC_MAX_STREAMS_PER_KEY",
                    RETRY_SECONDS,
                )
            if self._audiences.total() >= most:
                raise TooMany(
                    f"expected at most {most} open event streams in this process, got one more; come again later, or "
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
                self._look()
                self._is_blind = False
            except Exception as error:  # the database is away, perhaps: streams stay open, and hear later
                if not self._is_blind:
                    log.warning("no news of jobs can be read: %s", type(error).__name__)
                self._is_blind = True
            self._stop.wait(POLL_SECONDS)

    def _look(self) -> None:
        with self._lock:
            known = {job: watched.head for job, watched in self._watched.items()}
            followers = [f for watched in self._watched.values() for f in watched.followers]
        with self._database.read() as session:
            heads = events.heads(session, list(known))
            in_force = keys.in_force(session, {f.key_id for f in followers if f.key_id is not None})
            changed = {job for job, head in known.items() if head != heads.get(job)}
            for job in changed & heads.keys():
                self._take(session, job, known[job], heads[job])
        over = [f for f in followers if f.job not in heads or (f.key_id is not None and f.key_id not in in_force)]
        self._dismiss(over)
        self._wake([f for f in followers if f.job in changed])

    def _take(self, session: Session, job: str, before: Head | None, head: Head) -> None:
        """Keep what is new of a job."""
        first = head.seq if before is None else max(before.seq, head.seq - KEPT)
        rows = events.events_after(session, job, first, KEPT) if first < head.seq else []
        news = [(row.seq, self._wording.event(row)) for row in rows]
        end = None
        if head.state in states.TERMINAL:
            end = self._wording.end(jobs.get(session, job, *jobs.AS_SHOWN))
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
                with suppress(RuntimeError):  # the loop has ended, and its followers with it
                    loop.call_soon_threadsafe(_set, news[start : start + AT_ONCE])
                if len(news) > AT_ONCE:
                    self._stop.wait(SPREAD_SECONDS * AT_ONCE / len(news))


def _set(news: list[asyncio.Event]) -> None:
    for one in news:
        one.set()
