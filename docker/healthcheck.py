"""Exit with 0 if the process in this container answers /readyz with 200, else with 1.

healthcheck.py [PATH]      another path than /readyz
"""

import http.client
import sys

PORT = 8000
SECONDS = 25


def healthy(path: str, port: int) -> bool:
    """Whether the process answers with 200. Ignores the environment's proxies."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(0 if healthy(sys.argv[1] if len(sys.argv) > 1 else "/readyz", PORT) else 1)
