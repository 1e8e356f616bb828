"""A separate network for a worker, with a link that can be cut."""

import asyncio
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress

from tests.services import Unavailable

_BYTES = 64 * 1024


class Link:
    """A network namespace with one link to this machine, and forwarders to the services of this machine.

    Args:
        name: Name of the namespace, at most ten letters.
        number: Third number of its network, 10.99.NUMBER.0.
        ports: Loopback ports of the forwarded services.
    """

    def __init__(self, name: str, number: int, ports: Sequence[int]) -> None:
        self.name, self._cable = name, f"{name}-h"
        self.host = f"10.99.{number}.1"
        _ip("netns", "add", name)
        _ip("link", "add", self._cable, "type", "veth", "peer", "name", "eth0", "netns", name)
        _ip("addr", "add", f"{self.host}/30", "dev", self._cable)
        _ip("-n", name, "addr", "add", f"10.99.{number}.2/30", "dev", "eth0")
        for arguments in (("-n", name, "link", "set", "lo", "up"), ("-n", name, "link", "set", "eth0", "up")):
            _ip(*arguments)
        self.mend()
        command = [sys.executable, "-m", "tests.chaos.link", self.host, *map(str, ports)]
        self._forwarder = subprocess.Popen(command)

    @property
    def prefix(self) -> list[str]:
        """Prefix of a command that runs in the namespace."""
        return ["ip", "netns", "exec", self.name]

    def cut(self) -> None:
        """Cut the link: packets are lost, and connections see no error."""
        _ip("link", "set", self._cable, "down")

    def mend(self) -> None:
        """Restore the link."""
        _ip("link", "set", self._cable, "up")

    def close(self) -> None:
        """Remove forwarders, link and namespace."""
        self._forwarder.terminate()
        self._forwarder.wait()
        _ip("netns", "del", self.name)


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Unavailable(f"expected `ip {' '.join(arguments)}` to work (as root), got: {done.stderr.strip()}")


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(_BYTES):
            writer.write(data)
            await writer.drain()
    writer.close()


async def _forward(host: str, ports: Sequence[int]) -> None:
    async def connect(port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            writer.close()
            return
        await asyncio.gather(_pass_on(reader, back), _pass_on(there, writer))

    def serve(port: int) -> "asyncio.Future[asyncio.Server]":
        return asyncio.ensure_future(asyncio.start_server(lambda r, w: connect(port, r, w), host, port))

    servers = await asyncio.gather(*(serve(port) for port in ports))
    await asyncio.gather(*(server.serve_forever() for server in servers))


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(_forward(sys.argv[1], [int(port) for port in sys.argv[2:]]))
