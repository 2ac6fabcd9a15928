"""A process from exec to exit: what it says, what it answers meanwhile, how it ends."""

from __future__ import annotations

import hashlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.process import Client, Reply, environment, read_response

if TYPE_CHECKING:
    from cortex_embed.models.artifact import Artifact
    from tests.e2e.conftest import Serve

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals"),
]
BODY = b'{"texts": ["in flight"]}'


def half_sent(client: Client) -> socket.socket:
    """A request whose body has begun: in flight for as long as the test wants."""
    stream = client.socket()
    stream.sendall(
        f"POST /embed HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(BODY)}\r\n\r\n".encode()
        + BODY[:5]
    )
    return stream


def test_first_lines_and_exit(serve: Serve, tiny: Artifact) -> None:
    served = serve(tiny)
    client = served.ready()
    assert client.get("/livez").status == 200
    assert client.get("/readyz").json == {"status": "ready"}
    reply = client.get("/")
    assert reply.json == {
        "status": "ok",
        "model": tiny.spec.repo,
        "dimensions": tiny.spec.dimensions,
        "max_tokens": tiny.spec.max_tokens,
    }
    served.signal()
    assert served.exit_code() == 0
    order = ["Listening on", "Loading", "Model ready", "Try:", "Stopping", "Stopped"]
    places = [served.stderr.index(word) for word in order]
    assert places == sorted(places)
    assert served.stdout() == ""
    with pytest.raises(ConnectionError):
        client.get("/livez")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_requests_in_flight_finish(
    serve: Serve, tiny_mean: Artifact, number: signal.Signals
) -> None:
    served = serve(tiny_mean)
    client = served.ready()
    with half_sent(client) as early, client.socket() as kept:
        kept.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b" 200 " in read_response(kept)
        time.sleep(0.2)
        served.signal(number)
        served.wait_for(r"Stopping: finishing 1 request")
        with pytest.raises(ConnectionError):
            client.get("/livez")  # no new connections
        kept.sendall(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        last = read_response(kept)
        assert b" 503 " in last
        assert b"draining" in last
        assert b"Connection: close" in last
        early.sendall(BODY[5:])
        answer = read_response(early)
        assert b" 200 " in answer
        assert b"embeddings" in answer
    assert served.exit_code() == 0


@pytest.mark.real
def test_work_in_flight_finishes(serve: Serve, minilm_artifact: Artifact) -> None:
    """Real work: two requests that take a second or more of both cores each."""
    served = serve(minilm_artifact)
    client = served.ready()
    texts = [f"text {n} " + "with many words " * 40 for n in range(120)]
    replies: list[Reply] = []

    def in_flight() -> float:
        samples = client.get("/metrics").body.decode()
        return float(re.findall(r"^cortex_embed_requests_in_flight ([\d.]+)$", samples, re.M)[0])

    idle = in_flight()

    def send(path: str, body: dict[str, object]) -> None:
        replies.append(client.post(path, body))

    requests = [
        threading.Thread(target=send, args=("/embed", {"texts": texts})),
        threading.Thread(
            target=send, args=("/v1/embeddings", {"model": "all-minilm-l6-v2", "input": texts})
        ),
    ]
    for request in requests:
        request.start()
    # Not after so many seconds: an engine may be faster than whoever wrote them down thought.
    until = time.monotonic() + 20
    while in_flight() < idle + 2:
        assert time.monotonic() < until
    served.signal()
    assert served.exit_code() == 0
    for request in requests:
        request.join(30)
    assert [reply.status for reply in replies] == [200, 200]
    assert "finishing 2 request" in served.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_second_signal_exits_at_once(
    serve: Serve, tiny_mean: Artifact, number: signal.Signals
) -> None:
    served = serve(tiny_mean)
    with half_sent(served.ready()):
        time.sleep(0.2)
        served.signal()
        served.wait_for("Stopping")
        began = time.monotonic()
        served.signal(number)
        assert served.exit_code(5) == 128 + number
        assert time.monotonic() - began < 2
    assert "Stopped" not in served.stderr


@pytest.mark.parametrize(
    "name", ["tiny_mean", pytest.param("minilm_artifact", marks=pytest.mark.real)]
)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_while_loading(
    serve: Serve, request: pytest.FixtureRequest, name: str, number: signal.Signals
) -> None:
    served = serve(request.getfixturevalue(name))
    served.wait_for("Loading")
    began = time.monotonic()
    served.signal(number)
    assert served.exit_code(10) == 0
    assert time.monotonic() - began < 3
    assert "Stopped" in served.stderr
    assert "Traceback" not in served.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_before_the_server_runs(
    serve: Serve, tiny_mean: Artifact, number: signal.Signals
) -> None:
    """While aiohttp and the runtime are being imported."""
    served = serve(tiny_mean)
    served.listening()
    served.signal(number)
    assert served.exit_code(10) == 0
    assert "Traceback" not in served.stderr


def test_a_client_that_stalls_cannot_hold_the_process(serve: Serve, tiny_mean: Artifact) -> None:
    served = serve(tiny_mean, "--grace-period", "500ms")
    client = served.ready()
    with half_sent(client), client.socket():
        time.sleep(0.2)
        began = time.monotonic()
        served.signal()
        assert served.exit_code(10) == 0
        assert time.monotonic() - began < 3


def test_port_in_use(serve: Serve, tiny_mean: Artifact) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        served = serve(tiny_mean, "--port", str(port))
        assert served.exit_code() == 4
    assert (
        f"port {port} on 127.0.0.1 is in use; choose another with --port, or --port 0"
        in served.stderr
    )
    assert "Traceback" not in served.stderr
    assert "Listening" not in served.stderr


def damaged(directory: Path) -> str:
    graph = directory / "model.onnx"
    content = bytearray(graph.read_bytes())
    content[len(content) // 2] ^= 1
    graph.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def missing(directory: Path) -> str:
    (directory / "tokenizer.json").unlink()
    return "tokenizer.json"


def no_manifest(directory: Path) -> str:
    (directory / "manifest.json").unlink()
    return "manifest.json"


def broken_manifest(directory: Path) -> str:
    (directory / "manifest.json").write_text('{"id": ', encoding="utf-8")
    return "manifest.json"


@pytest.mark.parametrize("harm", [no_manifest, broken_manifest])
def test_a_model_that_is_not_there_binds_nothing(
    serve: Serve, tiny_mean: Artifact, tmp_path: Path, harm: Callable[[Path], str]
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny_mean.directory, copy)
    named = harm(copy)
    # The port is taken: exit code 4 instead of 3 would show that it was bound first.
    with socket.create_server(("127.0.0.1", 0)) as taken:
        served = serve(copy, "--port", str(taken.getsockname()[1]))
        assert served.exit_code() == 3
    assert named in served.stderr
    assert str(copy) in served.stderr
    assert "Traceback" not in served.stderr


@pytest.mark.parametrize("harm", [damaged, missing])
def test_a_damaged_model_is_never_served(
    serve: Serve, tiny_mean: Artifact, tmp_path: Path, harm: Callable[[Path], str]
) -> None:
    """Files are hashed while the port already answers; it is not ready before they are right."""
    copy = tmp_path / "copy"
    shutil.copytree(tiny_mean.directory, copy)
    named = harm(copy)
    served = serve(copy)
    assert served.exit_code() == 3
    assert "Listening on" in served.stderr
    assert "Model ready" not in served.stderr
    assert named in served.stderr
    assert str(copy) in served.stderr
    if harm is damaged:
        graph = hashlib.sha256((tiny_mean.directory / "model.onnx").read_bytes()).hexdigest()
        assert graph in served.stderr
    assert "Traceback" not in served.stderr


def test_unknown_model(exe: list[str], tmp_path: Path) -> None:
    done = subprocess.run(
        [*exe, "serve", "--model", "no-such-model", "--port", "0"],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 2
    assert "no-such-model" in done.stderr
    assert "Traceback" not in done.stderr
