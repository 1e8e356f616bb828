"""Check the architecture of a spec by its name, before anybody sends weights."""

import json
import logging
import subprocess
import threading
from importlib.util import find_spec

from app.errors import Problem
from app.process.children import python
from pnc_core.config import NetworkSpec
from pnc_core.spelling import did_you_mean

SECONDS = 120
"""Time limit of the child process that lists the names; importing torch takes a few seconds."""
log = logging.getLogger(__name__)
_names: list[str] = []
_lock = threading.Lock()


def problems(spec: NetworkSpec) -> list[Problem]:
    """The problem of a spec whose architecture has an unknown name; empty if the names are not known here."""
    names = known()
    if not names or spec.architecture in names:
        return []
    detail = f"expected the name of an architecture, got {spec.architecture!r:.80}"
    return [Problem("/spec/architecture", "unknown_architecture", detail + did_you_mean(spec.architecture, names))]


def known() -> list[str]:
    """Names of all architectures; empty if this installation cannot list them, for example without torch.

    The first call takes seconds: a child process imports torch, so that this process need not.
    """
    with _lock:
        if not _names:
            _names.extend(_listed())
    return _names


def _listed() -> list[str]:
    if find_spec("torch") is None:  # every request would start a child that fails
        return []
    try:
        done = subprocess.run(  # noqa: S603 - our own module, no shell
            python("workers.networks.architecture_names"), capture_output=True, timeout=SECONDS, check=True
        )
        return list(json.loads(done.stdout))
    except (subprocess.SubprocessError, OSError, ValueError) as error:
        log.warning("the names of architectures cannot be listed: %s", error)
        return []
