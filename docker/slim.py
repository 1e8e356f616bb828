"""Remove parts of an environment that no process of the service uses.

slim.py packages ENVIRONMENT       tests, headers, static libraries, tools and unused parts of installed packages
slim.py pip ENVIRONMENT            pip, after the last installation, and setuptools unless torch needs it
"""

import hashlib
import shutil
import sys
from pathlib import Path

TESTS = ("test", "tests")
HEADERS = "include"
"""Name of a folder of headers, directly in a package or one level deeper."""
SUFFIXES = (".a", ".h", ".hpp", ".lib", ".pxd", ".pyi", ".pyx")
TORCH_TOOLS = "torch_shm_manager"
"""The only program in torch/bin that torch itself starts."""
UNUSED = (
    # Arrow Flight and Arrow's own file system for S3: the service reads Parquet from files.
    *("pyarrow/*flight*", "pyarrow/libarrow_s3.so*", "pyarrow/_s3fs.*", "pyarrow/_pyarrow_cpp_tests.*"),
)
"""Parts of packages that are loaded only on request."""
AMAZON = ("s3", "sso", "sso-oidc", "sts")
"""Amazon's services whose descriptions botocore needs: for objects, and to find keys."""


def main(part: str, environment: Path) -> None:
    """Remove files and print the size before and after.

    Args:
        part: `packages` or `pip`.
        environment: A virtual environment.
    """
    site = next((environment / "lib").glob("python3.*")) / "site-packages"
    before = size(environment)
    if part == "pip":
        names = (
            ("pip",)
            if (site / "torch").exists()
            else ("pip", "setuptools", "pkg_resources", "_distutils_hack", "distutils-precedence.pth")
        )
        for name in names:
            for path in (*site.glob(name), *site.glob(f"{name}-*.dist-info"), *environment.glob(f"bin/{name}*")):
                remove(path)
    else:
        for package in site.iterdir():
            if package.is_dir() and not package.name.endswith(".dist-info"):
                slim(package)
        for tool in (site / "torch/bin").glob("*"):
            if tool.name != TORCH_TOOLS:
                remove(tool)
        for pattern in UNUSED:
            for path in site.glob(pattern):
                remove(path)
        for service in (site / "botocore/data").glob("*/"):
            if service.name not in AMAZON:
                remove(service)
        link_twins(site)
    print(f"{environment}: {before / 1e6:.0f} MB before, {size(environment) / 1e6:.0f} MB after")  # noqa: T201


def slim(package: Path) -> None:
    """Remove tests, headers and static libraries of one package."""
    for path in sorted(package.rglob("*")):
        if path.is_dir() and not path.is_symlink():
            is_headers = path.name == HEADERS and len(path.relative_to(package).parts) <= 2
            if path.name in TESTS or is_headers:
                remove(path)
        elif path.suffix in SUFFIXES:
            remove(path)


def link_twins(site: Path) -> None:
    """Replace copies of one library in one folder, which were links before they were packed into a wheel, by links."""
    seen: dict[tuple[Path, str], Path] = {}
    for path in sorted(site.rglob("*.so*")):
        if not path.is_symlink():
            key = path.parent, hashlib.sha256(path.read_bytes()).hexdigest()
            first = seen.setdefault(key, path)
            if first != path:
                path.unlink()
                path.symlink_to(first.name)


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is still there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def size(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
