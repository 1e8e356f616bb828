"""Names that repositories give the tensors of their networks, as changes of this library's names."""

Rules = tuple[tuple[str, str], ...]
"""Regular expressions and replacements, applied one after another to a name of this library."""

TORCHVISION: Rules = ((r"\bshortcut\b", "downsample"), (r"^linear\b", "fc"))
REPVGG_NAMES: Rules = ((r"\bidentity\b", "rbr_identity"), (r"\bdense\b", "rbr_dense"), (r"\bpoint\b", "rbr_1x1"))
FUSED: Rules = ((r"\bconv\b", "rbr_reparam"),)
STAGED: Rules = tuple((rf"^layer{stage}\b", f"conv{stage + 1}_x") for stage in (1, 2, 3, 4))
FUNCTION: Rules = tuple(
    (rf"\.{layer}{i}\.", f".residual_function.{3 * (i - 1) + place}.")
    for i in (1, 2, 3)
    for place, layer in enumerate(("conv", "bn"))
)
WEIAICUNZAI: Rules = (
    (r"^conv1\.", "conv1.0."), (r"^bn1\.", "conv1.1."), *STAGED, *FUNCTION, (r"^linear\b", "fc"),
)  # fmt: skip
WEIAICUNZAI_PREACT: Rules = (
    *((rf"\.bn{i}\.", f".residual.{3 * i - 3}.") for i in (1, 2, 3)),
    *((rf"\.conv{i}\.", f".residual.{3 * i - 1}.") for i in (1, 2, 3)),
    (r"^conv1\.", "pre.0."), (r"^bn1\.", "pre.1."), (r"^layer", "stage"), (r"\.shortcut\.0\.", ".shortcut."),
)  # fmt: skip
WEIAICUNZAI_WIDE: Rules = (
    (r"\.bn1\.", ".residual.0."), (r"\.conv1\.", ".residual.2."), (r"\.bn2\.", ".residual.3."),
    (r"\.conv2\.", ".residual.6."), (r"^conv1\.", "init_conv."), (r"^bn1\.", "bn."),
    *((rf"^layer{stage}\.", f"conv{stage + 1}.") for stage in (3, 2, 1)),
)  # fmt: skip
WEIAICUNZAI_DENSE: Rules = (
    *((rf"^dense{i}\.", f"features.dense_block_layer_{i - 1}.bottle_neck_layer_") for i in (1, 2, 3)),
    (r"^dense4\.", "features.dense_block3.bottle_neck_layer_"),
    *((rf"(bottle_neck_layer_\d+)\.bn{i}\.", rf"\1.bottle_neck.{3 * i - 3}.") for i in (1, 2)),
    *((rf"(bottle_neck_layer_\d+)\.conv{i}\.", rf"\1.bottle_neck.{3 * i - 1}.") for i in (1, 2)),
    *((rf"^trans{i}\.bn\.", f"features.transition_layer_{i - 1}.down_sample.0.") for i in (1, 2, 3)),
    *((rf"^trans{i}\.conv\.", f"features.transition_layer_{i - 1}.down_sample.1.") for i in (1, 2, 3)),
    (r"^bn\.", "features.bn."),
)  # fmt: skip
TRANSITIONS: Rules = ((r"^(trans\d)\.bn\.", r"\1.bn1."), (r"^(trans\d)\.conv\.", r"\1.conv1."))
ANDREASVEIT: Rules = (
    *TRANSITIONS, (r"^dense(\d)\.", r"block\1.layer."), (r"^bn\.", "bn1."), (r"^linear\b", "fc"),
)  # fmt: skip
XTERNALZ: Rules = (
    (r"^layer(\d)\.", r"block\1.layer."), (r"\.shortcut\.0\.", ".convShortcut."), (r"^linear\b", "fc"),
)  # fmt: skip

BAMOS: Rules = (*TRANSITIONS, (r"^bn\.", "bn1."), (r"^linear\b", "fc"))
