"""Sources of networks: the text that names one, and the origin that a version keeps."""

import re
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit, urlunsplit

from pnc_core.errors import PncError

Kind = Literal["torchvision", "timm", "hf", "mlflow", "url", "file"]
MAX_LENGTH = 2000
"""Most characters of a source."""
FORMS = (
    "torchvision/NAME[@WEIGHTS], timm/NAME[.TAG], hf://OWNER/NAME[@REVISION], mlflow://models/NAME/VERSION or "
    "https://HOST/PATH"
)
_PATTERNS: tuple[tuple[Kind, re.Pattern[str]], ...] = (
    ("torchvision", re.compile(r"torchvision/(?P<name>\w+)(?:@(?P<revision>\w+))?\Z")),
    ("timm", re.compile(r"timm/(?P<name>[\w.-]+)\Z")),
    ("hf", re.compile(r"hf://(?P<name>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?\Z")),
    ("mlflow", re.compile(r"mlflow://models/(?P<name>[^/@]+)/(?P<revision>[^/@]+)\Z")),
)
_PREFIXES = ("torchvision/", "timm/", "hf://", "mlflow://")


class SourceError(PncError):
    """A network cannot be imported from its source."""

    code = "source_error"


@dataclass(frozen=True)
class Source:
    """A place that a network is imported from."""

    kind: Kind
    text: str
    """The text without user, password, query and fragment, which may hold secrets."""
    name: str
    """Name of the network at the source; the whole URL, or the path of a file."""
    revision: str | None = None
    """torchvision: name of the weights; hf: branch, tag or commit; mlflow: number of the version; else none."""

    @property
    def host(self) -> str:
        """Host of a URL; empty for other sources."""
        return (urlsplit(self.name).hostname or "") if self.kind == "url" else ""

    @property
    def model_name(self) -> str:
        """A name for the model, from the last part of the source."""
        path = urlsplit(self.name).path if self.kind == "url" else self.name
        last = path.rstrip("/").rpartition("/")[2]
        if self.kind in ("url", "file"):
            last = last.rpartition(".")[0] or last
        return re.sub(r"[^a-z0-9._-]+", "-", last.lower()).strip("-._")[:63]


def parse(text: str, *, files: bool = False) -> Source:
    """The source that a text names.

    Args:
        text: One of `FORMS`.
        files: Whether other texts are paths of files.

    Raises:
        SourceError: the text names no source.
    """
    for kind, pattern in _PATTERNS:
        if found := pattern.match(text):
            return Source(kind, text, found["name"], found.groupdict().get("revision"))
    if text.startswith(("http://", "https://")) and len(text) <= MAX_LENGTH and text.isprintable():
        return Source("url", shown(text), text)
    if files and text and not text.startswith(_PREFIXES) and "://" not in text:
        return Source("file", text.rpartition("/")[2], text)
    also = " or the path of a file" if files else ""
    raise SourceError(f"source: expected {FORMS}{also}, got {text!r:.80}")


def shown(url: str) -> str:
    """A URL without user, password, query and fragment."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def is_allowed(host: str, hosts: tuple[str, ...]) -> bool:
    """Whether a host is on a list of hosts."""
    host = host.lower().rstrip(".")
    return any(host == name or (name.startswith("*.") and host.endswith(name[1:])) for name in hosts)


def check_host(host: str, hosts: tuple[str, ...], where: str = "") -> None:
    """Check that a download comes from an allowed host.

    Args:
        host: Host of the address.
        hosts: Allowed hosts.
        where: Begins the message.

    Raises:
        SourceError: the host is not on the list.
    """
    if not is_allowed(host, hosts):
        raise SourceError(
            f"{where}expected a host among {', '.join(hosts)}, got {host}; the service's operator allows further hosts "
            "with PNC_IMPORT_HOSTS"
        )
