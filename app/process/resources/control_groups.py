"""Control groups of this process, which limit its processors and its memory."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath


@dataclass(frozen=True)
class Group:
    """One control group."""

    folder: Path
    is_v2: bool


@dataclass(frozen=True)
class _Mount:
    """A mounted hierarchy of control groups."""

    root: str
    """The group at the mount point."""
    point: str
    is_v2: bool


def groups_of(controller: str, root: Path = Path("/")) -> Iterator[Group]:
    """This process's groups that may limit a resource, and the groups above them.

    Args:
        controller: Name of the resource's controller in version 1, such as `cpu` or `memory`.
        root: Root of the file system.
    """
    own = _own(root, controller)
    for mount in _mounts(root, controller):
        group = own.get(mount.is_v2)
        if group is None:
            continue
        top = root / mount.point.lstrip("/")
        inside = PurePosixPath(group)
        inside = inside.relative_to(mount.root) if inside.is_relative_to(mount.root) else PurePosixPath()
        for part in (inside, *inside.parents):
            yield Group(top / part, mount.is_v2)


def _own(root: Path, controller: str) -> dict[bool, str]:
    """This process's group in each hierarchy that has the controller, by whether the hierarchy has version 2."""
    groups = {}
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        if not controllers or controller in controllers.split(","):
            groups[not controllers] = path
    return groups


def _mounts(root: Path, controller: str) -> Iterator[_Mount]:
    for line in _lines(root / "proc/self/mountinfo"):
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        if kind == "cgroup2" or (kind == "cgroup" and controller in options.split(",")):
            seen, point = before.split(" ")[3:5]
            yield _Mount(seen, point, kind == "cgroup2")


def _lines(path: Path) -> list[str]:
    """Lines of a file; none if it does not exist, as on systems without control groups."""
    with suppress(OSError):
        return path.read_text(errors="replace").splitlines()
    return []
