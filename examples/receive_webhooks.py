"""Receive webhooks with the standard library and `standardwebhooks`; prints what it is told. Ctrl-C ends it.

    python examples/receive_webhooks.py whsec_... [PORT]

For a try on one machine start the service with PNC_WEBHOOK_PRIVATE=true, and make the webhook with
`pnc webhooks create http://127.0.0.1:PORT/`, which shows the secret.
"""

import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

from standardwebhooks import Webhook, WebhookVerificationError


class Receiver(BaseHTTPRequestHandler):
    """Checks the signature first, and answers at once."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        try:
            told = Webhook(sys.argv[1]).verify(body, dict(self.headers))
        except WebhookVerificationError as error:
            self.send_error(401, str(error))
            return
        print(f"{told['timestamp']} {told['type']}: {told['data']}", flush=True)
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """What came is printed already."""


if __name__ == "__main__":
    HTTPServer(("127.0.0.1", int(sys.argv[2]) if len(sys.argv) > 2 else 8700), Receiver).serve_forever()
