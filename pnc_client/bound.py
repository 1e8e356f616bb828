"""Answers that know the connection they came over, so that `job.wait()` works.

An object holds the state of one moment: a method returns a newer object.
"""

from typing import Any

from pydantic import PrivateAttr

from pnc_client.http import Http
from pnc_client.schemas.shapes import Answer


class Bound(Answer):
    """An answer with a connection to the service."""

    _connection: Http | None = PrivateAttr(None)

    def model_post_init(self, context: Any, /) -> None:
        """Keep the connection, which `Http.read` passes as the context of validation."""
        self._connection = context

    @property
    def http(self) -> Http:
        """The connection that the object came over.

        Raises:
            ValueError: the object was made by hand.
        """
        if self._connection is None:
            raise ValueError(f"expected an object that a client fetched, got a {type(self).__name__} made by hand")
        return self._connection
