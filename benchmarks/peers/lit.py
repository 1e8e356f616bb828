"""LitServe: without batching, with batches, and with its fast queue; JSON or the bytes of the pixels in a form."""

import os

import litserve
import numpy as np
import torch
from common import load, preprocess
from fastapi import Request, Response


class Network(litserve.LitAPI):
    """One network behind LitServe's own batching."""

    def setup(self, device: str) -> None:
        """Load it in the worker process."""
        del device
        torch.set_num_threads(int(os.environ["THREADS"]))
        self.network, self.spec = load()

    def predict(self, x: object) -> torch.Tensor:
        """A batch, or one image."""
        images = torch.from_numpy(np.stack(x) if isinstance(x, list) else np.asarray(x))
        with torch.inference_mode():
            return self.network(preprocess(images.reshape(-1, *self.spec.input_size), self.spec))

    def unbatch(self, output: torch.Tensor) -> list[torch.Tensor]:
        """One row for each request."""
        return list(output)


class Json(Network):
    """Numbers as text."""

    def decode_request(self, request: dict) -> np.ndarray:
        """Pixels of one image."""
        return np.asarray(request["images"], np.uint8)

    def encode_response(self, output: torch.Tensor) -> dict:
        """Logits."""
        return {"logits": output.reshape(-1).tolist()}


class Binary(Network):
    """Bytes, as a file of a form: LitServe reads JSON or forms."""

    def decode_request(self, request: Request) -> np.ndarray:
        """Pixels of one image."""
        return np.frombuffer(request["image"].file.read(), np.uint8)

    def encode_response(self, output: torch.Tensor) -> Response:
        """Logits, float32."""
        return Response(output.numpy().tobytes())


if __name__ == "__main__":
    size = int(os.environ["BATCH"])
    batching = {"max_batch_size": size, "batch_timeout": 0.002} if size > 1 else {}
    kind = Json if os.environ["PAYLOAD"] == "json" else Binary
    server = litserve.LitServer(kind(**batching), accelerator="cpu", fast_queue=os.environ["FAST"] == "1")
    server.run(
        host="127.0.0.1", port=int(os.environ["PORT"]), generate_client_file=False, log_level="error", access_log=False
    )
