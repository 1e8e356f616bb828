"""One line of the audit log for each request with a key that changes something or is refused."""

from starlette.requests import HTTPConnection

from app.access import audit
from app.access.keys import Caller
from app.zoo import Zoo

FAILED = "internal_error"
"""What became of a request that an error of ours has ended."""


def note(zoo: Zoo, connection: HTTPConnection, action: str, outcome: str) -> None:
    """Write the line, if the request came with a key; call it from a thread.

    Args:
        zoo: Where the log is.
        connection: The request's.
        action: What was asked for.
        outcome: Status, or the problem's code.
    """
    state = connection.scope.get("state", {})
    caller: Caller | None = state.get("caller")
    if caller is None or caller.key_id is None:
        return
    with zoo.database.write() as session:
        audit.note(
            session,
            caller,
            action=action,
            method=connection.scope["method"],
            path=connection.scope["path"],
            address=connection.client.host if connection.client else "",
            outcome=outcome,
            request_id=state.get("request_id", ""),
        )
