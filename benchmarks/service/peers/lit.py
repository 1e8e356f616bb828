"""LitServe: single images, batches, or its fast queue; requests are JSON, or a form with the bytes of the pixels."""

import os

import litserve
import numpy as np
import torch
from fastapi import Request, Response
from served_network import load, preprocess


class Network(litserve.LitAPI):
    """The network behind LitServe's batching."""

    def setup(self, device: str) -> None:
        """Load the network in the worker process."""
        del device
        torch.set_num_threads(int(os.environ["THREADS"]))
        self.network, self.spec = load()

    def predict(self, x: object) -> torch.Tensor:
        """Logits of a batch or of one image."""
        images = torch.from_numpy(np.stack(x) if isinstance(x, list) else np.asarray(x))
        with torch.inference_mode():
            return self.network(preprocess(images.reshape(-1, *self.spec.input_size), self.spec))

    def unbatch(self, output: torch.Tensor) -> list[torch.Tensor]:
        """Split the logits into one row per request."""
        return list(output)


class Json(Network):
    """Requests and responses in JSON."""

    def decode_request(self, request: dict) -> np.ndarray:
        """The pixels of one image: uint8."""
        return np.asarray(request["images"], np.uint8)

    def encode_response(self, output: torch.Tensor) -> dict:
        """The logits as JSON."""
        return {"logits": output.reshape(-1).tolist()}


class Binary(Network):
    """Pixels as a file in a form, because LitServe reads only JSON and forms; logits as raw bytes."""

    def decode_request(self, request: Request) -> np.ndarray:
        """The pixels of one image: uint8."""
        return np.frombuffer(request["image"].file.read(), np.uint8)

    def encode_response(self, output: torch.Tensor) -> Response:
        """The logits as float32 bytes."""
        return Response(output.numpy().tobytes())


if __name__ == "__main__":
    size = int(os.environ["BATCH"])
    batching = {"max_batch_size": size, "batch_timeout": 0.002} if size > 1 else {}
    kind = Json if os.environ["PAYLOAD"] == "json" else Binary
    server = litserve.LitServer(kind(**batching), accelerator="cpu", fast_queue=os.environ["FAST"] == "1")
    server.run(
        host="127.0.0.1", port=int(os.environ["PORT"]), generate_client_file=False, log_level="error", access_log=False
    )
