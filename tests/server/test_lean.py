"""aiohttp without its client: what we rely on of its layout, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cortex_embed

LEAN = "from cortex_embed.server import lean; lean.prepare()\n"


def _python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_neither_client_nor_tls_is_imported() -> None:
    code = LEAN + (
        "import sys, aiohttp.web\n"
        "without = {'aiohttp.client', 'aiohttp.connector', 'ssl', '_ssl'}\n"
        "print(sorted(without & set(sys.modules)))"
    )
    assert _python(code) == "[]"


def test_no_websocket_reader_is_imported() -> None:
    """It is not in the frozen file. That nobody serves WebSockets is what makes this right."""
    code = LEAN + (
        "import sys, aiohttp.web\n"
        "print([name for name in sys.modules if name.startswith('aiohttp._websocket.reader')])"
    )
    assert _python(code) == "['aiohttp._websocket.reader']"
    sources = Path(cortex_embed.__file__).parent.rglob("*.py")
    assert not [str(path) for path in sources if "WebSocketResponse" in path.read_text("utf-8")]


def test_the_whole_server_imports_so() -> None:
    code = (
        LEAN + "import cortex_embed.server.lifecycle, sys; print('aiohttp.client' in sys.modules)"
    )
    assert _python(code) == "False"


def test_tls_can_be_imported_afterwards() -> None:
    code = LEAN + "import ssl; print(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).verify_mode.name)"
    assert _python(code) == "CERT_REQUIRED"


def test_an_aiohttp_that_is_there_is_left_alone() -> None:
    code = "import aiohttp; before = aiohttp\n" + LEAN + "print(sys.modules['aiohttp'] is before)"
    assert _python("import sys\n" + code) == "True"


def test_what_tls_belongs_to_is_whole_afterwards() -> None:
    """aiohttp imports both while there is no ssl; prometheus_client fails with those halves."""
    code = LEAN + (
        "import http.client, urllib.request, prometheus_client, aiohttp.web\n"
        "print(http.client.HTTPSConnection.__name__, urllib.request.HTTPSHandler.__name__)"
    )
    assert _python(code) == "HTTPSConnection HTTPSHandler"


def test_what_was_there_before_stays() -> None:
    code = "import http.client, sys; before = http.client\n" + LEAN
    assert _python(code + "print(sys.modules['http.client'] is before is http.client)") == "True"
