"""Two installations are the same space, or what differs is named."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from cortex_embed import cli
from cortex_embed.commands import fingerprint
from cortex_embed.config import Settings
from cortex_embed.errors import FingerprintMismatch, InputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cortex_embed.models.store import Artifact


def run(model: Artifact, *flags: str) -> int:
    return cli.run(["fingerprint", "--model", str(model.directory), *flags])


def printed(model: Artifact, capsys: pytest.CaptureFixture[str], *flags: str) -> dict[str, Any]:
    assert run(model, "--json", *flags) == 0
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


def test_alone_it_is_one_word(tiny_mean: Artifact, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tiny_mean) == 0
    word = capsys.readouterr().out.strip()
    assert word == printed(tiny_mean, capsys)["fingerprint"]
    assert run(tiny_mean, "--compare", word) == 0
    assert "the same vector space" in capsys.readouterr().out


def test_a_file_tells_what_differs(
    tiny_mean: Artifact, tiny_cls: Artifact, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "other.json"
    file.write_text(json.dumps(printed(tiny_mean, capsys)), encoding="utf-8")
    assert run(tiny_mean, "--compare", str(file)) == 0
    assert run(tiny_cls, "--compare", str(file)) == 7
    message = capsys.readouterr().err
    for part in ("pooling: 'cls' / 'mean'", "max_tokens: 64 / 48", "query_prefix: 'query: ' / ''"):
        assert part in message
    assert "normalize" not in message


def test_a_precision_is_a_space_of_its_own(
    tiny_mean: Artifact, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = printed(tiny_mean, capsys)["fingerprint"]
    settings = Settings(model=(str(tiny_mean.directory),), precision="int8")
    with pytest.raises(FingerprintMismatch, match="What differs is not known"):
        fingerprint.run(settings, fingerprint.Options(plain))


@contextmanager
def server(body: bytes) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/model_info" else 404)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Silence."""

    with HTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{listening.server_port}"
        listening.shutdown()
        thread.join()


@pytest.mark.parametrize("suffix", ["", "/", "/v1", "/v1/"])
def test_a_running_server_is_asked(
    tiny_mean: Artifact, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    own = printed(tiny_mean, capsys)["fingerprint"]
    with server(json.dumps({"fingerprint": own, "id": "x"}).encode()) as url:
        assert run(tiny_mean, "--compare", url + suffix) == 0
    with server(b'{"fingerprint": "cx1:0000000000000000"}') as url:
        assert run(tiny_mean, "--compare", url) == 7


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"fingerprint": 5}'])
def test_what_cannot_be_compared_is_said(tiny_mean: Artifact, content: str, tmp_path: Path) -> None:
    file = tmp_path / "other.json"
    file.write_text(content, encoding="utf-8")
    settings = Settings(model=(str(tiny_mean.directory),))
    for other in (str(file), str(tmp_path / "absent"), "http://127.0.0.1:9"):
        with pytest.raises(InputError, match="--compare"):
            fingerprint.run(settings, fingerprint.Options(other))
