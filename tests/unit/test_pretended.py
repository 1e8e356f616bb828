"""The pretended GPU refuses what CUDA refuses, allows what it allows, and works numbers out."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.nn import functional as F

from tests.unit import pretended

Case = Callable[[Tensor, Tensor], Tensor]
"""(float32 (3, 3) on the processor, the same on the GPU) -> answer."""


def _written(x: Tensor, y: Tensor) -> Tensor:
    x[0] = y
    return x


REFUSED: dict[str, Case] = {
    "a sum": lambda cpu, gpu: cpu + gpu,
    "a product of matrices": lambda cpu, gpu: gpu @ cpu,
    "a layer": lambda cpu, gpu: F.linear(gpu, cpu),
    "a convolution": lambda cpu, gpu: torch.conv2d(gpu[None, None], cpu[None, None]),
    "joined": lambda cpu, gpu: torch.cat([cpu, gpu]),
    "stacked": lambda cpu, gpu: torch.stack([cpu, gpu]),
    "chosen": lambda cpu, gpu: torch.where(gpu > 0, gpu, cpu),
    "a mask": lambda cpu, gpu: gpu.masked_fill(cpu > 0, 0.0),
    "added in place": lambda cpu, gpu: gpu.clone().add_(cpu),
    "an index of another device": lambda cpu, gpu: cpu[gpu.long()],
    "index_select": lambda cpu, gpu: gpu.index_select(0, cpu[0].long()),
    "gather": lambda cpu, gpu: gpu.gather(0, cpu.long()),
    "index_add": lambda cpu, gpu: gpu.index_add(0, torch.arange(3), gpu),
    "cross-entropy": lambda cpu, gpu: F.cross_entropy(gpu, cpu[0].long()),
    "a number on the GPU for a matrix on the processor": lambda cpu, gpu: cpu * gpu.sum(),
}
ALLOWED: dict[str, Case] = {
    "alone": lambda cpu, gpu: gpu @ gpu,
    "a number of the processor": lambda cpu, gpu: gpu * cpu.sum(),
    "a number of Python": lambda cpu, gpu: gpu * 2.0,
    "an index of the processor": lambda cpu, gpu: gpu[torch.tensor([0, 2])],
    "a list as index": lambda cpu, gpu: gpu[:, [2, 0]],
    "copied to": lambda cpu, gpu: gpu.clone().copy_(cpu),
    "copied from": lambda cpu, gpu: cpu.clone().copy_(gpu),
    "moved to": lambda cpu, gpu: cpu.to("cuda") + gpu,
    "moved like another": lambda cpu, gpu: cpu.to(gpu) + gpu,
    "moved back": lambda cpu, gpu: gpu.cpu() + cpu,
    "of another type": lambda cpu, gpu: gpu.double() + gpu,
    "made like another": lambda cpu, gpu: (
        torch.zeros_like(gpu) + gpu.new_ones(3, 3) + torch.ones(3, 3, device=gpu.device)
    ),
    "written to": lambda cpu, gpu: _written(gpu.clone(), 1.0),
    "a view": lambda cpu, gpu: gpu.reshape(-1)[2:5].flip(0),
    "a norm": lambda cpu, gpu: F.layer_norm(gpu, (3,), gpu[0], gpu[1]),
    "pooled": lambda cpu, gpu: F.adaptive_avg_pool2d(gpu[None], 1),
}


def _device_of(case: Case, mode: object) -> str:
    """Where the answer is, or that there is none."""
    with mode, torch.no_grad():
        cpu = torch.arange(9.0).reshape(3, 3)
        gpu = torch.zeros(3, 3, device="cuda")
        try:
            return case(cpu, gpu).device.type
        except (RuntimeError, TypeError):
            return "refused"


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_a_mix_up_is_refused(case: Case) -> None:
    assert _device_of(case, pretended.cuda()) == "refused"


@pytest.mark.parametrize("case", ALLOWED.values(), ids=ALLOWED)
def test_what_is_in_its_place_is_worked_out_there(case: Case) -> None:
    numbers = torch.arange(9.0).reshape(3, 3)
    answer = _device_of(case, pretended.cuda())
    assert answer in ("cuda", "cpu")
    with pretended.cuda():
        got = case(numbers.clone(), numbers.to("cuda")).cpu()
    assert torch.equal(got, _on_processor(case, numbers))


def _on_processor(case: Case, numbers: Tensor) -> Tensor:
    with pytest.MonkeyPatch.context() as patch:
        to = Tensor.to
        patch.setattr(Tensor, "to", lambda x, *args, **_: x if args == ("cuda",) else to(x, *args))
        return case(numbers.clone(), numbers.clone())


FAKED = {name: case for name, case in REFUSED.items() if name != "an index of another device"} | {
    name: ALLOWED[name]
    for name in (
        "alone",
        "a number of the processor",
        "a number of Python",
        "copied from",
        "moved back",
        "of another type",
    )
}
"""What fake tensors judge on a torch without CUDA. They overlook an index on the GPU, which CUDA refuses."""


@pytest.mark.parametrize("case", FAKED.values(), ids=FAKED)
def test_fake_tensors_of_torch_have_the_same_rules(case: Case) -> None:
    assert _device_of(case, pretended.cuda()) == _device_of(case, FakeTensorMode(allow_non_fake_inputs=True))


def test_numpy_and_a_generator_of_the_processor_are_refused() -> None:
    with pretended.cuda():
        with pytest.raises(TypeError, match="can't convert cuda"):
            torch.zeros(3, device="cuda").numpy()
        with pytest.raises(RuntimeError, match="Expected a 'cuda' device type for generator"):
            torch.randperm(3, generator=torch.Generator(), device="cuda")


def test_a_network_moves_learns_and_is_copied_as_on_the_processor() -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
    x, labels = torch.randn(5, 3, 8, 8), torch.tensor([0, 1, 1, 0, 1])
    with pretended.cuda():
        moved = copy.deepcopy(copy.deepcopy(plain).to("cuda"))
        assert {type(p) for p in moved.parameters()} == {pretended.OnCuda}
        for network, device in ((plain, "cpu"), (moved, "cuda")):
            optimizer = torch.optim.AdamW(network.parameters(), 0.1)
            for _ in range(3):
                loss = F.cross_entropy(network(x.to(device)), labels.to(device)).clamp_min(0)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        back = moved.cpu().state_dict()
    for name, tensor in plain.state_dict().items():
        assert torch.allclose(back[name], tensor, atol=1e-5), name


def test_autocast_lowers_layers_and_leaves_norms() -> None:
    with pretended.cuda(), torch.autocast("cuda", torch.bfloat16):
        x = torch.ones(2, 3, device="cuda")
        assert F.linear(x, x).dtype == torch.bfloat16
        assert F.layer_norm(F.linear(x, x), (2,)).dtype == torch.float32
        with torch.autocast("cuda", enabled=False):
            assert F.linear(x, x).dtype == torch.float32
