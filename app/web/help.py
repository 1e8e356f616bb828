"""`/help`: the words of the pages, and where to read on."""

from markupsafe import Markup
from nicegui import ui
from starlette.requests import Request

from app.web.frame import frame, heading, markup
from app.web.html import link, section
from app.web.words import WORDS, anchor

_STEPS = (
    ("Add two models", "/add", "one that is to learn, the target, and one that knows the classes, the source"),
    ("Add images", "/datasets", "of the target's own classes and of the new ones, at least three of each"),
    ("Start a job", "/new", "it makes a module in seconds to minutes, and compares it with simpler answers"),
    ("Serve the target", "/deployments", "attach the module, try an image, and copy a request for your program"),
)


@ui.page("/help")
async def help_page(request: Request) -> None:
    """The page of words."""
    with frame(request, "Help", "/help"):
        markup(
            heading("Help", note="The way from two networks to one that answers more, and the words of these pages.")
        )
        steps = Markup("").join(
            Markup("<li>{}: {}.</li>").format(link(path, name), text) for name, path, text in _STEPS
        )
        markup(section("In four steps", Markup('<ol class="prose">{}</ol>').format(steps)))
        words = Markup("").join(
            Markup('<div id="{}"><dt>{}</dt><dd>{}</dd></div>').format(anchor(word), word, text)
            for word, text in WORDS.items()
        )
        markup(section("Words", Markup('<dl class="facts">{}</dl>').format(words)))
        api = Markup("{} lists all requests; {} has the same in another layout. On the command line: {}.").format(
            link("/docs", "The API"), link("/redoc", "ReDoc"), Markup("<code>pnc --help</code>")
        )
        markup(section("For programs", Markup("<p>{}</p>").format(api)))
