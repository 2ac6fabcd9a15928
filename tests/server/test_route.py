"""What rows share: an operation describes a body that the route's own types accept."""

from __future__ import annotations

import msgspec
import pytest

from cortex_embed.server import pages
from cortex_embed.server.dialects import ollama
from cortex_embed.server.route import Route
from cortex_embed.server.routes import ROUTES

DESCRIBED = [route for route in ROUTES if route.operation]


@pytest.mark.parametrize("route", DESCRIBED, ids=lambda route: f"{route.method} {route.path}")
def test_the_example_is_of_the_first_request_type(route: Route) -> None:
    operation = route.operation
    assert operation is not None
    assert (operation.request is None) == (operation.example is None)
    if operation.request is not None:
        several = isinstance(operation.request, tuple)
        msgspec.convert(operation.example, operation.request[0] if several else operation.request)


def test_every_path_is_described_once() -> None:
    described = [(route.method, route.path) for route in DESCRIBED]
    assert len(described) == len(set(described)) > 5
    handled = {route.handler for route in DESCRIBED}
    rest = {route.handler for route in ROUTES if route not in pages.ROUTES}
    # Those without a description are second spellings, or always refuse.
    assert rest - ollama.REFUSED == handled
