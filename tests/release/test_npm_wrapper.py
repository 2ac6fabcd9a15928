"""npm's wrapper in a real Node, with this source in the place of the platform's executable."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

import targets
from cortex_embed.models.artifact import Artifact
from release import npm
from tests.e2e.process import TIMEOUT, Client, environment
from tests.release.npm_project import (
    START,
    Project,
    end,
    ended,
    gone,
    line_of,
    package,
    write_executable,
)

pytestmark = [
    pytest.mark.skipif(
        shutil.which("node") is None, reason="Node.js is not installed: `node` runs the wrapper"
    ),
    pytest.mark.skipif(
        sys.platform == "win32", reason="Windows starts no script in the place of an executable"
    ),
]


def make_project(root: Path, home: Path) -> Project:
    table = targets.load()
    modules = root / "node_modules"
    shutil.copytree(npm.SOURCES, modules / "cortex-embed")
    manifest = json.dumps(npm.wrapper_manifest(table, "1.2.3"))
    (modules / "cortex-embed" / "package.json").write_text(manifest, encoding="utf-8")
    project = Project(root, home)
    write_executable(project.exe, f'exec {shlex.quote(sys.executable)} -m cortex_embed "$@"')
    return project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "home").mkdir()
    return make_project(tmp_path / "project", tmp_path / "home")


def model_of(artifact: Artifact) -> str:
    return json.dumps(["--model", str(artifact.directory)])


def test_it_starts_embeds_and_stops(project: Project, tiny_cls: Artifact) -> None:
    said = project.said(
        START
        + """
        const texts = ["hello world", "word ".repeat(200)];
        const query = await server.embed(["hello world"], { mode: "query" });
        const reply = await server.embed(texts);
        const refused = await server.embed(["a", ""]).catch(({ message, status, code, param }) =>
          ({ message, status, code, param }));
        await Promise.all([server.stop(), server.stop()]);
        const late = await server.embed(["a"]).catch((why) => why.message);
        const { child, ...ready } = server;
        console.log(JSON.stringify({ query, reply, refused, late, ready, code: child.exitCode }));
        """,
        model_of(tiny_cls),
    )
    command = [str(project.exe), "embed", "--model", str(tiny_cls.directory)]
    direct = subprocess.run(
        [*command, "hello world"], env=environment(project.home), capture_output=True,
        text=True, check=True, timeout=TIMEOUT,
    )  # fmt: skip
    assert said["reply"]["embeddings"][0] == json.loads(direct.stdout)["embedding"]
    assert said["query"]["embeddings"][0] != said["reply"]["embeddings"][0]  # it has a prefix
    assert [cut["index"] for cut in said["reply"]["truncated"]] == [1]
    assert said["refused"]["status"] == 400
    assert said["refused"]["param"] == "texts[1]"
    assert said["refused"]["code"] == "invalid_text"
    assert "texts[1]" in said["refused"]["message"]
    assert said["code"] == 0
    assert "has ended" in said["late"]
    ready = said["ready"]
    assert (ready["model"], ready["dimensions"]) == (tiny_cls.spec.id, tiny_cls.spec.dimensions)
    assert ready["url"] == f"http://127.0.0.1:{ready['port']}"
    assert ready["token"]
    assert ready["fingerprint"]
    assert gone(ready["pid"])


def test_import_and_require_give_the_same(project: Project) -> None:
    said = project.said(
        """import * as imported from "cortex-embed";
        import { createRequire } from "node:module";
        const required = createRequire(import.meta.url)("cortex-embed");
        const same = ["binaryPath", "start"].map((name) => imported[name] === required[name]);
        console.log(JSON.stringify({ same, names: Object.keys(required) }));"""
    )
    assert said == {"same": [True, True], "names": ["binaryPath", "start"]}


def test_the_program_may_end_without_a_stop(project: Project, tiny_mean: Artifact) -> None:
    pid = project.said(START + "console.log(server.pid)", model_of(tiny_mean))
    assert gone(pid)


def test_a_killed_program_leaves_nothing(project: Project, tiny_mean: Artifact) -> None:
    code = (
        START + "console.log(JSON.stringify([server.pid, server.child.pid])); setInterval(() => 0)"
    )
    host = project.node(code + ", 1000", model_of(tiny_mean))
    try:
        pids = line_of(host)
        assert all(map(psutil.pid_exists, pids))
    finally:
        end(host)
    assert gone(*pids)


def test_several_at_once(project: Project, tiny_mean: Artifact) -> None:
    said = project.said(
        """import { start } from "cortex-embed";
        const options = { args: JSON.parse(process.argv[1]), stderr: "ignore" };
        const servers = await Promise.all([1, 2, 3].map(() => start(options)));
        const replies = await Promise.all(servers.map((server) => server.embed(["hello"])));
        await Promise.all(servers.map((server) => server.stop()));
        const of = ({ port, token, pid }) => ({ port, token, pid });
        console.log(JSON.stringify({ servers: servers.map(of),
          vectors: replies.map((reply) => reply.embeddings[0]) }));""",
        model_of(tiny_mean),
    )
    for key in ("port", "token", "pid"):
        assert len({server[key] for server in said["servers"]}) == 3
    assert said["vectors"][0] == said["vectors"][1] == said["vectors"][2]
    assert gone(*(server["pid"] for server in said["servers"]))


def test_a_start_that_fails_says_what_the_server_says(project: Project, tmp_path: Path) -> None:
    said = project.said(
        """import { start } from "cortex-embed";
        const why = (error) => [error.message, error.code, error.exitCode];
        const failing = [["--nope"], ["--model", process.argv[1]]];
        console.log(JSON.stringify(await Promise.all(failing.map((args) =>
          start({ args, stderr: "ignore" }).catch(why)))));""",
        str(tmp_path / "no-model"),
    )
    (flag, _, two), (model, code, three) = said
    assert "unrecognized arguments: --nope" in flag
    assert two == 2
    assert str(tmp_path / "no-model") in model
    assert (code, three) == ("model_file", 3)


def test_its_log_is_passed_on_or_not(project: Project, tiny_mean: Artifact) -> None:
    code = START.replace('"ignore"', "process.argv[2]") + "await server.stop();"
    for wish, passed_on in (("inherit", True), ("ignore", False)):
        status, _, err = ended(project.node(code, model_of(tiny_mean), wish))
        assert status == 0
        assert ("Listening on" in err) == passed_on


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("echo hello", "does not speak the sidecar protocol 1; it wrote: hello"),
        ("""echo '{"event": "ready", "v": 2}'""", "does not speak the sidecar protocol 1"),
        ("echo 'too old a system' >&2; exit 7", "ended with exit code 7: too old a system"),
        ("kill -9 $$", "ended with SIGKILL: no message"),
    ],
)
def test_what_is_no_server(project: Project, tmp_path: Path, script: str, says: str) -> None:
    other = str(write_executable(tmp_path / "other", script))
    message = project.refusal(f"await start({{ binary: {json.dumps(other)} }})")
    assert says in message


def test_a_start_without_a_sign_of_life_is_given_up(project: Project, tmp_path: Path) -> None:
    silent = write_executable(tmp_path / "silent", 'echo $$ > "$HOME/pid"; cat > /dev/null')
    options = f"{{ binary: {json.dumps(str(silent))}, timeout: 500 }}"
    assert "no sign of life for 500 ms" in project.refusal(f"await start({options})")
    assert gone(int((project.home / "pid").read_text()))


def test_an_abort_ends_a_start_and_a_server(project: Project, tiny_mean: Artifact) -> None:
    said = project.said(
        """import { start } from "cortex-embed";
        import { once } from "node:events";
        const args = JSON.parse(process.argv[1]);
        const names = [];
        const caught = ({ name }) => names.push(name);
        await start({ args, signal: AbortSignal.abort() }).catch(caught);
        await start({ args, signal: AbortSignal.timeout(100), stderr: "ignore" }).catch(caught);
        const controller = new AbortController();
        const server = await start({ args, signal: controller.signal, stderr: "ignore" });
        controller.abort();
        const [code] = await once(server.child, "exit");
        console.log(JSON.stringify({ names, code }));""",
        model_of(tiny_mean),
    )
    assert said == {"names": ["AbortError", "TimeoutError"], "code": 0}


def test_a_binary_of_ones_own(project: Project, tmp_path: Path) -> None:
    own = write_executable(tmp_path / "own", "echo own")
    show = 'import { binaryPath } from "cortex-embed"; console.log(JSON.stringify(binaryPath()))'
    assert project.said(show) == str(project.exe)
    assert project.said(show, CORTEX_EMBED_BINARY=str(own)) == str(own)
    message = project.refusal("binaryPath()", CORTEX_EMBED_BINARY=str(tmp_path))
    assert message.startswith(f"CORTEX_EMBED_BINARY is {tmp_path}, which is no file.")
    message = project.refusal('await start({ binary: "/nowhere/cortex-embed" })')
    assert "/nowhere/cortex-embed cannot be started" in message


def pretend(platform: str, arch: str) -> str:
    return f"""Object.defineProperty(process, "platform", {{ value: "{platform}" }});
        Object.defineProperty(process, "arch", {{ value: "{arch}" }});"""


def test_every_target_of_the_table_is_found(project: Project) -> None:
    for target in targets.load().targets:
        (platform,) = npm.platform_manifest(targets.load(), target, "1.2.3")["os"]
        installed = project.root / "node_modules" / npm.package_name(target) / "bin" / target.exe
        write_executable(installed, "")
        found = project.said(
            f"""import {{ binaryPath }} from "cortex-embed";
            {pretend(platform, target.arch)}
            console.log(JSON.stringify(binaryPath()));"""
        )
        assert found == str(installed)


def test_a_platform_without_a_package_is_told_which_there_are(project: Project) -> None:
    message = project.refusal(f"{pretend('freebsd', 'x64')} binaryPath()")
    assert "no package for freebsd x64" in message
    for target in targets.load().targets:
        assert npm.package_name(target) in message
    assert "CORTEX_EMBED_BINARY=/path" in message


def test_optional_dependencies_left_out(project: Project) -> None:
    shutil.rmtree(project.root / "node_modules" / package())
    message = project.refusal("binaryPath()")
    assert package() in message
    assert "--omit=optional" in message
    assert f"npm install {package()}@1.2.3" in message
    assert "CORTEX_EMBED_BINARY=/path" in message


def test_node_modules_of_another_platform(project: Project) -> None:
    shutil.rmtree(project.root / "node_modules" / package())
    other = project.root / "node_modules" / "@cortex-embed" / "windows-x64"
    other.mkdir(parents=True)
    (other / "package.json").write_text("{}", encoding="utf-8")
    message = project.refusal("binaryPath()")
    assert "made on another platform (it has @cortex-embed/windows-x64)" in message


def test_musl_is_named(project: Project) -> None:
    shutil.rmtree(project.root / "node_modules" / package(), ignore_errors=True)
    musl = "process.report.getReport = () => ({ header: {} });"
    message = project.refusal(f"{pretend('linux', 'x64')} {musl} binaryPath()")
    assert "needs glibc, and this system has musl" in message
    assert "CORTEX_EMBED_BINARY=/path" in message


def test_electrons_archive_is_left_for_what_lies_beside_it(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    project = make_project(tmp_path / "resources" / "app.asar", tmp_path / "home")
    found = project.said(
        'import { binaryPath } from "cortex-embed"; console.log(JSON.stringify(binaryPath()))'
    )
    unpacked = tmp_path / "resources" / "app.asar.unpacked"
    assert found == str(unpacked / "node_modules" / package() / "bin" / "cortex-embed")


def test_the_command_is_the_program(project: Project) -> None:
    status, out, _ = ended(project.cli("--version"))
    assert (status, out.split()[0]) == (0, "cortex-embed")
    status, _, err = ended(project.cli("--nope"))
    assert status == 2
    assert "unrecognized arguments: --nope" in err


def test_the_command_without_a_package(project: Project) -> None:
    status, _, err = ended(project.cli("--version", CORTEX_EMBED_BINARY="/nowhere"))
    assert status == 1
    assert err.startswith("cortex-embed: error: CORTEX_EMBED_BINARY is /nowhere")


def served(project: Project, artifact: Artifact, *command: str) -> tuple[Any, Any]:
    """The wrapper's process, with events on stdout, and the ready event."""
    flags = ["--model", str(artifact.directory), "--port", "0", "--ready-fd", "1"]
    process = project.cli("serve", *flags, *command)
    while (event := line_of(process))["event"] != "ready":
        assert event["event"] != "error"
    return process, event


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_command_reaches_the_program(
    project: Project, tiny_mean: Artifact, number: signal.Signals
) -> None:
    process, ready = served(project, tiny_mean)
    try:
        process.send_signal(number)
        assert process.wait(TIMEOUT) == 0
    finally:
        end(process)
    assert gone(ready["pid"])


def test_a_killed_command_leaves_nothing(project: Project, tiny_mean: Artifact) -> None:
    process, ready = served(project, tiny_mean)
    assert psutil.pid_exists(ready["pid"])
    end(process)
    assert gone(ready["pid"])


def test_the_programs_end_by_a_signal_is_the_commands(
    project: Project, tiny_mean: Artifact
) -> None:
    process, ready = served(project, tiny_mean)
    try:
        os.kill(ready["pid"], signal.SIGKILL)
        assert process.wait(TIMEOUT) == -signal.SIGKILL
    finally:
        end(process)


# As on a busy machine: what is passed on comes noticeably after what the terminal sends.
SLOW = """const { on } = process;
process.on = (name, then) => on.call(process, name, () => setTimeout(then, 50));"""
TERMINAL = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"


def test_ctrl_c_on_a_terminal_comes_once(project: Project, tiny_mean: Artifact) -> None:
    """The terminal sends it to wrapper and program; a second one would cut the drain short."""
    wrapper = project.root / "node_modules" / "cortex-embed" / "bin" / "cortex-embed.js"
    ready_file = project.home / "ready.json"
    slow = project.home / "slow.js"
    slow.write_text(SLOW, encoding="utf-8")
    command = ["node", "--require", str(slow), str(wrapper), "serve", "--port", "0"]
    command += ["--model", str(tiny_mean.directory), "--ready-file", str(ready_file)]
    process = project.popen([sys.executable, "-c", TERMINAL, *command], stdin=subprocess.PIPE)
    try:
        deadline = time.monotonic() + TIMEOUT
        while not ready_file.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        ready = json.loads(ready_file.read_text(encoding="utf-8"))
        with Client(ready["port"]).socket() as waiting:
            waiting.sendall(
                b"POST /embed HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                b"Content-Length: 20\r\n\r\n{"
            )
            time.sleep(0.2)  # so that it is in flight
            assert process.stdin is not None
            process.stdin.write("\x03")
            process.stdin.flush()
            time.sleep(0.7)
            assert process.poll() is None  # it drains
            assert psutil.pid_exists(ready["pid"])
            waiting.sendall(b'"texts": ["hello"]}')
            assert waiting.recv(65536).startswith(b"HTTP/1.1 200")
        assert process.wait(TIMEOUT) == 0
    finally:
        end(process)
    assert gone(ready["pid"])
