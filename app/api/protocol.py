"""Every call of the Open Inference Protocol, and the scope that each needs.

The API has a route for each and sends nothing else on; the serving process judges those who come with a key of their
own by the same table.
"""

from dataclasses import dataclass

from starlette.routing import compile_path

PREFIX = "/v2"


@dataclass(frozen=True)
class Call:
    """One call."""

    name: str
    """Under which the audit log has it."""
    method: str
    path: str
    scope: str = "read"


def speaks(path: str) -> bool:
    """Whether errors at this path are answered in the protocol's form."""
    return path == PREFIX or path.startswith(PREFIX + "/")


def call_of(method: str, path: str) -> Call | None:
    """The call that a request makes; None: it is none of the protocol's.

    Args:
        method: Of HTTP.
        path: Decoded, in its one spelling.
    """
    return next((call for call, pattern in _COMPILED if call.method == method and pattern.match(path)), None)


def _calls(name: str, method: str, path: str, scope: str = "read", *, versioned: bool = False) -> list[Call]:
    """One call; `{v}` in its path is where a version may stand."""
    paths = [path.replace("{v}", "")] + [path.replace("{v}", "/versions/{version}")] * versioned
    return [Call(name, method, PREFIX + one, scope) for one in paths]


# In order: `/models/stats` comes before the model that could be called so.
CALLS: tuple[Call, ...] = (
    *_calls("infer", "POST", "/models/{name}{v}/infer", versioned=True),
    *_calls("inference_server", "GET", ""),
    *_calls("inference_live", "GET", "/health/live"),
    *_calls("inference_ready", "GET", "/health/ready"),
    *_calls("inference_statistics", "GET", "/models/stats"),
    *_calls("inference_statistics", "GET", "/models/{name}{v}/stats", versioned=True),
    *_calls("inference_model_ready", "GET", "/models/{name}{v}/ready", versioned=True),
    *_calls("inference_config", "GET", "/models/{name}{v}/config", versioned=True),
    *_calls("inference_model", "GET", "/models/{name}{v}", versioned=True),
    *_calls("inference_index", "POST", "/repository/index"),
    *_calls("inference_load", "POST", "/repository/models/{name}/load", "deploy"),
    *_calls("inference_unload", "POST", "/repository/models/{name}/unload", "deploy"),
)
_COMPILED = tuple((call, compile_path(call.path)[0]) for call in CALLS)
