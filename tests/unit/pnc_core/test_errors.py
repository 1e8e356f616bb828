import pytest
import torch

import pnc_core.errors as errors
from pnc_core.graph import architectures
from pnc_core.graph.positions import trace
from tests.unit.pnc_core import nets


def test_every_error_is_a_pnc_error_with_a_code_of_its_own() -> None:
    classes = [value for value in vars(errors).values() if isinstance(value, type)]
    codes = [error.code for error in classes]
    assert all(issubclass(error, errors.PncError) for error in classes)
    assert len(set(codes)) == len(codes)


def test_codes_are_what_clients_already_know() -> None:
    assert {name: value.code for name, value in vars(errors).items() if isinstance(value, type)} == {
        "PncError": "pnc_error",
        "ConfigError": "invalid_config",
        "UnknownClass": "unknown_class",
        "AmbiguousClass": "ambiguous_class",
        "NetworkError": "invalid_network",
        "UnknownArchitecture": "unknown_architecture",
        "WeightsMismatch": "weights_mismatch",
        "DataError": "invalid_data",
        "PositionError": "invalid_position",
        "TensorFileError": "invalid_safetensors",
        "BundleError": "invalid_bundle",
        "CompositionError": "invalid_composition",
        "SignatureError": "invalid_signature",
        "MismatchError": "mismatch",
        "SourceMismatch": "source_mismatch",
        "TargetMismatch": "target_mismatch",
        "NearChance": "near_chance",
        "WorseThanNone": "worse_than_none",
        "Cancelled": "cancelled",
    }


def test_a_config_error_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="no"):
        raise errors.ConfigError("no")


@pytest.mark.parametrize(
    ("error", "is_memory"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), True),
        (OSError(12, "Cannot allocate memory"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (OSError(28, "No space left on device"), False),
    ],
)
def test_memory_that_runs_out_is_told_from_other_errors(error: Exception, is_memory: bool) -> None:
    assert errors.is_out_of_memory(error) is is_memory


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("can't allocate memory")])
def test_a_network_that_does_not_fit_into_memory_now_is_not_called_wrong(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_self: object, _x: object = None, **_: object) -> None:
        raise error

    network, spec = nets.network("cnn", 8, 1, "01")
    monkeypatch.setattr(type(network), "forward", fails)
    with pytest.raises(type(error)):
        trace(network, spec)
    monkeypatch.setattr(architectures, "architectures", lambda: {"cnn": fails})
    with pytest.raises(type(error)):
        architectures.build_network(spec)
