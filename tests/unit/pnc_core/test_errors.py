import pytest

import pnc_core.errors as errors


def test_every_error_is_a_pnc_error_with_a_code_of_its_own() -> None:
    classes = [value for value in vars(errors).values() if isinstance(value, type)]
    codes = [error.code for error in classes]
    assert all(issubclass(error, errors.PncError) for error in classes)
    assert len(set(codes)) == len(codes)


def test_codes_are_what_clients_already_know() -> None:
    assert {name: value.code for name, value in vars(errors).items() if isinstance(value, type)} == {
        "PncError": "pnc_error",
        "ConfigError": "invalid_config",
        "NetworkError": "invalid_network",
        "UnknownArchitecture": "unknown_architecture",
        "WeightsMismatch": "weights_mismatch",
        "DataError": "invalid_data",
        "PositionError": "invalid_position",
        "TensorFileError": "invalid_safetensors",
        "BundleError": "invalid_bundle",
        "SignatureError": "invalid_signature",
        "MismatchError": "mismatch",
        "SourceMismatch": "source_mismatch",
        "TargetMismatch": "target_mismatch",
        "Cancelled": "cancelled",
    }


def test_a_config_error_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="no"):
        raise errors.ConfigError("no")
