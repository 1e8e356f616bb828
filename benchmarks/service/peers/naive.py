"""A first, simple server in FastAPI: one image per call, the network runs in the thread pool."""

import os
from typing import Annotated

import torch
import uvicorn
from fastapi import Body, FastAPI
from served_network import load, preprocess

torch.set_num_threads(int(os.environ["THREADS"]))
network, spec = load()
app = FastAPI()


@app.post("/predict")
def predict(images: Annotated[list, Body(embed=True)]) -> dict[str, list]:
    """Logits of pixels in JSON."""
    with torch.inference_mode():
        return {"logits": network(preprocess(torch.tensor(images, dtype=torch.uint8), spec)).tolist()}


@app.get("/health")
def health() -> dict[str, str]:
    """Report that the server is ready."""
    return {}


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ["PORT"]), log_level="error", access_log=False)
