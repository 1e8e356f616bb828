"""MLServer: the network behind the Open Inference Protocol."""

import os

import numpy as np
import torch
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse
from served_network import load, preprocess


class Network(MLModel):
    """MLServer's runtime for the network."""

    async def load(self) -> bool:
        """Load the network."""
        torch.set_num_threads(int(os.environ["THREADS"]))
        self._network, self._spec = load()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Logits of a batch of images."""
        images = NumpyCodec.decode_input(payload.inputs[0]).astype(np.uint8)
        with torch.inference_mode():
            logits = self._network(preprocess(torch.from_numpy(images), self._spec))
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("logits", logits.numpy())])
