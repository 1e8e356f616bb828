"""Receive webhooks with the standard library and `standardwebhooks`, and print their events, until Ctrl-C.

    python examples/receive_webhooks.py whsec_... [PORT]

To try it on one machine, start the service with PNC_WEBHOOK_PRIVATE=true, and create the webhook with
`pnc webhooks create http://127.0.0.1:PORT/`, which shows the secret.
"""

import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

from standardwebhooks import Webhook, WebhookVerificationError


class Receiver(BaseHTTPRequestHandler):
    """Checks the signature of a message, prints the event, and responds at once."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        try:
            message = Webhook(sys.argv[1]).verify(body, dict(self.headers))
        except WebhookVerificationError as error:
            self.send_error(401, str(error))
            return
        print(f"{message['timestamp']} {message['type']}: {message['data']}", flush=True)
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Print no log line, because `do_POST` prints the event."""


if __name__ == "__main__":
    HTTPServer(("127.0.0.1", int(sys.argv[2]) if len(sys.argv) > 2 else 8700), Receiver).serve_forever()
