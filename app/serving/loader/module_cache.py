"""Cache of loaded modules."""

import threading
from collections import OrderedDict

from app.serving.engine import metrics
from app.serving.engine.programs import Branch


class ModuleCache:
    """Loaded modules by target and digest. Evicts the least recently used modules, but none that is served.

    Args:
        most: Most bytes of all modules; served modules may exceed it.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: OrderedDict[tuple[str, str], tuple[Branch, int]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, version_id: str, digest: str) -> Branch | None:
        """The module, prepared for a target; None: not in the cache."""
        with self._lock:
            found = self._kept.get((version_id, digest))
            if found is None:
                return None
            self._kept.move_to_end((version_id, digest))
            return found[0]

    def put(self, version_id: str, digest: str, branch: Branch) -> None:
        """Add a module."""
        with self._lock:
            self._kept[version_id, digest] = branch, branch.bytes

    def evict(self, served: set[tuple[str, str]], versions: set[str]) -> None:
        """Remove modules of other targets, and modules above the limit.

        Args:
            served: Target and digest of modules that stay.
            versions: Targets whose modules stay.
        """
        with self._lock:
            for key in [key for key in self._kept if key[0] not in versions]:
                del self._kept[key]
            total = sum(size for _, size in self._kept.values())
            for key in [key for key in self._kept if key not in served]:
                if total <= self._most:
                    break
                total -= self._kept.pop(key)[1]
                metrics.CACHE_EVICTIONS.inc()
            metrics.CACHE_BYTES.set(total)
