"""Call a function in a child process with limits of processor time, waiting time and memory."""

import resource
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any


@dataclass(frozen=True)
class Limits:
    """Limits of one child process."""

    seconds: int = 300
    """Processor time. The waiting time may be four times as long, because other processes may run beside."""
    gigabytes: float = 8.0
    """Memory that the process may allocate."""


class LimitExceeded(Exception):
    """The child process ended without a result."""


def call_limited(function: Callable[..., Any], *arguments: Any, limits: Limits) -> Any:
    """Call `function(*arguments)` in a child process.

    Args:
        function: A function at the top of a module.
        arguments: Values that pickle can send.
        limits: The limits of the child.

    Raises:
        LimitExceeded: the child ran too long, or died, as a process without memory does.
    """
    context = get_context("fork")  # the child need not import torch and timm again
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_child, args=(sender, limits, function, *arguments), daemon=True)
    child.start()
    sender.close()
    try:
        if not receiver.poll(4 * limits.seconds):
            raise LimitExceeded(f"more than {4 * limits.seconds} s")
        return receiver.recv()
    except EOFError:
        child.join()
        raise LimitExceeded(_death(child.exitcode, limits)) from None
    finally:
        child.kill()
        child.join()
        receiver.close()


def _child(sender: Connection, limits: Limits, function: Callable[..., Any], *arguments: Any) -> None:
    memory = int(limits.gigabytes * 2**30)
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (limits.seconds, limits.seconds + 5))
    sender.send(function(*arguments))


def _death(code: int | None, limits: Limits) -> str:
    signal_of_time = -24  # SIGXCPU
    return f"more than {limits.seconds} s of one core" if code == signal_of_time else f"the process died with {code}"
