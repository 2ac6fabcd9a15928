"""The running server does what its own `/openapi.json` says: schemathesis judges.

Examples, boundary values of every schema, random good and bad data, and sequences of requests:
no 5xx, no status, header, media type or body that the document does not have.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from cortex_embed.server.openapi import example
from cortex_embed.server.routes import ROUTES
from tests.e2e.process import Served

_CONFIGURATION = Path(__file__).with_name("schemathesis.toml")
_LIMIT = 900


def test_schemathesis_finds_nothing(served: Served, tmp_path: Path) -> None:
    client = served.ready()
    done = subprocess.run(
        [
            Path(sys.executable).with_name("schemathesis"),
            f"--config-file={_CONFIGURATION}", "run", f"{client.url}/openapi.json",
            "--seed=1", "--max-examples=200", "--no-color", "--continue-on-failure",
        ],
        capture_output=True, text=True, timeout=_LIMIT, check=False, cwd=tmp_path,
    )  # fmt: skip
    print(done.stdout[-2000:])
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    operations = len([route for route in ROUTES if route.operation and route.method != "HEAD"])
    operations -= 1  # the document itself is left out
    assert f"Tested: {operations}" in done.stdout
    generated = re.search(r"(\d+) generated", done.stdout)
    assert generated, done.stdout
    assert int(generated[1]) > 100 * operations
    assert served.process.poll() is None


def test_the_document_is_openapi(served: Served, tmp_path: Path) -> None:
    """Against the meta-schema of OpenAPI 3.1, every reference resolved."""
    document = tmp_path / "openapi.json"
    document.write_bytes(served.ready().get("/openapi.json").body)
    done = subprocess.run(
        [sys.executable, "-m", "openapi_spec_validator", "--schema=3.1", str(document)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert ": OK" in done.stdout


def test_examples_are_answered(served: Served) -> None:
    """Each example of the document is answered with 200 in the media type that it states."""
    client = served.ready()
    for route in ROUTES:
        operation = route.operation
        if operation is None or route.method == "HEAD":
            continue
        path = re.sub(r"\{[^}]*\}", "hash", route.path)
        body = None if operation.request is None else json.dumps(example(operation, "hash"))
        reply = client.call(route.method, path, body.encode() if body else None)
        assert reply.status == 200, f"{route.method} {path}: {reply.status} {reply.body[:300]!r}"
        stated = reply.headers.get("Content-Type", "").partition(";")[0]
        medias = operation.media if isinstance(operation.media, tuple) else (operation.media,)
        assert operation.response is None or stated in medias
