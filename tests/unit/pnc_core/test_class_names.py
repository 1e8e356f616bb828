"""A class is found by its name, by another name and by its number; a refusal names at most three classes."""

import time

import pytest

from pnc_core.class_names import ClassNames, other_names, resolved
from pnc_core.config import CloneConfig, NetworkSpec
from pnc_core.errors import AmbiguousClass, ConfigError, UnknownClass
from pnc_core.spelling import is_class_name, normal_name

LONG = ("tench, Tinca tinca", "goldfish, Carassius auratus", "great white shark, white shark, man-eater", "crane, bird",
        "crane, machine", "n01514668 cock")  # fmt: skip
TABLE = {"n01440764": ["tench, Tinca tinca"], "n01443537": ["goldfish", "Carassius auratus"]}


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("goldfish, Carassius auratus", "goldfish, Carassius auratus"),
        ("goldfish", "goldfish, Carassius auratus"),
        ("Carassius auratus", "goldfish, Carassius auratus"),
        ("man-eater", "great white shark, white shark, man-eater"),
        ("n01514668", "n01514668 cock"),
        ("cock", "n01514668 cock"),
        ("#1", "goldfish, Carassius auratus"),
        ("1", "goldfish, Carassius auratus"),
    ],
)
def test_a_class_is_found_by_each_of_its_names(text: str, name: str) -> None:
    assert ClassNames(LONG).find(text) == name


@pytest.mark.parametrize("text", ["n01443537", "goldfish", "Carassius auratus", "#1", "1"])
def test_a_table_names_the_classes_of_wordnet(text: str) -> None:
    assert ClassNames(tuple(TABLE), TABLE).find(text) == "n01443537"


def test_a_name_of_the_network_goes_before_other_names_and_numbers() -> None:
    names = ClassNames(("crane", "crane, machine", "#0", "x"), {"x": ["crane"]})
    assert names.find("crane") == "crane"
    assert names.find("#0") == "#0"
    assert names.find("#1") == "crane, machine"


def test_a_bare_number_is_no_index_where_classes_are_called_by_numbers() -> None:
    digits = ClassNames(("5", "6", "7", "8", "9"), owner="high@1")
    with pytest.raises(UnknownClass, match="expected a class of high@1, got '0'"):
        digits.find("0")
    assert digits.find("#0") == "5"


def test_a_name_of_several_classes_is_refused_with_their_names() -> None:
    with pytest.raises(AmbiguousClass, match="another name of 'crane, bird' and 'crane, machine'; use one"):
        ClassNames(LONG).find("crane")


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("gold fish", "did you mean 'goldfish'?"),
        ("Goldfish", "did you mean 'goldfish'?"),
        ("grate white shark", "did you mean 'great white shark'?"),
        ("shark", "did you mean 'great white shark, white shark, man-eater'?"),
        ("zzz", "use one of its 6 classes"),
        ("#6", "from #0 to #5, got '#6'"),
    ],
)
def test_a_typo_is_answered_with_similar_names(text: str, advice: str) -> None:
    with pytest.raises(UnknownClass) as caught:
        ClassNames(LONG, owner="imagenet@1").find(text)
    assert advice in str(caught.value)


def test_an_answer_is_one_short_line_however_many_classes_there_are() -> None:
    many = ClassNames([f"goldfish number {n}" for n in range(20_000)], owner="imagenet@1")
    began = time.process_time()
    with pytest.raises(UnknownClass) as caught:
        many.find("gold fish number 12345")
    assert time.process_time() - began < 10
    assert "did you mean 'goldfish number 12345'" in str(caught.value)
    assert len(str(caught.value)) < 200
    assert str(caught.value).count("goldfish") <= 3


def test_a_name_of_a_megabyte_is_not_compared() -> None:
    with pytest.raises(UnknownClass) as caught:
        ClassNames(LONG).find("goldfish" * 100_000)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("text", "numbers"), [("SHARK white", [2]), ("crane", [3, 4]), ("", [0, 1, 2, 3, 4, 5]), ("#4", [4]), ("#9", [])]
)
def test_all_names_are_searched(text: str, numbers: list[int]) -> None:
    assert [found.number for found in ClassNames(LONG).search(text)] == numbers


def test_a_search_reads_the_table_and_goes_on_where_it_stopped() -> None:
    names = ClassNames(tuple(TABLE), TABLE)
    (found,) = names.search("carassius")
    assert (found.number, found.name, found.aliases) == (1, "n01443537", ("goldfish", "Carassius auratus"))
    assert [found.number for found in names.search("n0", start=1)] == [1]


def test_other_names_hold_id_and_parts() -> None:
    assert other_names("n01443537 goldfish, Carassius auratus") == (
        "n01443537",
        "goldfish, Carassius auratus",
        "goldfish",
        "Carassius auratus",
    )
    assert other_names("cat") == ()


def test_a_job_has_the_networks_own_names() -> None:
    config = CloneConfig(classes=("goldfish", "#0"), seed=3)
    expected = CloneConfig(classes=("goldfish, Carassius auratus", "tench, Tinca tinca"), seed=3)
    assert resolved(config, ClassNames(LONG)) == expected
    assert resolved(expected, ClassNames(LONG)) is expected


def test_two_names_of_one_class_are_refused() -> None:
    with pytest.raises(ConfigError, match="got 'goldfish' and '#1', which both mean 'goldfish, Carassius auratus'"):
        resolved(CloneConfig(classes=("goldfish", "#1")), ClassNames(LONG))


def _spec(aliases: dict[str, list[str]]) -> NetworkSpec:
    return NetworkSpec(
        architecture="cnn", classes=tuple(TABLE), input_size=(1, 8, 8), mean=(0.5,), std=(0.5,), class_aliases=aliases
    )


def test_a_table_is_part_of_the_description_and_left_out_where_it_is_empty() -> None:
    assert _spec(TABLE).to_dict()["class_aliases"]["n01443537"] == ["goldfish", "Carassius auratus"]
    assert "class_aliases" not in _spec({}).to_dict()
    assert _spec(TABLE) == _spec({})  # a module fits its target whether or not the target has other names now


@pytest.mark.parametrize("table", [{"cat": ["Felis"]}, {"n01440764": []}, {"n01440764": ["\n"]}])
def test_a_table_of_other_classes_or_without_names_is_refused(table: dict[str, list[str]]) -> None:
    with pytest.raises(ConfigError, match="class_aliases"):
        _spec(table)


def test_a_description_with_a_repeated_name_is_refused_with_that_name() -> None:
    classes = (*(f"class {n}" for n in range(1000)), "crane", "crane")
    with pytest.raises(ConfigError, match=r"classes: expected no repetition, got \['crane'\]") as caught:
        NetworkSpec(architecture="cnn", classes=classes, input_size=(1, 8, 8), mean=(0.5,), std=(0.5,))
    assert len(str(caught.value)) < 100


@pytest.mark.parametrize(
    ("given", "stored"),
    [("cafe\u0301", "caf\u00e9"), ("red\u00a0fox", "red fox"), ("\u1112\u1161\u11ab", "\ud55c"), ("cat", "cat")],
)
def test_names_have_one_form(given: str, stored: str) -> None:
    config = CloneConfig(classes=(given,))
    assert config.classes == (stored,)


@pytest.mark.parametrize(
    "name", ["\U0001f468\u200d\U0001f469\u200d\U0001f467", "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"]
)
def test_joined_emoji_and_words_are_names(name: str) -> None:
    assert is_class_name(name)
    assert normal_name(name) == name


@pytest.mark.parametrize("name", ["", "\u200d", "a\u200d", "\u200da", "a\n", "\u202egnp", "x" * 129, 3, None])
def test_other_texts_are_none(name: object) -> None:
    assert not is_class_name(name)
