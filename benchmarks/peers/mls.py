"""MLServer's runtime: the same network behind the Open Inference Protocol."""

import os

import numpy as np
import torch
from common import load, preprocess
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Network(MLModel):
    """One network."""

    async def load(self) -> bool:
        """Load it."""
        torch.set_num_threads(int(os.environ["THREADS"]))
        self._network, self._spec = load()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """A batch of images."""
        images = NumpyCodec.decode_input(payload.inputs[0]).astype(np.uint8)
        with torch.inference_mode():
            logits = self._network(preprocess(torch.from_numpy(images), self._spec))
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("logits", logits.numpy())])
