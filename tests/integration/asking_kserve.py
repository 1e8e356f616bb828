"""Runs in the environment with KServe: requests a prediction in both formats, and prints the responses as JSON."""

import asyncio
import json
import sys

import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest
from kserve.inference_client import RESTConfig
from kserve.protocol.infer_type import RequestedOutput


async def main(url: str, model: str, pixels: list) -> None:
    images = np.array(pixels, np.uint8)
    client = InferenceRESTClient(RESTConfig(protocol="v2"))
    found: dict = {"live": await client.is_server_live(url), "ready": await client.is_server_ready(url)}
    found["model_ready"] = await client.is_model_ready(url, model)
    for sent in (True, False):
        for asked in (True, False):
            tensor = InferInput("images", list(images.shape), "UINT8")
            tensor.set_data_from_numpy(images, binary_data=sent)
            output = RequestedOutput("logits", {"binary_data": asked})
            request = InferRequest(model, [tensor], request_id="mine-7", request_outputs=[output])
            answer = await client.infer(url, request, model_name=model)
            logits = next(one for one in answer.outputs if one.name == "logits")
            found[f"{sent} {asked}"] = [answer.id, answer.model_name, logits.as_numpy().tolist()]
    await client.close()
    print(json.dumps(found))


asyncio.run(main(sys.argv[1], sys.argv[2], json.loads(sys.argv[3])))
