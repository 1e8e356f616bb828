"""The sources of packages of this machine, from the configuration of pip and apt."""

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
SOURCES = (Path("/etc/apt/sources.list"), Path("/etc/apt/sources.list.d"))
_MIRROR = re.compile(r"https?://\S+/debian(?=[\s/]|$)")


class CannotRun(Exception):
    """This machine cannot run the compose files. The message says why."""


@dataclass(frozen=True)
class PipFolders:
    """Folders that pip on this machine reads beside its index."""

    indexes: tuple[Path, ...]
    """Extra indexes: folders in the layout of an index."""
    links: tuple[Path, ...]
    """Folders of wheels."""


def debian_mirror() -> str:
    """Address of the mirror that apt uses.

    Raises:
        CannotRun: apt has no Debian mirror.
    """
    files = [file for place in SOURCES for file in (sorted(place.glob("*")) if place.is_dir() else [place])]
    for file in files:
        for line in file.read_text().splitlines() if file.is_file() else []:
            found = _MIRROR.search(line)
            if found and not line.lstrip().startswith("#"):
                return found[0]
    raise CannotRun(f"expected a Debian mirror in {SOURCES[0]} or {SOURCES[1]}, got none; run it on Debian")


def pip_folders() -> PipFolders:
    """Folders in pip's configuration and environment."""
    told = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True)
    text = told.stdout + "".join(
        f"{name}='{os.environ[name]}'\n" for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL") if name in os.environ
    )
    indexes = {Path(found.rstrip("/")) for found in re.findall(r"file://(/[^' ]+)", text)}
    links = {Path(found) for found in re.findall(r"(?:find-links|FIND_LINKS)='(/[^' \n]+)", text)}
    return PipFolders(tuple(sorted(indexes)), tuple(sorted(links)))


def certificates() -> Path | None:
    """The file of certificates that pip trusts on this machine; None: Python's own."""
    told = subprocess.run(
        [sys.executable, "-m", "pip", "config", "get", "global.cert"], capture_output=True, text=True, check=False
    )
    named = os.environ.get("PIP_CERT") or told.stdout.strip()
    return Path(named) if named and Path(named).is_file() else None
