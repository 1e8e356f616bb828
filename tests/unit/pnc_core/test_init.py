import subprocess
import sys

import pytest

import pnc_core


def _python(code: str) -> None:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_exported_names() -> None:
    assert sorted(pnc_core.__all__) == [
        "Bundle", "CloneConfig", "Composed", "Composition", "ImageSet", "NetworkSpec", "Online", "Position",
        "Preprocessing", "Views", "architectures", "attach", "build_network", "clone", "compose", "detach", "evaluate",
        "extend", "fingerprint", "load_network", "load_weights", "masking_curve", "position_curve", "preprocess",
        "read_bundle", "read_composition", "rebalance", "to_onnx", "to_program", "to_pt2", "verify_bundle", "views_of",
    ]  # fmt: skip


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nothing_like_it"):
        pnc_core.nothing_like_it  # noqa: B018


def test_importing_the_package_and_its_definitions_leaves_torch_unloaded() -> None:
    _python(
        "import sys, pnc_core, pnc_core.errors, pnc_core.config, pnc_core.module.manifest, pnc_core.tensorfile\n"
        "from pnc_core import CloneConfig, NetworkSpec, Position\n"
        "assert not {'torch', 'numpy', 'safetensors'} & set(sys.modules)"
    )


def test_every_exported_name_is_the_function_or_class_whatever_was_imported_before() -> None:
    _python(
        "import importlib, types, pnc_core\n"
        "for module in set(pnc_core._HOME.values()): importlib.import_module('pnc_core.' + module)\n"
        "modules = [n for n in pnc_core.__all__ if isinstance(getattr(pnc_core, n), types.ModuleType)]\n"
        "assert not modules, modules"
    )


def test_clone_can_be_imported_after_its_module() -> None:
    _python("import pnc_core.method.clone\nfrom pnc_core import clone\nassert callable(clone)")
