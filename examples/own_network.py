"""Train two torchvision networks for a short time; write weights, specs and images, without a server."""

import json
from dataclasses import asdict
from pathlib import Path

import safetensors.torch
import torch
from torch.nn import functional as F

from app.demo import DIGITS, handwritten, png_rows
from pnc_client.parquet import write_parquet
from pnc_core import ImageSet, NetworkSpec, build_network, preprocess

torch.manual_seed(0)
torch.set_num_threads(1)
digits = handwritten()
# torchvision's networks need three channels and larger images: the 8 x 8 scans become grey images of 32 x 32.
colour = F.interpolate(digits.images.float(), 32, mode="bilinear").clamp(0, 255).to(torch.uint8).expand(-1, 3, -1, -1)
images = ImageSet(colour.contiguous(), digits.labels, DIGITS)

for name, classes in {"shuffle-low": DIGITS[:5], "shuffle-high": DIGITS[5:]}.items():
    spec = NetworkSpec(
        architecture="torchvision/shufflenet_v2_x0_5",
        classes=classes,
        input_size=(3, 32, 32),
        mean=(0.3, 0.3, 0.3),
        std=(0.37, 0.37, 0.37),
    )
    own, network = images.only(classes), build_network(spec).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    for _ in range(10):
        for rows in torch.randperm(len(own)).split(64):
            loss = F.cross_entropy(network(preprocess(own.images[rows], spec)), own.labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    print(f"{name}: loss {loss.item():.2f}")
    safetensors.torch.save_file(network.state_dict(), f"{name}.safetensors")
    Path(f"{name}.json").write_text(json.dumps(asdict(spec), indent=1))

_, few = images.split(0.2, torch.Generator().manual_seed(0))
write_parquet(Path("shuffle.parquet"), png_rows(few), DIGITS)
