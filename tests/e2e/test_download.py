"""A model that is not on this machine: fetched by real processes from a hub on loopback.

Every process has a home of its own; nothing reaches beyond loopback.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import create_connection
from urllib.parse import urlsplit
from urllib.request import urlopen

import pytest

from tests.e2e.process import Served, environment
from tests.events_schema import checked
from tests.hub import REVISION, Hub, catalogue, repository, running

pytestmark = pytest.mark.e2e

REPO = "cortex-embed/tiny"
GRAPH = "onnx/model.onnx"
_IS_ROOT = hasattr(os, "geteuid") and os.geteuid() == 0
_POSIX = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")


@dataclass
class Machine:
    """A home, a hub that it knows by HF_ENDPOINT, and the program."""

    exe: Sequence[str]
    hub: Hub
    home: Path
    more: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.home.mkdir(parents=True)
        catalogue(self.home / "mine.toml", self.hub)
        self.more = {
            "HF_ENDPOINT": self.hub.url,
            "CORTEX_EMBED_CATALOGUE": str(self.home / "mine.toml"),
            "CORTEX_EMBED_STALL_TIMEOUT": "3s",
            "XDG_DATA_HOME": str(self.data.parent),
        } | self.more

    @property
    def data(self) -> Path:
        return self.home / "data" / "cortex-embed"

    @property
    def final(self) -> Path:
        return self.data / "models" / "tiny-hub"

    @property
    def environment(self) -> dict[str, str]:
        return environment(self.home) | self.more

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*self.exe, *arguments],
            env=self.environment,
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, code: int = 0) -> tuple[str, str]:
        process = self.start(*arguments)
        out, err = process.communicate(timeout=60)
        assert process.returncode == code, f"{out}\n{err}"
        assert "Traceback" not in err
        return out, err

    def serve(self, *flags: str) -> Served:
        command = [*self.exe, "serve", "--port", "0", "--model", "tiny-hub", *flags]
        return Served(command, self.home, self.more)

    def files(self) -> list[str]:
        """All that there is in the data directory but the installed model."""
        return [
            str(path.relative_to(self.data))
            for path in self.data.rglob("*")
            if path != self.final and self.final not in path.parents and path != self.final.parent
        ]


@pytest.fixture
def hub() -> Iterator[Hub]:
    with running() as one:
        one.repositories[REPO] = repository()
        yield one


@pytest.fixture
def machine(exe: list[str], hub: Hub, tmp_path: Path) -> Machine:
    return Machine(exe, hub, tmp_path / "home")


def test_a_pull_and_all_that_follows(machine: Machine) -> None:
    out, err = machine.run("models", "pull", "th")
    assert out == f"tiny-hub is in {machine.final}, verified.\n"
    assert "Licence: mit" in err
    assert machine.files() == []
    machine.hub.close()
    assert machine.run("models", "path", "tiny-hub")[0] == f"{machine.final}\n"
    machine.run("models", "pull", "tiny-hub")
    out, _ = machine.run("embed", "--model", "tiny-hub", "hello", "--offline")
    assert len(json.loads(out)["embedding"]) == 32


def test_embed_fetches_what_it_needs(machine: Machine) -> None:
    out, err = machine.run("embed", "--model", "tiny-hub", "hello")
    assert len(out.splitlines()) == 1
    assert "Fetching tiny-hub" in err


def test_a_server_answers_while_it_downloads(machine: Machine) -> None:
    machine.hub.repositories[REPO] = repository(rows=20_000)
    catalogue(machine.home / "mine.toml", machine.hub)
    machine.hub.trouble(GRAPH, "slow")
    served = machine.serve("--ready-file", str(machine.home / "ready.json"))
    try:
        client = served.listening()
        reply = client.get("/readyz")
        assert (reply.status, reply.json) == (503, {"status": "downloading"})
        reply = client.post("/v1/embeddings", {"model": "th", "input": "hello"})
        assert (reply.status, reply.headers["Retry-After"]) == (503, "5")
        assert reply.headers["X-Phase"] == "downloading"
        assert "downloaded" in reply.json["error"]["message"]
        assert client.get("/v1/models").json["data"][0]["id"] == "tiny-hub"
        served.wait_for("Model ready")
        assert len(client.embed(["hello"])[0]) == 32
        assert client.get("/model_info").json["fingerprint"].startswith("cx1:")
        served.signal()
        assert served.exit_code() == 0
    finally:
        served.close()
    assert machine.files() == []


def test_a_server_of_several_models_fetches_what_is_missing(machine: Machine) -> None:
    """Whether it is the default or another; the next start needs no hub."""
    for first, second in (("hash", "tiny-hub"), ("tiny-hub", "hash")):
        command = [*machine.exe, "serve", "--port", "0", "--model", first, "--model", second]
        served = Served([*command, "--load-wait", "20s"], machine.home, machine.more)
        try:
            client = served.ready()
            assert served.stderr.count("Fetching tiny-hub") == (first == "hash")
            told = client.get("/v1/models").json["data"]
            assert [(one["id"], one["loaded"]) for one in told] == [(first, True), (second, False)]
            assert all(one["fingerprint"].startswith("cx1:") for one in told)
            assert len(client.embed(["hello"], model="tiny-hub")[0]) == 32
            assert len(client.embed(["hello"], model="hash")[0]) == 384
        finally:
            served.close()
        machine.hub.close()


def test_a_host_follows_the_download(machine: Machine) -> None:
    machine.hub.repositories[REPO] = repository(rows=20_000)
    catalogue(machine.home / "mine.toml", machine.hub)
    machine.hub.trouble(GRAPH, "slow")
    with subprocess.Popen(
        [*machine.exe, "serve", "--sidecar", "--model", "tiny-hub"],
        env=machine.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        events, times = [], []
        for line in process.stdout:
            events.append(checked(line))
            times.append(time.monotonic())
            if events[-1]["event"] == "ready":
                process.stdin.close()
                break
        process.wait(30)
    assert events[0]["event"] == "listening"
    progress = [e for e in events if e["event"] == "progress"]
    assert progress[-1] == {"event": "progress", "v": 1, "phase": "load", "model": "tiny-hub"}
    downloads = [e for e in progress if e["phase"] == "download"]
    assert len(downloads) >= 3
    size = sum(map(len, machine.hub.repositories[REPO].values()))
    assert {e["total"] for e in downloads} == {size}
    assert [e["done"] for e in downloads] == sorted(e["done"] for e in downloads)
    assert "verify" in {e["phase"] for e in progress}
    seconds = times[-1] - times[0]
    assert len(downloads) <= 5 * seconds + 1


@_POSIX
def test_a_stop_while_downloading_loses_nothing(machine: Machine) -> None:
    machine.hub.repositories[REPO] = repository(rows=20_000)
    catalogue(machine.home / "mine.toml", machine.hub)
    machine.hub.trouble(GRAPH, "slow", times=1)
    served = machine.serve()
    try:
        served.listening()
        _until(lambda: machine.hub.sent[GRAPH] > 500_000)
        served.signal(signal.SIGTERM)
        assert served.exit_code() == 0
    finally:
        served.close()
    machine.run("models", "pull", "tiny-hub")
    # What had arrived at the stop, but for what was on its way.
    size = len(machine.hub.repositories[REPO][GRAPH])
    assert machine.hub.sent[GRAPH] < size + 400_000
    assert machine.files() == []


def _until(holds: object, seconds: float = 20.0) -> None:
    assert callable(holds)
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("trouble", "code", "words"),
    [
        ({"kind": "status", "status": 404}, "download_not_found", "HTTP 404"),
        ({"kind": "stall"}, "download_stalled", "for 3 s (--stall-timeout)"),
    ],
)
def test_a_server_that_cannot_fetch_says_so_and_ends(
    machine: Machine, trouble: dict[str, object], code: str, words: str
) -> None:
    machine.hub.trouble(GRAPH, **trouble)
    done = machine.start("serve", "--port", "0", "--model", "tiny-hub", "--ready-fd", "1")
    out, err = done.communicate(timeout=30)
    assert done.returncode == 10
    assert words in err
    last = checked(out.splitlines()[-1])
    assert (last["event"], last["code"], last["exit_code"]) == ("error", code, 10)


def test_what_cannot_be_fetched_never_binds(machine: Machine) -> None:
    for flags, code in (
        (["--model", "nonsense"], 2),
        (["--model", "codebert-base"], 10),
        (["--model", "embeddinggemma"], 10),
        (["--model", "tiny-hub", "--precision", "int8"], 2),
    ):
        _, err = machine.run("serve", "--port", "0", *flags, code=code)
        assert "Listening" not in err
    assert machine.hub.requests == []


@_POSIX
@pytest.mark.timeout(300)
def test_killed_at_twenty_moments_the_next_pull_finishes(machine: Machine) -> None:
    """Wherever it is killed, nothing broken is ever in its place, and nothing is left behind."""
    machine.hub.repositories[REPO] = repository(rows=8_000)
    catalogue(machine.home / "mine.toml", machine.hub)
    dice = random.Random(20)  # noqa: S311 - moments, not secrets
    killed = resumed = 0
    for _ in range(20):
        machine.hub.trouble(GRAPH, "slow", times=1)
        process = machine.start("models", "pull", "tiny-hub")
        assert process.stderr is not None
        while "Fetching" not in (line := process.stderr.readline()):
            assert line, "it ended early"
        time.sleep(dice.uniform(0, 0.8))
        process.kill()
        process.communicate(timeout=10)
        killed += process.returncode == -signal.SIGKILL
        if machine.final.exists():  # whole, or not at all
            machine.run("models", "verify", "tiny-hub")
        else:
            _, err = machine.run("models", "path", "tiny-hub", code=3)
            assert "models pull tiny-hub" in err
        machine.hub.troubles.clear()
        machine.hub.requests.clear()
        machine.run("models", "pull", "tiny-hub")
        resumed += any(r.headers.get("Range") for r in machine.hub.requests)
        machine.run("models", "verify", "tiny-hub")
        assert machine.files() == []
        shutil.rmtree(machine.final)
    assert killed >= 10
    assert resumed >= 5


def test_two_processes_fetch_it_once(machine: Machine) -> None:
    machine.hub.repositories[REPO] = repository(rows=20_000)
    catalogue(machine.home / "mine.toml", machine.hub)
    machine.hub.trouble(GRAPH, "slow")
    both = [machine.start("models", "pull", "tiny-hub") for _ in range(2)]
    said = [one.communicate(timeout=60)[1] for one in both]
    assert [one.returncode for one in both] == [0, 0]
    assert machine.hub.count("HEAD", f"resolve/{REVISION}/{GRAPH}") == 1
    assert machine.hub.sent[GRAPH] == len(machine.hub.repositories[REPO][GRAPH])
    pids = {str(one.pid) for one in both}
    # None waits where one was done before the other began; who holds a lock is written just after
    # it is taken, and of the one-file form the outer process is known here.
    waited = re.findall(r"being fetched by (?:process (\d+)|another process): wait", "".join(said))
    assert len(waited) <= 1
    if len(machine.exe) > 1:
        assert set(waited) <= {"", *pids}
    assert machine.files() == []


@_POSIX
def test_the_lock_of_the_dead_holds_nobody(machine: Machine) -> None:
    machine.hub.trouble(GRAPH, "stall", times=1)
    process = machine.start("models", "pull", "tiny-hub")
    # Not the first request: a kill before the storage is asked would leave the stall to the second.
    _until(lambda: machine.hub.troubles[GRAPH][0].times == 0)
    process.kill()
    process.communicate(timeout=10)
    assert list((machine.final.parent / ".partial").glob("*.lock"))
    machine.run("models", "pull", "tiny-hub")
    assert machine.files() == []


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize("how", ["--offline", "HF_HUB_OFFLINE"])
def test_offline_opens_no_connection(machine: Machine, how: str, tmp_path: Path) -> None:
    flags = ["--offline"] if how == "--offline" else []
    if not flags:
        machine.more["HF_HUB_OFFLINE"] = "1"
    trace = tmp_path / "trace"
    program = ["strace", "-f", "-qq", "-e", "trace=network", "-o", str(trace), *machine.exe]
    offline = Machine(program, machine.hub, tmp_path / "other", machine.more)
    for command, code in (
        (["models", "pull", "tiny-hub"], 10),
        (["embed", "--model", "tiny-hub", "hello"], 10),
    ):
        _, err = offline.run(*command, *flags, code=code)
        assert "Missing: config.json, tokenizer.json, onnx/model.onnx" in err
        calls = trace.read_text()
        assert not re.search(r"sin_addr|sin6_addr", calls), calls
    # The same, of a server: only what it listens on.
    process = offline.start("serve", "--port", "0", "--model", "tiny-hub", *flags)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 10
    reached = [
        line for line in trace.read_text().splitlines() if re.search(r"sin_addr|sin6_addr", line)
    ]
    assert all(re.search(r"\b(bind|getsockname|setsockopt)\(", line) for line in reached), reached
    assert machine.hub.requests == []


@dataclass
class Proxy:
    url: str
    asked: list[str]


@contextmanager
def proxy(refuse: bool = False) -> Iterator[Proxy]:
    """A forward proxy for http:// and, by CONNECT, https://, as small as can be."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Say nothing."""

        def _forward(self) -> None:
            asked.append(f"{self.command} {self.path}")
            parts = urlsplit(self.path)
            with closing(HTTPConnection(parts.hostname or "", parts.port)) as connection:
                connection.request(self.command, parts.path)
                reply = connection.getresponse()
                self.send_response(reply.status)
                for key, value in reply.getheaders():
                    self.send_header(key, value)
                self.end_headers()
                self.wfile.write(reply.read())

        do_GET = do_HEAD = _forward  # noqa: N815 - http.server's names

        def do_CONNECT(self) -> None:
            asked.append(f"CONNECT {self.path}")
            if refuse:
                self.send_error(407, "Proxy Authentication Required")
                return
            host, _, port = self.path.partition(":")
            there = create_connection((host, int(port)))
            self.send_response(200)
            self.end_headers()

            def pump(source: object, target: object) -> None:
                try:
                    while data := source.recv(65536):  # type: ignore[attr-defined]
                        target.sendall(data)  # type: ignore[attr-defined]
                except OSError:
                    return

            thread = threading.Thread(target=pump, args=(there, self.connection), daemon=True)
            thread.start()
            pump(self.connection, there)
            there.close()
            self.close_connection = True

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield Proxy(f"http://127.0.0.1:{server.server_port}", asked)
    finally:
        server.shutdown()
        server.server_close()


def test_a_proxy_is_used_unless_the_host_is_excepted(machine: Machine) -> None:
    with proxy() as between:
        machine.more["HTTP_PROXY"] = between.url
        machine.run("models", "pull", "tiny-hub")
        assert any(f"/resolve/{REVISION}/{GRAPH}" in one for one in between.asked)
        between.asked.clear()
        shutil.rmtree(machine.final)
        machine.more["NO_PROXY"] = "127.0.0.1"
        machine.run("models", "pull", "tiny-hub")
        assert between.asked == []


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A key and a certificate that it has signed itself, for 127.0.0.1, in one file."""
    file = tmp_path / "hub.pem"
    key = tmp_path / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-keyout", str(key), "-out", str(file), "-subj", "/CN=127.0.0.1"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    (tmp_path / "both.pem").write_text(key.read_text() + file.read_text())
    return file


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_a_private_authority_and_a_proxy_before_it(
    exe: list[str], certificate: Path, tmp_path: Path
) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate.with_name("both.pem"))
    with running(tls) as hub, proxy() as between, proxy(refuse=True) as closed:
        hub.repositories[REPO] = repository()
        machine = Machine(exe, hub, tmp_path / "home")
        _, err = machine.run("models", "pull", "tiny-hub", code=10)
        assert "is not trusted" in err
        assert "SSL_CERT_FILE" in err
        machine.more["SSL_CERT_FILE"] = str(certificate)
        machine.run("models", "pull", "tiny-hub")
        shutil.rmtree(machine.final)
        machine.more["HTTPS_PROXY"] = closed.url
        _, err = machine.run("models", "pull", "tiny-hub", code=10)
        assert "The proxy refuses to connect" in err
        machine.more["HTTPS_PROXY"] = between.url
        machine.run("models", "pull", "tiny-hub")
        assert all(one.startswith("CONNECT 127.0.0.1:") for one in between.asked)
        assert between.asked


@contextmanager
def _mounted(place: Path, *options: str) -> Iterator[None]:
    place.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", *options, "tmpfs", str(place)]
    if subprocess.run(command, capture_output=True, timeout=20, check=False).returncode:
        pytest.skip("this machine lets nobody mount a tmpfs")
    try:
        yield
    finally:
        subprocess.run(["umount", str(place)], check=True, timeout=20)


@pytest.mark.skipif(not _IS_ROOT or sys.platform != "linux", reason="only root can mount a tmpfs")
def test_a_full_disk_is_told_and_gone_on_from(machine: Machine) -> None:
    machine.hub.repositories[REPO] = repository(rows=20_000)  # 2.6 MB
    catalogue(machine.home / "mine.toml", machine.hub)
    with _mounted(machine.data, "-o", "size=24m"):
        filler = machine.data / "filler"
        filler.write_bytes(bytes(10 * 2**20))
        _, err = machine.run("models", "pull", "tiny-hub", code=10)
        assert "MB free; the download needs" in err
        assert machine.hub.count("GET", GRAPH) == 0
        filler.unlink()
        # It fills up on the way.
        machine.hub.trouble(GRAPH, "slow", times=1)
        process = machine.start("models", "pull", "tiny-hub")
        _until(lambda: machine.hub.sent[GRAPH] > 100_000)
        _fill(filler)
        _, err = process.communicate(timeout=30)
        assert (process.returncode, "is full" in err) == (10, True), err
        filler.unlink()
        machine.run("models", "pull", "tiny-hub")
        assert machine.files() == []


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        while True:
            try:
                file.write(bytes(2**16))
            except OSError:
                return


@pytest.mark.skipif(not _IS_ROOT or sys.platform != "linux", reason="only root can mount a tmpfs")
def test_a_disk_that_is_read_only_is_named(machine: Machine) -> None:
    with _mounted(machine.data, "-o", "ro"):
        _, err = machine.run("models", "pull", "tiny-hub", code=10)
    assert f"{machine.data / 'models'} cannot be written" in err
    assert "--model-dir" in err


def test_the_hub_itself_works(hub: Hub) -> None:
    """So that a test which finds no request does not find none for another reason."""
    url = f"{hub.url}/{REPO}/resolve/{REVISION}/{GRAPH}"
    assert urlopen(url, timeout=10).read() == hub.repositories[REPO][GRAPH]  # noqa: S310
