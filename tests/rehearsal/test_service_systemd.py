"""`cortex-embed service` under a real systemd: install, ready, vectors, restart, drain, removal.

It boots one in namespaces of its own (systemd_box.sh), for the system and for a user who lingers.
The program is the one file that CORTEX_EMBED_EXE names, or dist/cortex-embed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
BOX = Path(__file__).with_name("systemd_box.sh")
UNIFIED = (Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup"))
EXE = Path(os.environ.get("CORTEX_EMBED_EXE", ROOT / "dist" / "cortex-embed"))
KEY = "a-key-of-the-rehearsal"
BODY = json.dumps({"texts": ["hello world"]})


def lacking() -> str:
    """Why no systemd can be booted here; empty if one can be tried."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "needs root on Linux, for namespaces"
    tools = ("unshare", "nsenter", "pivot_root", "ip", "runuser", "useradd", "curl", "dbus-daemon")
    missing = [name for name in tools if shutil.which(name) is None]
    missing += [] if Path("/lib/systemd/systemd").exists() else ["systemd"]
    return f"not installed: {', '.join(missing)}" if missing else ""


pytestmark = [
    pytest.mark.skipif(bool(lacking()), reason=lacking() or "it can"),
    pytest.mark.timeout(300),
]


@dataclass(frozen=True)
class Box:
    """Who runs commands in it: root, or `user`."""

    pid: int
    user: str = ""

    def run(self, script: str, *, code: int | None = 0) -> str:
        """What a shell script says, stderr included."""
        enter = ["nsenter", "-t", str(self.pid), "-p", "-m", "-u", "-i", "-n", "-C", "-r", "-w"]
        plain = ["env", "-i", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
        who = ["runuser", "-u", self.user, "--"] if self.user else []
        if self.user:
            script = f"export HOME=~{self.user} XDG_RUNTIME_DIR=/run/user/$(id -u)\ncd\n{script}"
        done = subprocess.run(
            [*enter, *plain, "LANG=C.UTF-8", *who, "bash", "-uc", script],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
        )
        assert code is None or done.returncode == code, done.stdout
        return done.stdout

    def embed(self, port: int, *headers: str) -> list[float]:
        words = " ".join(f"-H '{line}'" for line in ("Content-Type: application/json", *headers))
        said = self.run(f"curl -sf {words} -d '{BODY}' http://127.0.0.1:{port}/embed")
        (vector,) = json.loads(said)["embeddings"]
        assert vector
        return list(vector)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    if not EXE.is_file():
        pytest.fail(f"{EXE} is missing: `nox -s freeze` makes it, or set CORTEX_EMBED_EXE")
    unified = next((one for one in UNIFIED if (one / "cgroup.controllers").exists()), None)
    if unified is None:
        pytest.skip("no unified control groups here")
    directory = tmp_path_factory.mktemp("box")
    group = unified / f"cortex-embed-{os.getpid()}"
    log = directory / "log"
    place = directory / "box"
    place.mkdir()
    with log.open("w") as output:
        process = subprocess.Popen(
            [str(BOX), str(place), str(group)], stdout=output, stderr=output, start_new_session=True
        )
    try:
        box = Box(_first(process.pid, log))
        _wait(box, log)
        box.run(f"install -m 755 {EXE} /usr/local/bin/cortex-embed")
        box.run("useradd -m ann && loginctl enable-linger ann && chmod 755 /usr/local/bin")
        yield box
    finally:
        process.kill()  # and with it, by --kill-child, all that is in the box
        process.wait(10)
        _remove(group)


def _first(outer: int, log: Path) -> int:
    """The pid, out here, of process 1 in there."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        found = Path(f"/proc/{outer}/task/{outer}/children").read_text().split()
        if found and Path(f"/proc/{found[0]}/comm").read_text().strip() == "systemd":
            return int(found[0])
        time.sleep(0.1)
    pytest.skip(f"no systemd could be booted in namespaces here: {log.read_text()[-500:]}")


def _wait(box: Box, log: Path) -> None:
    said = ""
    for _ in range(60):
        said = box.run("systemctl is-system-running", code=None)
        if said.strip() in {"running", "degraded"}:
            return
        time.sleep(0.5)
    pytest.skip(f"systemd did not get up in namespaces here ({said}): {log.read_text()[-500:]}")


def _remove(group: Path) -> None:
    """A control group goes once it is empty, from the inside out."""
    for _ in range(50):
        try:
            for inner in sorted(group.rglob("*/"), reverse=True):
                inner.rmdir()
            group.rmdir()
        except OSError:
            time.sleep(0.1)
        else:
            return


@pytest.fixture(scope="module")
def ann(root: Box) -> Box:
    box = Box(root.pid, "ann")
    for _ in range(60):
        if not box.run("systemctl --user is-system-running", code=None).strip():
            time.sleep(0.2)
    return box


def test_a_users_service_from_install_to_removal(root: Box, ann: Box) -> None:
    said = ann.run("cortex-embed service install --port 9123 --api-key-file 'my keys' 2>&1", code=2)
    assert "cannot read /home/ann/my keys" in said
    ann.run(f"echo {KEY} > 'my $keys 100%' && chmod 600 my*")
    said = ann.run("cortex-embed service install --port 9123 --api-key-file './my $keys 100%'")
    assert said.startswith("Installed /home/ann/.config/systemd/user/cortex-embed.service")
    # Type=notify: when install comes back, it serves; the odd path has survived systemd's quoting.
    assert ann.embed(9123, f"Authorization: Bearer {KEY}")
    assert "401" in ann.run(
        f"curl -s -o /dev/null -w '%{{http_code}}' -d '{BODY}' http://127.0.0.1:9123/embed"
    )
    assert "active (running): Serving" in ann.run("cortex-embed service status")
    assert "is-enabled: enabled" in ann.run(
        "echo is-enabled: $(systemctl --user is-enabled cortex-embed)"
    )
    assert "a-key" not in ann.run("cat ~/.config/systemd/user/cortex-embed.service")
    assert "Stopped it and removed" in ann.run("cortex-embed service uninstall")
    assert "Nothing to remove" in ann.run("cortex-embed service uninstall")
    assert ann.run("find ~/.config/systemd -type f -o -type l") == ""
    assert ann.run("pgrep -u ann cortex-embed", code=1) == ""
    assert root.run("ls -A /tmp | grep _MEI", code=1) == ""


def test_a_killed_server_comes_back(ann: Box) -> None:
    ann.run("cortex-embed service install --port 9123")
    before = ann.embed(9123)
    ann.run("systemctl --user kill --signal=KILL cortex-embed")
    for _ in range(60):
        time.sleep(0.25)
        if "NRestarts=1\nActiveState=active" in ann.run(
            "systemctl --user show -p NRestarts -p ActiveState cortex-embed | sort -r"
        ):
            break
    assert ann.embed(9123) == before
    ann.run("cortex-embed service uninstall")


def test_a_stop_lets_requests_finish(ann: Box) -> None:
    """Of the one file's two processes only one may get the signal: the second is "at once"."""
    ann.run("cortex-embed service install --port 9123 --threads 1")
    said = ann.run(
        "python3 - > many.json <<'E'\n"
        "import json; print(json.dumps({'texts': [f'{n} ' + 'word ' * 200 for n in range(400)]}))\n"
        "E\n"
        "curl -s -o out.json -w '%{http_code}' -d @many.json http://127.0.0.1:9123/embed > code &\n"
        "sleep 1; systemctl --user stop cortex-embed; wait; cat code; echo\n"
        "systemctl --user show -p Result -p ExecMainStatus cortex-embed\n"
        "journalctl --user -u cortex-embed -n 5 -o cat"
    )
    assert said.startswith("200\n"), said
    assert "Result=success" in said
    assert "ExecMainStatus=0" in said
    assert "finishing 1 request(s)" in said
    ann.run("cortex-embed service uninstall")


def test_what_does_not_start_is_taken_back(ann: Box) -> None:
    ann.run("cortex-embed service install --port 9123")
    ann.run("systemd-run --user --unit=other python3 -m http.server --bind 127.0.0.1 9124; sleep 1")
    said = ann.run("cortex-embed service install --port 9124", code=4)
    assert "port 9124 on 127.0.0.1 is in use" in said
    assert "The service of before is back." in said
    assert ann.embed(9123)
    ann.run("cortex-embed service uninstall; systemctl --user stop other")


def test_the_systems_service_under_all_its_hardening(root: Box) -> None:
    root.run(f"mkdir '/etc/my keys' && echo {KEY} > '/etc/my keys/k' && chmod 600 '/etc/my keys/k'")
    said = root.run(
        "cortex-embed service install --system --offline --port 80 --api-key-file '/etc/my keys/k'"
    )
    assert said.startswith("Installed /etc/systemd/system/cortex-embed.service")
    assert root.embed(80, f"Authorization: Bearer {KEY}")
    status = root.run("cat /proc/$(systemctl show -p MainPID --value cortex-embed)/status")
    facts = dict(line.split(":\t", 1) for line in status.splitlines())
    assert facts["Uid"].split()[0] != "0"
    assert (facts["NoNewPrivs"], facts["Seccomp"]) == ("1", "2")
    assert int(facts["CapEff"], 16) == 1 << 10, "CAP_NET_BIND_SERVICE alone"
    root.run("cortex-embed service uninstall --system")
    root.run("cortex-embed service install --system")  # PrivateUsers=, no capability at all
    assert root.embed(8121)
    assert "OK" in root.run("systemd-analyze security --no-pager cortex-embed | tail -1")
    root.run("cortex-embed service uninstall --system")
    assert root.run("find /etc/systemd/system -name 'cortex*'") == ""


def test_without_a_manager_the_way_out_is_said(root: Box) -> None:
    said = root.run("runuser -u ann -- env -u XDG_RUNTIME_DIR cortex-embed service install", code=1)
    assert "enable-linger" in said
    said = root.run("runuser -u ann -- cortex-embed service install --system", code=1)
    assert "--system needs root" in said
