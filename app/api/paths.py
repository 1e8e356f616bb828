r"""Every path has one allowed spelling, so that checks, routes and proxied requests all see the same path.

Clients, proxies and servers normalise paths differently: they remove `.` and `..`, merge slashes, decode `%2e` and
`%2F`. Where two of them disagree, a request can pass a check for one path and reach another. The service therefore
accepts only this spelling:

- parts are separated by single slashes, with none at the end;
- no part is `.` or `..`, and none holds a slash, a backslash, a percent sign or a control character, encoded or not;
- characters that need no percent-encoding (letters, digits and `- . _ ~`) are not encoded.

Reserved characters in names may be encoded or not (`digits+mod_1` or `digits%2Bmod_1`). The server decodes them once.
"""

import re
from urllib.parse import quote, unquote

from starlette.types import Scope

from app.errors import Invalid

CODE = "invalid_path"
_SUB_DELIMITERS = "!$&'()*+,;=:@"
_PART = re.compile(rf"(?:[A-Za-z0-9._~{re.escape(_SUB_DELIMITERS)}-]|%[0-9A-Fa-f]{{2}})+\Z")
"""`segment-nz` of RFC 3986."""
_ENCODED = re.compile(r"%([0-9A-Fa-f]{2})")
_NEVER_ENCODED = re.compile(r"[A-Za-z0-9._~/\\%\x01-\x1f\x7f-]\Z")
"""Characters whose encoding is unnecessary or forbidden; routes overlook a line feed at the end of a path.
The guard refuses NUL."""
_DOTS = (".", "..")
_ENDS_WITH_SLASH = frozenset({"/_nicegui_ws/socket.io/"})
"""Socket.IO clients use this path."""


def fault(scope: Scope) -> str | None:
    """Message about a path in a wrong spelling; None: the spelling is correct.

    Args:
        scope: ASGI scope of HTTP or of a websocket. Without `raw_path`, the server has decoded `path` once.
    """
    path: str = scope["path"]
    raw = (scope.get("raw_path") or quote(path, safe="/" + _SUB_DELIMITERS).encode()).decode("latin-1")
    why = _path_fault(raw, path)
    if why is None:
        return None
    return (
        f"expected a path of parts between single slashes, none of them . or .., without needless percent-encoding, "
        f"got {raw!r:.200} ({why}); write the path as in /openapi.json"
    )


def join(*parts: str) -> str:
    """Join parts to a path in the allowed spelling.

    Raises:
        Invalid: a part is empty, `.` or `..`, or holds a slash, a backslash or a percent sign.
    """
    for part in parts:
        if part in ("", *_DOTS) or any(character in part for character in "/\\%"):
            raise Invalid.at("path", CODE, f"expected a name or an id, got {part!r:.80}; take one from a list")
    return "".join("/" + quote(part, safe=_SUB_DELIMITERS) for part in parts)


def _path_fault(raw: str, path: str) -> str | None:
    """The fault in the spelling of a path; None: the path is canonical."""
    if not raw.startswith("/"):
        return "no slash at the beginning"
    parts = raw[1:].split("/")
    if raw == "/" or raw in _ENDS_WITH_SLASH:
        parts.pop()
    found = next((why for part in parts if (why := _part_fault(part)) is not None), None)
    if found is None and unquote(raw) != path:
        return "decoded otherwise by the server"
    return found


def _part_fault(part: str) -> str | None:
    """The fault in one part of a path; None: the part is canonical."""
    if part == "":
        return "an empty part: two slashes, or one at the end"
    if part in _DOTS:
        return f"a part {part}"
    if not _PART.match(part):
        return "a character that no path has"
    needless = next((code for code in _ENCODED.finditer(part) if _NEVER_ENCODED.match(chr(int(code[1], 16)))), None)
    if needless is not None:
        return f"the code {needless[0]}"
    try:
        unquote(part, errors="strict")
    except UnicodeDecodeError:
        return "codes that are no UTF-8"
    return None
