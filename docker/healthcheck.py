"""Exit with 0 if the service in this container answers /readyz with 200, else with 1."""

import http.client
import sys

PORT = 8000


def ready(port: int) -> bool:
    """Whether the service on this port is ready. Ignores the environment's proxies."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=4)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(0 if ready(PORT) else 1)
