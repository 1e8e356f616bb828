import pytest

from pnc_core.networks.names import own_names, uncounted


@pytest.mark.parametrize(
    ("names", "own"),
    [
        (["module.a.weight", "module.b.weight"], ["a.weight", "b.weight"]),
        (["_orig_mod.module.model.a"], ["a"]),
        (["backbone.a", "backbone.b", "backbone.c", "fc.weight"], ["a", "b", "c", "fc.weight"]),
        (["net.a", "net.b", "b"], ["net.a", "net.b", "b"]),  # two would be equal
        (["model.a", "b", "c"], ["model.a", "b", "c"]),  # a part of the network, not a wrapper
        (["a.weight", "criterion.weight", "val_acc.correct", "n_averaged"], ["a.weight"]),
        (["loss.weight"], ["loss.weight"]),
        ([], []),
    ],
)
def test_wrappers_go_and_a_network_s_own_parts_stay(names: list[str], own: list[str]) -> None:
    assert list(own_names(names).values()) == own


def test_batch_norms_without_a_counter_are_found() -> None:
    names = [
        "a.running_mean",
        "a.running_var",
        "b.running_mean",
        "b.running_var",
        "b.num_batches_tracked",
        "c.running_var",
    ]
    assert uncounted(names) == ["a"]
