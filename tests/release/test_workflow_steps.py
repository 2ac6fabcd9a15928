"""What the workflows' shell lines do: they are run as a runner's bash runs them, in scratch places.

Tools that need a runner or a network (gh, docker, npm, PowerShell) are stand-ins that write down
what they are told.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import targets
from cortex_embed import __version__
from tests.release.workflows import ROOT, jobs, step


@pytest.fixture
def runner(tmp_path: Path) -> Any:
    """Runs a step's lines as a runner's bash does, in a scratch directory; the process."""
    if sys.platform == "win32":
        pytest.skip("bash of a runner; on Windows it is Git's, which need not be here")
    output = tmp_path / "GITHUB_OUTPUT"
    output.write_text("", encoding="utf-8")

    def run(script: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
        python = Path(sys.executable).parent
        known = {
            "PATH": f"{tmp_path / 'bin'}:{python}:/usr/bin:/bin",
            "HOME": str(tmp_path),
            "GITHUB_OUTPUT": str(output),
            "RUNNER_TEMP": str(tmp_path),
            "RUNNER_OS": "Linux",
        }
        return subprocess.run(
            # What `shell: bash` means: docs.github.com, "Workflow syntax", on custom shells.
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script],
            cwd=cwd, env=known | environment, capture_output=True, text=True,
            encoding="utf-8", timeout=60, check=False,
        )  # fmt: skip

    return run


def stand_in(directory: Path, name: str, script: str) -> None:
    directory.mkdir(exist_ok=True)
    (directory / name).write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    (directory / name).chmod(0o755)


@pytest.mark.parametrize(
    ("kind", "ref", "tag"), [("tag", "v9.9.9", "v9.9.9"), ("branch", "main", f"v{__version__}")]
)
def test_plan_writes_tag_date_and_matrix(
    kind: str, ref: str, tag: str, runner: Any, tmp_path: Path
) -> None:
    stand_in(tmp_path / "bin", "git", "echo 1700000000")
    planned = step("release", "plan", "one date for all")
    done = runner(planned["run"], ROOT, GITHUB_REF_TYPE=kind, GITHUB_REF_NAME=ref, **planned["env"])
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "GITHUB_OUTPUT").read_text(encoding="utf-8").splitlines()
    written = dict(line.split("=", 1) for line in lines)
    assert written.keys() == jobs("release")["plan"]["outputs"].keys()
    assert (written["tag"], written["epoch"]) == (tag, "1700000000")
    assert json.loads(written["matrix"]) == targets.load().matrix


def test_ci_plans_the_same_matrix(runner: Any, tmp_path: Path) -> None:
    assert runner(step("ci", "plan", "The targets")["run"], ROOT).returncode == 0
    _, _, matrix = (tmp_path / "GITHUB_OUTPUT").read_text(encoding="utf-8").partition("=")
    assert json.loads(matrix) == targets.load().matrix


def test_a_plan_that_cannot_be_made_stops_the_release(runner: Any, tmp_path: Path) -> None:
    stand_in(tmp_path / "bin", "git", "exit 128")
    planned = step("release", "plan", "one date for all")
    done = runner(
        planned["run"], ROOT, GITHUB_REF_TYPE="tag", GITHUB_REF_NAME="v1", PYTHONPATH="app"
    )
    assert done.returncode == 128
    assert (tmp_path / "GITHUB_OUTPUT").read_text(encoding="utf-8") == ""


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    """dist/parts as download-artifact leaves it: a directory for each target, with its sums."""
    for target in targets.load().targets:
        part = tmp_path / "dist" / "parts" / f"target-{target.name}"
        part.mkdir(parents=True)
        lines = []
        for name in sorted(target.assets):
            (part / name).write_bytes(name.encode())
            lines.append(f"{hashlib.sha256(name.encode()).hexdigest()}  {name}\n")
        (part / targets.SUMS).write_text("".join(lines), encoding="utf-8")
    return tmp_path / "dist" / "parts"


COLLECT = "Bring the targets together"


def test_collect_brings_all_targets_together(runner: Any, parts: Path, tmp_path: Path) -> None:
    done = runner(step("release", "collect", COLLECT)["run"], tmp_path)
    assert done.returncode == 0, done.stderr
    found = sorted(path.name for path in (tmp_path / "dist" / "release").iterdir())
    assert found == sorted(name for target in targets.load().targets for name in target.assets)
    assert list(parts.iterdir()) == []


def test_collect_refuses_what_its_sums_do_not_know(
    runner: Any, parts: Path, tmp_path: Path
) -> None:
    target = targets.load().targets[-1]
    (parts / f"target-{target.name}" / target.asset("slim")).write_bytes(b"tampered")
    done = runner(step("release", "collect", COLLECT)["run"], tmp_path)
    assert done.returncode != 0
    assert f"{target.asset('slim')}: FAILED" in done.stdout


def test_collect_refuses_two_files_of_one_name(runner: Any, parts: Path, tmp_path: Path) -> None:
    first, second = targets.load().targets[:2]
    stolen = parts / f"target-{second.name}" / first.asset("full")
    stolen.write_bytes(b"another")
    done = runner(step("release", "collect", COLLECT)["run"], tmp_path)
    assert done.returncode != 0
    assert "not empty" in done.stderr


@pytest.mark.skipif(not shutil.which("shasum"), reason="no shasum (perl) on this machine")
@pytest.mark.parametrize("damaged", [False, True])
def test_verify_checks_the_sums(damaged: bool, runner: Any, parts: Path) -> None:
    target = targets.load().targets[0]
    part = parts / f"target-{target.name}"
    if damaged:
        (part / target.asset("full")).write_bytes(b"tampered")
    done = runner(step("release", "verify", "Check the sums")["run"], part)
    assert (done.returncode != 0) == damaged, done.stdout


@pytest.mark.parametrize("kind", ["Linux", "macOS", "Windows"])
def test_verify_installs_every_form_from_a_server(kind: str, runner: Any, tmp_path: Path) -> None:
    install = tmp_path / "build" / "install"
    install.mkdir(parents=True)
    told = tmp_path / "told"
    script = f'curl -sSf "$CORTEX_EMBED_BASE_URL/SHA256SUMS" >/dev/null && echo "$*" >>{told}'
    (install / "install.sh").write_text(script, encoding="utf-8")
    stand_in(tmp_path / "bin", "powershell", script)
    (tmp_path / "dist" / "release").mkdir(parents=True)
    (tmp_path / "dist" / "release" / targets.SUMS).write_text("sums\n", encoding="utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    lines = step("release", "verify", "Install each form")["run"]
    done = runner(lines, tmp_path, PORT=port, RUNNER_OS=kind)
    assert done.returncode == 0, done.stderr
    there = tmp_path / "installed"
    if kind == "Windows":
        before = "-NoProfile -ExecutionPolicy Bypass -File build/install/install.ps1 -Dir"
        flags = {"full": "", "slim": " -Slim", "onedir": " -Onedir"}
    else:
        before, flags = "--dir", {"full": "", "slim": " --slim", "onedir": " --onedir"}
    assert told.read_text(encoding="utf-8").splitlines() == [
        f"{before} {there / form}{flag}" for form, flag in flags.items()
    ]
    # The server is gone with the step.
    with socket.socket() as knock:
        assert knock.connect_ex(("127.0.0.1", int(port))) != 0


def test_the_oldest_system_runs_both_forms_without_a_network(runner: Any, tmp_path: Path) -> None:
    # In docker's stead: what is behind the image's name, on this machine.
    stand_in(
        tmp_path / "bin", "docker",
        f'echo "$*" | head -n 1 >>{tmp_path / "told"}; '
        'while [ "$1" != image ]; do shift; done; shift; exec "$@"',
    )  # fmt: skip
    for form in ("full", "onedir"):
        where = tmp_path / "installed" / form
        where.mkdir(parents=True)
        stand_in(where, "cortex-embed", f'echo "{form}: $*"')
    lines = step("release", "verify", "oldest system")
    assert lines["if"] == "matrix.clean != ''"
    done = runner(lines["run"], tmp_path, IMAGE="image", EXE="cortex-embed")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        f"{form}: {what}"
        for form in ("full", "onedir")
        for what in ("--version", "selftest", "embed A cat sits on the mat.")
    ]
    told = (tmp_path / "told").read_text(encoding="utf-8").splitlines()
    assert all(line.startswith("run --rm --network none ") for line in told)
    broken = tmp_path / "installed" / "onedir"
    stand_in(broken, "cortex-embed", '[ "$1" != selftest ]')
    assert runner(lines["run"], tmp_path, IMAGE="image", EXE="cortex-embed").returncode != 0


@pytest.mark.parametrize("exe", sorted({target.exe for target in targets.load().targets}))
def test_smoke_is_of_both_frozen_forms(exe: str, runner: Any, tmp_path: Path) -> None:
    stand_in(tmp_path / "bin", "nox", 'echo "$*"')
    done = runner(step("release", "build", "Smoke")["run"], tmp_path, EXE=exe)
    onedir = exe.replace("embed", "embed-onedir")
    full = "dist/frozen/full"
    assert done.stdout == f"-s smoke -- --release --exe {full}/{exe} --exe {full}/onedir/{onedir}\n"


@pytest.mark.parametrize("code", [0, 1])
def test_a_version_without_notes_is_not_collected(code: int, runner: Any, tmp_path: Path) -> None:
    stand_in(tmp_path / "bin", "python", f'echo "notes by $*"; exit {code}')
    (tmp_path / "dist").mkdir()
    done = runner(step("release", "collect", "The notes")["run"], tmp_path, TAG="v1.2.3")
    assert done.returncode == code
    assert (tmp_path / "dist" / "notes.md").read_text(encoding="utf-8") == (
        "notes by -m release.notes 1.2.3\n"
    )


def test_draft_drafts(runner: Any, tmp_path: Path) -> None:
    stand_in(tmp_path / "bin", "gh", f'printf "%s\\n" "$@" >{tmp_path / "told"}')
    (tmp_path / "dist" / "release").mkdir(parents=True)
    for name in ("a.tar.gz", targets.SUMS):
        (tmp_path / "dist" / "release" / name).touch()
    lines = step("release", "draft", "Draft it")["run"]
    summary = str(tmp_path / "summary")
    assert runner(lines, tmp_path, TAG="v1.2.3", GITHUB_STEP_SUMMARY=summary).returncode == 0
    told = (tmp_path / "told").read_text(encoding="utf-8").splitlines()
    assert told[:3] == ["release", "create", "v1.2.3"]
    assert {"--draft", "--verify-tag", "dist/notes.md"} <= set(told)
    assert told[-2:] == [f"dist/release/{targets.SUMS}", "dist/release/a.tar.gz"]


def test_npm_gets_the_targets_packages_before_the_wrapper(runner: Any, tmp_path: Path) -> None:
    stand_in(tmp_path / "bin", "npm", f'echo "$*" >>{tmp_path / "told"}')
    (tmp_path / "npm").mkdir()
    names = [f"cortex-embed-{target.name}-1.2.3.tgz" for target in targets.load().targets]
    for name in (*names, "cortex-embed-1.2.3.tgz"):
        (tmp_path / "npm" / name).touch()
    done = runner(step("publish", "npm", "Publish")["run"], tmp_path)
    assert done.returncode == 0, done.stderr
    told = (tmp_path / "told").read_text(encoding="utf-8").splitlines()
    assert sorted(told[:-1]) == sorted(f"publish ./npm/{name} --access public" for name in names)
    assert told[-1] == "publish ./npm/cortex-embed-1.2.3.tgz --access public"


@pytest.mark.parametrize("forged", [False, True])
def test_nothing_is_published_that_was_not_attested(
    forged: bool, runner: Any, tmp_path: Path
) -> None:
    stand_in(
        tmp_path / "bin", "gh",
        'if [ "$1" = release ]; then mkdir pypi; : >pypi/a.whl; : >pypi/b.whl; '
        f'elif [ "$3" = pypi/b.whl ]; then exit {int(forged)}; fi',
    )  # fmt: skip
    lines = step("publish", "pypi", "Download what was attested")["run"]
    done = runner(lines, tmp_path, TAG="v1.2.3", GH_REPO="o/r")
    assert (done.returncode != 0) == forged


@pytest.mark.skipif(not shutil.which("jq"), reason="no jq on this machine; runners have it")
@pytest.mark.parametrize("result", ["success", "failure", "cancelled", "skipped"])
def test_all_green_is_green_only_after_success(result: str, runner: Any, tmp_path: Path) -> None:
    needs = json.dumps({"tests": {"result": "success"}, "frozen": {"result": result}})
    lines = step("ci", "check", "Has every job succeeded?")["run"]
    assert (runner(lines, tmp_path, NEEDS=needs).returncode == 0) == (result == "success")
