import sys

import torch

from pnc_core.vision import torchvision_models


def test_torchvision_imports_beside_any_build_of_torch() -> None:
    models = torchvision_models()
    assert models is torchvision_models() is sys.modules["torchvision.models"]
    assert "resnet18" in models.list_models(module=models)
    assert isinstance(models.get_model("squeezenet1_1", weights=None), torch.nn.Module)
