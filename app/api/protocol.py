"""All calls of the Open Inference Protocol, each with the scope that it needs.

The API has one route for each call and forwards no other request. The serving process uses the same table for requests
that come to it directly, with a key.
"""

from dataclasses import dataclass

from starlette.routing import compile_path

PREFIX = "/v2"


@dataclass(frozen=True)
class Call:
    """One call of the protocol."""

    name: str
    """Action in the audit log."""
    method: str
    path: str
    scope: str = "read"


def is_protocol_path(path: str) -> bool:
    """Whether errors at this path have the protocol's format."""
    return path == PREFIX or path.startswith(PREFIX + "/")


def call_of(method: str, path: str) -> Call | None:
    """The call of a request; None: the request is no call of the protocol.

    Args:
        method: HTTP method.
        path: Decoded path in the spelling of `app.api.paths`.
    """
    return next((call for call, pattern in _COMPILED if call.method == method and pattern.match(path)), None)


def _calls(name: str, method: str, path: str, scope: str = "read", *, versioned: bool = False) -> list[Call]:
    """A call with one path, or two if `versioned`. `{v}` marks the place of the version in the path."""
    paths = [path.replace("{v}", "")] + [path.replace("{v}", "/versions/{version}")] * versioned
    return [Call(name, method, PREFIX + path, scope) for path in paths]


# The first match decides: `/models/stats` must come before `/models/{name}`.
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
