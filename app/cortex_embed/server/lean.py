"""Import `aiohttp.web` without its client half, TLS and WebSocket reader: a third of a start.

`aiohttp/__init__.py` imports the client, which we never use, and which builds two TLS contexts
when imported. A module object with aiohttp's path in its place leaves that out; afterwards
everything is as if it had been imported the usual way, but for the names of the package
itself. It leans on aiohttp's layout, so `tests/server/test_lean.py` holds it. It must never be
used where a client may be wanted in the same process, and never hide an import error.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec

_WITHOUT = ("ssl",)
# They leave their TLS half out where there is no ssl. Whoever wants them later (prometheus_client)
# must get them whole; aiohttp keeps what it has.
_HALVED = ("http.client", "urllib.request")
# Of WebSockets, which we do not serve: 0.2 MB of compiled code, for two names.
_READER = "aiohttp._websocket.reader"
_READERS = ("WebSocketDataQueue", "WebSocketReader")


def prepare() -> None:
    """Call before anything imports aiohttp; does nothing where that has happened already."""
    if "aiohttp" in sys.modules:
        return
    spec = find_spec("aiohttp")
    if spec is None or spec.submodule_search_locations is None:
        return  # the import that follows says what is missing
    sys.modules["aiohttp"] = _package(spec, spec.submodule_search_locations)
    whole = [name for name in _HALVED if name in sys.modules]
    hidden = [name for name in _WITHOUT if name not in sys.modules]
    # What imports them takes None for "this Python has none", which they all provide for.
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    sys.modules[_READER] = ModuleType(_READER)
    vars(sys.modules[_READER]).update(dict.fromkeys(_READERS, object))
    try:
        import aiohttp.web  # noqa: F401
    finally:
        for name in hidden:
            del sys.modules[name]
        for name in _HALVED:
            if name not in whole:
                _forget(name)


def _forget(name: str) -> None:
    package, _, module = name.rpartition(".")
    if sys.modules.pop(name, None) is not None:
        delattr(sys.modules[package], module)


def _package(spec: ModuleSpec, locations: Sequence[str]) -> ModuleType:
    package = ModuleType("aiohttp")
    package.__path__ = list(locations)
    package.__spec__ = spec
    package.__file__ = spec.origin
    # `aiohttp.http` reads it for the Server header, which we set ourselves.
    package.__dict__["__version__"] = "0"
    return package
