"""Write the bytecode of every module that our own modules import, and of no other.

All bytecode of the dependencies takes 160 MB, and most of it belongs to modules that no process loads. Without the
bytecode of the others each start would compile torch again, because the image is read-only at run time.

compile.py                 run by the environment's Python
"""

import importlib
import os
import pkgutil
import sys

OURS = ("pnc_core", "pnc_client", "app", "workers", "migrations")
LATER = (
    # Loaded by name when a process starts.
    *("celery.apps.worker", "celery.bin.worker", "celery.concurrency.thread", "celery.worker.components"),
    *("celery.worker.consumer", "celery.worker.strategy", "kombu.transport.redis", "celery.loaders.app"),
    *("uvicorn.loops.uvloop", "uvicorn.protocols.http.httptools_impl", "uvicorn.protocols.websockets.auto"),
    *("uvicorn.lifespan.on", "sqlalchemy.dialects.postgresql.psycopg", "sqlalchemy.dialects.sqlite", "nicegui"),
    *("boto3.s3.transfer", "botocore.handlers", "alembic.command", "rich.console", "multiprocessing.forkserver"),
)
PLACES = {"migrations.env"}
"""Loaded by Alembic alone."""


def main() -> None:
    """Import all modules that this environment can import."""
    os.environ.setdefault("PNC_BROKER_URL", "redis://127.0.0.1/0")  # `workers.main` ends without it
    skipped = []
    for name in (*(module for package in OURS for module in modules_of(package)), *LATER):
        try:
            importlib.import_module(name)
        except ImportError as error:  # the image without torch lacks what only other roles load
            skipped.append(f"{name} ({error})")
    print(f"imported {len(sys.modules)} modules; left out: {', '.join(skipped) or 'none'}")  # noqa: T201


def modules_of(package: str) -> list[str]:
    """Names of a package's modules that can be imported."""
    found = importlib.import_module(package)
    names = [module.name for module in pkgutil.walk_packages(found.__path__, f"{package}.", onerror=lambda _: None)]
    return [package, *(name for name in names if not name.endswith("__main__") and name not in PLACES)]


if __name__ == "__main__":
    main()
