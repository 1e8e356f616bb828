"""Train two small networks on handwritten digits and register them with a running `pnc up`.

    python examples/register_digits.py [SEED]

Writes the two weight files, the images as Parquet and one image of a seven to the
working directory: the seven for which the source is most confident.
"""

import os
import sys
from pathlib import Path

import httpx
from rich.console import Console

from app.demo import DIGITS, HIGH, png, prepare, register
from pnc_client import Client
from pnc_core.analysis.evaluation import predict

console = Console()
url = os.environ.get("PNC_URL", "http://127.0.0.1:8000")
try:
    httpx.get(f"{url}/readyz").raise_for_status()
except httpx.HTTPError as error:
    sys.exit(f"expected the service at {url}, got: {error}; start the service with `pnc up`, or set PNC_URL")
material = prepare(int(sys.argv[1]) if len(sys.argv) > 1 else 0, console)
with Client(url) as client:
    register(client, material, Path(), console)
sevens = material.test.only([DIGITS[7]]).images
confidence = predict(*material.source, sevens).log_softmax(1)[:, HIGH.index("7")]
Path("seven.png").write_bytes(png(sevens[int(confidence.argmax())]))
