"""A secret that is shown once, with a button that copies it."""

from markupsafe import Markup

from app.web.html import copy_button


def shown_once(secret: str, what: str) -> Markup:
    """A box with a secret.

    Args:
        secret: The secret.
        what: What it is for, one sentence.
    """
    return Markup(
        '<div class="secret" role="status"><p>{} It is shown only now: copy it.</p><code>{}</code> {}</div>'
    ).format(what, secret, copy_button(secret, "secret", "Copy"))
