"""The words of the method, each in a sentence. Pages link a word to `/help`, and show its sentence on hover."""

from markupsafe import Markup

WORDS: dict[str, str] = {
    "target": "The network that gains classes. It stays as it is; a module works beside it.",
    "source": "The network whose classes are cloned. It stays as it is.",
    "module": "A file with the cloned part of the source and its head. It can be attached and detached.",
    "position": "A layer of the target where a module reads, and a layer of the source where the cloned part begins.",
    "tail": "The layers of the source from the position to the answer. A module holds the kept part of the tail.",
    "kept channels": "The channels of the tail that matter to the cloned classes. The others are cut away.",
    "adapter": "A small layer that turns what the target computes into what the tail of the source expects.",
    "head": "The last layer of a module: it joins the target's old answers and the new ones into one list of classes.",
    "locality": "How far old answers may change: soft allows small changes, strict leaves them exactly as they were.",
    "log-odds": "The default score of a channel: how much it raises the odds of the cloned classes over the others.",
    "thin": "A bundle without the weights that the source's file has; it needs this file when it is attached.",
    "full": "A bundle with all weights of the module; it needs nothing else.",
    "verdict": "A comparison of the target with the module against answers that need no module, with 90 % intervals.",
    "generation": "The number of a deployment's change. Each attach, detach or rollback makes the next generation.",
    "fingerprint": "A digest of a network's tensors. A module fits only a target with the fingerprint that it names.",
    "accuracy": "The share of images whose class a network names right.",
    "chance": "The accuracy of guessing among the classes of the images.",
}  # fmt: skip


def term(word: str, text: str | None = None) -> Markup:
    """A word that shows its meaning on hover, and links to the page of words.

    Args:
        word: A key of `WORDS`.
        text: Text to show in place of the word.
    """
    return Markup('<a class="term" href="/help#{}" title="{}">{}</a>').format(anchor(word), WORDS[word], text or word)


def anchor(word: str) -> str:
    """The part of `/help` that explains a word."""
    return word.replace(" ", "-")
