"""`GET /openapi.json`: the table of routes and the wire types as an OpenAPI 3.1 document.

Source: https://spec.openapis.org/oas/v3.1.1. Nothing in it is written by hand that a route or a
type says, so the document cannot disagree with the server. It must never be made at a start:
describing the types takes longer than serving them.
"""

from __future__ import annotations

import asyncio
import re
from functools import cache
from http import HTTPStatus
from types import UnionType
from typing import TYPE_CHECKING, Any, Union, get_args, get_origin

from aiohttp import web

from cortex_embed import __version__
from cortex_embed.server.guard import PROBES
from cortex_embed.server.keys import SERVICE
from cortex_embed.server.route import JSON, Operation, Route
from cortex_embed.wire import native

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    Node = dict[str, Any]

EVERYWHERE = (401, 403, 500)
"""The error statuses that every route can answer with; 401 only where a key was set."""
_PLACEHOLDER = "MODEL"
_PARAMETER = re.compile(r"\{(\w+)(?::[^{}]*)?\}")
_SECURITY: Node = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "apiKey": {"type": "apiKey", "in": "header", "name": "api-key"},
}
# Optional: a server that was started without a key ignores what clients send.
_ASKED: list[Node] = [{}, *({name: []} for name in _SECURITY)]
_HEADERS: dict[str, tuple[str, Node]] = {
    "X-Request-Id": ("The caller's id of this request, or one of ours.", {"type": "string"}),
    "X-Truncated": ("How many texts were cut; only where one was.", {"type": "integer"}),
    "X-Truncated-Indices": ("Which, at most the first hundred.", {"type": "string"}),
    "X-Token-Ids": (
        "The vocabulary that token ids were read as, where not the model's own.",
        {"type": "string"},
    ),
    "X-Embedding-Fingerprint": ("Identity of the vectors' space.", {"type": "string"}),
    "Retry-After": ("Seconds after which to ask again.", {"type": "integer"}),
    "WWW-Authenticate": ("How to send the key.", {"type": "string"}),
}
_OF_TEXTS = ("X-Truncated", "X-Truncated-Indices", "X-Token-Ids", "X-Embedding-Fingerprint")
_ALWAYS = {"X-Request-Id", "Retry-After", "WWW-Authenticate"}
_OF_STATUS = {401: ["WWW-Authenticate"], 429: ["Retry-After"], 503: ["Retry-After"]}


async def openapi(request: web.Request) -> web.Response:
    """The document, with this server's default model in its examples."""
    model = request.app[SERVICE].resolve(None).id
    return web.Response(body=await asyncio.to_thread(_encoded, model), content_type=JSON)


ROUTES = (
    Route(
        "GET",
        "/openapi.json",
        native,
        openapi,
        Operation("This API as an OpenAPI 3.1 document", response=dict[str, Any]),
    ),
)


@cache
def _encoded(model: str) -> bytes:
    import msgspec

    from cortex_embed.server import routes

    return msgspec.json.encode(document(routes.ROUTES, model))


def document(routes: Iterable[Route], model: str) -> Node:
    """The description of every row that has an `Operation`; `model` stands in the examples."""
    listed = [
        (route, route.operation)
        for route in routes
        if route.operation is not None and route.method != "HEAD"
    ]
    types = _Types(kind for route, operation in listed for kind in _kinds(route, operation))
    paths: Node = {}
    for route, operation in listed:
        path = _PARAMETER.sub(r"{\1}", route.path)
        described = _operation(route, operation, types, model)
        paths.setdefault(path, {})[route.method.lower()] = described
    return {
        "openapi": "3.1.1",
        "info": {
            "title": "cortex-embed",
            "version": __version__,
            "summary": "Text into vectors, in the words of several APIs.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name} for name in dict.fromkeys(r.dialect.NAME for r, _ in listed)],
        "security": _ASKED,
        "paths": paths,
        "components": {
            "schemas": types.components,
            "securitySchemes": _SECURITY,
            "headers": {name: _header(name) for name in _HEADERS},
        },
    }


class _Types:
    """Schemas of all types at once: that is how msgspec gives two of one name two names."""

    def __init__(self, kinds: Iterable[Any]) -> None:
        import msgspec

        unique = list(dict.fromkeys(part for kind in kinds for part in _parts(kind)))
        schemas, self.components = msgspec.json.schema_components(
            unique, ref_template="#/components/schemas/{name}"
        )
        self._schemas = dict(zip(unique, schemas, strict=True))

    def schema(self, kind: Any) -> Node:
        schemas = [self._schemas[part] for part in _parts(kind)]
        return schemas[0] if len(schemas) == 1 else {"anyOf": schemas}


def _parts(kind: Any) -> tuple[Any, ...]:
    """The types of a row that takes several, or the members of a union: msgspec describes no
    union of two structs."""
    if isinstance(kind, tuple):
        return kind
    return get_args(kind) if get_origin(kind) in {Union, UnionType} else (kind,)


def _kinds(route: Route, operation: Operation) -> Iterator[Any]:
    """Every type that a row speaks of."""
    bodies = (operation.request, operation.response, *operation.others.values())
    yield from (kind for kind in bodies if kind is not None)
    yield _error(route, operation)


def _error(route: Route, operation: Operation) -> Any:
    return Union[tuple(d.ERROR for d in (route.dialect, *operation.also))]  # noqa: UP007


def _operation(route: Route, operation: Operation, types: _Types, model: str) -> Node:
    described: Node = {
        "operationId": _identifier(route),
        "summary": operation.summary,
        "tags": [route.dialect.NAME],
        "responses": _responses(route, operation, types),
    }
    if route.path in PROBES:
        described["security"] = []
    if parameters := _parameters(route, operation):
        described["parameters"] = parameters
    if operation.request is not None:
        content = {"schema": types.schema(operation.request)}
        if operation.example is not None:
            content["example"] = example(operation, model)
        described["requestBody"] = {"required": True, "content": {JSON: content}}
    return described


def _parameters(route: Route, operation: Operation) -> list[Node]:
    in_path = {name: operation.parameters.get(name, "") for name in _PARAMETER.findall(route.path)}
    return [
        {
            "name": name,
            "in": place,
            "required": place == "path",
            "description": text,
            "schema": {"type": "string", "minLength": 1},
        }
        for place, names in (("path", in_path), ("query", operation.query))
        for name, text in names.items()
    ]


def _identifier(route: Route) -> str:
    words = [route.dialect.NAME, route.method.lower(), *re.findall(r"\w+", route.path)]
    return "_".join(words)


def example(operation: Operation, model: str) -> Any:
    """The operation's request body with the served model's id in its place."""

    def filled(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: filled(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [filled(inner) for inner in value]
        return model if value == _PLACEHOLDER else value

    return filled(operation.example)


def _responses(route: Route, operation: Operation, types: _Types) -> Node:
    everywhere = set(EVERYWHERE) - ({401} if route.path in PROBES else set())
    bodies = dict.fromkeys((*operation.errors, *everywhere), _error(route, operation))
    bodies |= operation.others
    found = {"200": _response(200, operation.response, types, operation.media)}
    if operation.request is not None:
        for name in _OF_TEXTS:
            found["200"]["headers"][name] = _reference(name)
    for status in sorted(bodies):
        found[str(status)] = _response(status, bodies[status], types)
    return found


def _response(status: int, kind: Any, types: _Types, media: str | tuple[str, ...] = JSON) -> Node:
    names = ["X-Request-Id", *_OF_STATUS.get(status, [])]
    described: Node = {
        "description": HTTPStatus(status).phrase,
        "headers": {name: _reference(name) for name in names},
    }
    if kind is not None:
        medias = (media,) if isinstance(media, str) else media
        described["content"] = {one: {"schema": types.schema(kind)} for one in medias}
    return described


def _reference(name: str) -> Node:
    return {"$ref": f"#/components/headers/{name}"}


def _header(name: str) -> Node:
    description, schema = _HEADERS[name]
    return {"description": description, "required": name in _ALWAYS, "schema": schema}
