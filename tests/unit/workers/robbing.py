"""The worst moment at which garbage can be collected."""

from typing import Any

import pytest

from app.lifecycle import garbage
from app.store.objects import Stored
from app.zoo import Zoo


def rob(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on an object is taken away as soon as it was put, unless a row names it or is about to."""
    put = zoo.store.put

    def robbed(*args: Any, **kwargs: Any) -> Stored:
        stored = put(*args, **kwargs)
        if not zoo.database.engine.pool.checkedout():  # within a transaction whoever collects would wait for its end
            garbage.collect(zoo, object_seconds=-10)
        return stored

    monkeypatch.setattr(zoo.store, "put", robbed)
