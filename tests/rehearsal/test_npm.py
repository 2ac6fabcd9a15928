"""npm's packages, made from the assets of `nox -s package`, installed by real npm and run by Node.

CORTEX_EMBED_RELEASE names another directory than dist/release. The registry is a small one on
loopback; only the TypeScript compiler comes from npm's own, by its lock.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

import targets
from cortex_embed import __version__
from release import npm
from smoke import TEXTS
from tests.e2e.process import environment
from tests.rehearsal.npm_registry import Registry, serving
from tests.release.npm_project import START, Project, end, ended, gone, line_of, write_executable

ROOT = Path(__file__).resolve().parents[2]
RELEASE = Path(os.environ.get("CORTEX_EMBED_RELEASE", ROOT / "dist" / "release"))
TABLE = targets.load()
HERE = targets.here(TABLE)
JS = Path(__file__).parent / "js"


@pytest.fixture(scope="module")
def tarballs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """This machine's package, and the wrapper."""
    return npm.make(TABLE, [HERE], RELEASE, tmp_path_factory.mktemp("npm"))


@pytest.fixture(scope="module")
def registry(tarballs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """All packages, those of other platforms without an executable."""
    root = tmp_path_factory.mktemp("others")
    with serving() as registry:
        registry.add(tarballs)
        for target in TABLE.targets:
            if target != HERE:
                directory = root / target.name
                directory.mkdir()
                manifest = npm.platform_manifest(TABLE, target, __version__)
                text = json.dumps(manifest)
                (directory / "package.json").write_text(text, encoding="utf-8")
                registry.add([npm.pack(directory, root)])
        yield registry


def new_project(root: Path) -> Project:
    project = Project(root / "project", root / "home")
    project.root.mkdir()
    project.home.mkdir()
    (project.root / "package.json").write_text('{"private": true}', encoding="utf-8")
    return project


def install(project: Project, registry: str, *packages: str) -> None:
    quiet = ("--no-audit", "--no-fund", "--no-update-notifier", "--loglevel", "error")
    subprocess.run(
        ["npm", "install", *quiet, "--registry", registry, *packages],
        cwd=project.root, env=environment(project.home), check=True, timeout=300,
    )  # fmt: skip


@pytest.fixture(scope="module", params=["registry", "tarballs"])
def project(
    request: pytest.FixtureRequest, tarballs: list[Path], tmp_path_factory: pytest.TempPathFactory
) -> Project:
    """A project with the wrapper installed: from a registry, or from the files."""
    project = new_project(tmp_path_factory.mktemp(f"from-{request.param}"))
    if request.param == "registry":
        registry: Registry = request.getfixturevalue("registry")
        registry.asked.clear()
        install(project, registry.url, "cortex-embed")
    else:
        with serving() as empty:
            install(project, empty.url, *map(str, tarballs))
            assert empty.downloaded == set()
    return project


def test_only_this_platforms_package_is_installed(project: Project) -> None:
    scope = project.root / "node_modules" / npm.SCOPE
    assert [path.name for path in scope.iterdir()] == [HERE.name]
    assert os.access(project.exe, os.X_OK)
    for name in npm.LICENCES:
        assert (scope / HERE.name / name).stat().st_size > 0


def test_only_this_platforms_package_is_downloaded(
    registry: Registry, tmp_path: Path, tarballs: list[Path]
) -> None:
    registry.asked.clear()
    install(new_project(tmp_path), registry.url, "cortex-embed")
    assert registry.downloaded == {path.name for path in tarballs}
    for target in TABLE.targets:
        assert npm.package_name(target) in registry.asked


def test_npx_runs_it(project: Project) -> None:
    npx = ["npx", "--no-install", "cortex-embed"]
    status, out, err = ended(project.popen([*npx, "--version"]))
    assert (status, out) == (0, f"cortex-embed {__version__}\n"), err
    status, _, err = ended(project.popen([*npx, "--nope"]))
    assert status == 2
    assert "unrecognized arguments: --nope" in err


@pytest.mark.parametrize("how", ["import", "require"])
def test_vectors_are_those_of_the_executable(project: Project, how: str) -> None:
    code = START + (
        """const { embeddings } = await server.embed(JSON.parse(process.argv[2]));
        await server.stop();
        const pids = [server.pid, server.child.pid];
        console.log(JSON.stringify({ embeddings, pids, code: server.child.exitCode }));"""
    )
    if how == "require":
        there = json.dumps(str(project.root / "package.json"))
        require = f'require("node:module").createRequire({there})("cortex-embed")'
        code = code.replace(
            'import { start } from "cortex-embed"', f"const {{ start }} = {require}"
        )
        command = ["node", "--input-type=commonjs", "-e", f"(async () => {{ {code} }})()", "--"]
        status, out, err = ended(project.popen([*command, "[]", json.dumps(TEXTS)]))
        assert status == 0, err
        said = json.loads(out)
    else:
        said = project.said(code, "[]", json.dumps(TEXTS))
    direct = subprocess.run(
        [project.exe, "embed", *TEXTS], env=environment(project.home), capture_output=True,
        text=True, check=True, timeout=60,
    )  # fmt: skip
    lines = direct.stdout.splitlines()
    assert said["embeddings"] == [json.loads(line)["embedding"] for line in lines]
    assert said["code"] == 0
    assert gone(*said["pids"])


def test_a_killed_host_leaves_nothing(project: Project) -> None:
    wait = "console.log(JSON.stringify(server.child.pid)); setInterval(() => 0, 1000);"
    host = project.node(START + wait, "[]")
    try:
        outer = psutil.Process(line_of(host))
        pids = [outer.pid, *(child.pid for child in outer.children(recursive=True))]
        assert len(pids) == 2
    finally:
        end(host)
    assert gone(*pids)


def test_several_starts_at_once(project: Project) -> None:
    said = project.said(
        """import { start } from "cortex-embed";
        const servers = await Promise.all([1, 2, 3].map(() => start({ stderr: "ignore" })));
        const replies = await Promise.all(servers.map((server) => server.embed(["hello"])));
        await Promise.all(servers.map((server) => server.stop()));
        console.log(JSON.stringify({ pids: servers.map((server) => server.pid),
          vectors: replies.map((reply) => reply.embeddings[0]) }));"""
    )
    assert said["vectors"][0] == said["vectors"][1] == said["vectors"][2]
    assert len(set(said["pids"])) == 3
    assert gone(*said["pids"])


def test_a_wrong_flag_is_told_in_the_servers_words(project: Project) -> None:
    message = project.refusal('await start({ args: ["--threads", "x"], stderr: "ignore" })')
    assert "--threads: 'x' must be a whole number." in message


def test_an_executable_that_does_not_end_is_ended(project: Project, tmp_path: Path) -> None:
    deaf = write_executable(tmp_path / "deaf", 'echo $$ > "$HOME/pid"; exec sleep 60')
    options = f"{{ binary: {json.dumps(str(deaf))}, timeout: 200 }}"
    assert "no sign of life" in project.refusal(f"await start({options})")
    assert gone(int((project.home / "pid").read_text()))


def test_without_optional_dependencies_it_says_how(registry: Registry, tmp_path: Path) -> None:
    project = new_project(tmp_path)
    install(project, registry.url, "--omit=optional", "cortex-embed")
    message = project.refusal("binaryPath()")
    assert f"npm install {npm.package_name(HERE)}@{__version__}" in message
    install(project, registry.url, f"{npm.package_name(HERE)}@{__version__}")  # as it says
    status, out, _ = ended(project.popen(["npx", "--no-install", "cortex-embed", "--version"]))
    assert (status, out) == (0, f"cortex-embed {__version__}\n")


@pytest.mark.skipif(HERE.os != "linux", reason="libc is a choice on Linux only")
def test_musl_gets_no_package_of_glibcs(registry: Registry, tmp_path: Path) -> None:
    project = new_project(tmp_path)
    registry.asked.clear()
    install(project, registry.url, "--libc=musl", "cortex-embed")
    assert registry.downloaded == {npm.tarball("cortex-embed", __version__)}


def test_types_hold_for_import_and_require(project: Project, tmp_path: Path) -> None:
    """Needs npm's own registry: the compiler is in js/package-lock.json."""
    host = tmp_path / "host"
    shutil.copytree(JS, host, ignore=shutil.ignore_patterns("node_modules"))
    subprocess.run(
        ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel", "error"],
        cwd=host, env=environment(project.home), check=True, timeout=300,
    )  # fmt: skip
    modules = host / "node_modules"
    shutil.copytree(project.root / "node_modules" / "cortex-embed", modules / "cortex-embed")
    done = subprocess.run(
        [modules / ".bin" / "tsc", "--project", "tsconfig.json"],
        cwd=host, env=environment(project.home), capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
