"""GitHub's workflows: what they lean on exists, and our rules hold.

actionlint, zizmor and the schemas judge the form (`nox -s lint`, and actionlint in ci.yml); here
is what they cannot know: our table, our sessions, our secrets. What their shell lines do is in
test_workflow_steps.py.
"""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest

import noxfile
import targets
from release import sign
from tests.release.workflows import ACTIONS, GITHUB, ROOT, WORKFLOWS, jobs, read, step, steps

LOCAL = "$/.github/actions/nox"
MATRIX = "${{ fromJSON(needs.plan.outputs.matrix) }}"
STEPS: list[tuple[str, Path, str, dict[str, Any]]] = [
    (f"{path.parent.name}/{path.stem}:{job}:{number}", path, job, step)
    for path in (*WORKFLOWS, *ACTIONS)
    for number, (job, step) in enumerate(steps(path))
]
ALL = [pytest.param(*row, id=name) for name, *row in STEPS]
RUNS = [param for param, row in zip(ALL, STEPS, strict=True) if "run" in row[-1]]


def needed(workflow: str, job: str) -> set[str]:
    """All jobs that come before `job`."""
    listed = jobs(workflow)[job].get("needs", [])
    before = {listed} if isinstance(listed, str) else set(listed)
    return before.union(*(needed(workflow, one) for one in before))


# --- rules ----------------------------------------------------------------------------------------


def test_there_are_workflows_to_judge() -> None:
    assert [path.stem for path in WORKFLOWS] == ["ci", "publish", "release"]
    assert len(RUNS) > 20


@pytest.mark.parametrize("path", [*WORKFLOWS, *ACTIONS], ids=lambda path: path.stem)
def test_every_action_is_pinned_by_commit_and_names_its_version(path: Path) -> None:
    lines = [line.strip("- \n") for line in path.read_text(encoding="utf-8").splitlines()]
    used = [line for line in lines if line.startswith("uses: ") and line != f"uses: {LOCAL}"]
    assert used
    commit = r"uses: [\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+"
    image = r"uses: docker://[\w./-]+@sha256:[0-9a-f]{64} # v\d+\.\d+\.\d+"
    assert [line for line in used if not re.fullmatch(f"{commit}|{image}", line)] == []


def test_one_action_has_one_pin() -> None:
    used = {
        one["uses"] for path in (*WORKFLOWS, *ACTIONS) for _, one in steps(path) if "uses" in one
    }
    names = [name.split("@")[0] for name in used]
    assert sorted(set(names)) == sorted(names)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_may_nothing_and_a_job_only_what_it_says(path: Path) -> None:
    document = read(path)
    assert document["permissions"] == {}
    for name, job in document["jobs"].items():
        granted = job.get("permissions", {})
        writes = {scope for scope, right in granted.items() if right == "write"}
        may = {
            ("release", "draft"): {"contents"},
            ("release", "attest"): {"id-token", "attestations"},
            ("release", "attest-sbom"): {"id-token", "attestations"},
            ("publish", "npm"): {"id-token"},
            ("publish", "pypi"): {"id-token"},
        }
        assert writes == may.get((path.stem, name), set()), name
        assert 0 < int(job["timeout-minutes"]) <= 90, name
    assert "group" in document["concurrency"]


@pytest.mark.parametrize(("path", "job", "step"), ALL)
def test_no_step_keeps_a_token_in_the_checkout(path: Path, job: str, step: dict[str, Any]) -> None:
    if "actions/checkout@" in step.get("uses", ""):
        assert step["with"]["persist-credentials"] == "false"


@pytest.mark.parametrize(("path", "job", "step"), RUNS)
def test_no_expression_is_pasted_into_a_shell(path: Path, job: str, step: dict[str, Any]) -> None:
    assert "${{" not in step["run"]


@pytest.mark.parametrize(("path", "job", "step"), RUNS)
def test_shell_lines_pass_shellcheck(path: Path, job: str, step: dict[str, Any]) -> None:
    shell = step.get("shell") or read(path).get("defaults", {}).get("run", {}).get("shell")
    assert shell == "bash"
    # GitHub's bash has -e and pipefail, whatever the script says.
    script = f"set -eo pipefail\n{step['run']}"
    done = subprocess.run(
        ["shellcheck", "--shell", "bash", "--severity", "style", "-"],
        input=script, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


# --- the table ------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_no_workflow_knows_a_target(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    table = targets.load()
    for target in table.targets:
        assert target.name not in text
        assert target.python_platform not in text
        assert target.container is None or target.container not in text
        assert target.clean is None or target.clean not in text
    # A job on a target's runner takes its label from the table; the rest run on one label.
    labels = {job["runs-on"] for job in read(path)["jobs"].values()}
    assert labels <= {"ubuntu-24.04", "${{ matrix.runner }}", "${{ matrix.row.runner }}"}


def test_jobs_by_target_run_what_the_table_says() -> None:
    for workflow, job in (("ci", "frozen"), ("release", "build"), ("release", "verify")):
        row = jobs(workflow)[job]
        assert row["strategy"]["matrix"] == MATRIX
        assert row["runs-on"] == "${{ matrix.runner }}"
        assert "plan" in needed(workflow, job)
        assert row["env"]["EXE"] == "${{ matrix.exe }}"
    for workflow, job in (("ci", "frozen"), ("release", "build")):
        assert jobs(workflow)[job]["container"] == "${{ matrix.container }}"
    assert "container" not in jobs("release")["verify"]
    axes = jobs("ci")["tests"]["strategy"]["matrix"]
    assert axes["row"] == MATRIX.replace(" }}", ".include }}")
    # Not read from pyproject.toml: 3.14 is excluded there by no word, but by onnxruntime's wheels.
    assert axes["python"] == ["3.11", "3.12", "3.13"]


def test_every_key_that_is_taken_from_the_matrix_is_in_every_row() -> None:
    rows = targets.load().matrix["include"]
    for path in WORKFLOWS:
        used = set(re.findall(r"matrix\.(?:row\.)?([\w-]+)", path.read_text(encoding="utf-8")))
        used -= {"sessions", "python", "row"}
        assert all(used <= row.keys() for row in rows), f"{path.name}: {used}"


def test_what_a_contents_attestation_is_about() -> None:
    attest = jobs("release")["attest-sbom"]["steps"][-1]["with"]
    table = targets.load()
    everything = [name for target in table.targets for name in target.assets]
    for target, row in zip(table.targets, table.matrix["include"], strict=True):

        def filled(value: str, row: dict[str, str] = row) -> str:
            return re.sub(r"\$\{\{ matrix\.(\w+) \}\}", lambda match: row[match[1]], value)

        subject = Path(filled(attest["subject-path"])).name
        assert [name for name in everything if fnmatch(name, subject)] == [
            target.asset(form) for form in targets.FORMS
        ]
        assert Path(filled(attest["sbom-path"])).name == target.sbom


# --- the sessions ---------------------------------------------------------------------------------


def sessions() -> dict[str, str]:
    """Name to source of every nox session."""
    text = (ROOT / "noxfile.py").read_text(encoding="utf-8")
    found = {}
    for node in ast.parse(text).body:
        for decorator in getattr(node, "decorator_list", ()):
            source = ast.unparse(decorator)
            if source.startswith("nox.session"):
                assert isinstance(node, ast.FunctionDef)
                name = re.search(r"name='([\w-]+)'", source)
                found[name[1] if name else node.name] = ast.unparse(node)
    return found


def called() -> list[tuple[str, list[str], list[str]]]:
    """Workflow, sessions and arguments of each call of nox."""
    calls = []
    for path in WORKFLOWS:
        for name, one in steps(path):
            for line in re.findall(r"nox -s ([^\n]+)", one.get("run", "")):
                before, _, after = line.partition(" -- ")
                names = [] if "${" in before else before.split()
                calls.append((f"{path.stem}:{name}", names, after.split()))
    rows = jobs("ci")["sessions"]["strategy"]["matrix"]["sessions"]
    return calls + [("ci:sessions", row.split(), []) for row in rows]


def test_every_session_that_is_called_exists() -> None:
    known = sessions()
    unknown = [(where, name) for where, names, _ in called() for name in names if name not in known]
    assert unknown == []


def test_everything_that_checks_is_called_by_ci() -> None:
    in_ci = {name for where, names, _ in called() if where.startswith("ci:") for name in names}
    # Made by a person: writing files, measuring, serving. `rooms` is the runner's container.
    by_hand = {
        "serve",
        "fix",
        "docs",
        "lock",
        "bench",
        "http",
        "start",
        "compat",
        "parity",
        "published",
        "rooms",
    }
    # A release's own, which release.yml calls, and for which CI has not all targets.
    of_releases = {"collect", "release-check", "sign"}
    assert in_ci == sessions().keys() - by_hand - of_releases


def test_releases_are_made_by_sessions_in_this_order() -> None:
    build = [name for where, names, _ in called() if where == "release:build" for name in names]
    assert build == ["freeze", "sign", "sign", "smoke", "package"]
    # Frozen anew, it would be packaged without its signature.
    assert step("release", "build", "Package")["run"].endswith(" -- --release --from dist/frozen")
    assert sign.FROZEN == ROOT / "dist" / "frozen"


# --- the order ------------------------------------------------------------------------------------


def test_a_draft_needs_everything() -> None:
    assert needed("release", "draft") == jobs("release").keys() - {"draft"}
    assert {"verify", "collect", "attest", "attest-sbom"} <= set(jobs("release")["draft"]["needs"])
    assert {"plan", "build"} <= needed("release", "collect") & needed("release", "verify")
    for job in ("attest", "attest-sbom", "draft"):
        assert jobs("release")[job]["if"] == "github.event_name == 'push'"
        assert {"verify", "collect"} <= needed("release", job)


def test_release_runs_for_tags_and_by_hand_only() -> None:
    assert read(GITHUB / "workflows" / "release.yml")["on"] == {
        "push": {"tags": ["v*"]},
        "workflow_dispatch": "",
    }
    assert read(GITHUB / "workflows" / "publish.yml")["on"] == {"release": {"types": ["published"]}}


def test_all_green_means_all_jobs() -> None:
    check = jobs("ci")["check"]
    assert check["if"] == "always()"
    assert set(check["needs"]) == jobs("ci").keys() - {"check"}


# --- what is written in two places ----------------------------------------------------------------


def test_uv_is_the_locks() -> None:
    setup = next(one for _, one in steps(ACTIONS[0]) if "setup-uv" in one.get("uses", ""))
    lock = (ROOT / "requirements" / "ci.lock").read_text(encoding="utf-8")
    locked = re.search(r"^uv==(\S+)", lock, flags=re.MULTILINE)
    assert locked
    assert setup["with"]["version"] == locked[1]
    assert setup["with"]["enable-cache"] == "false"


def test_nox_runs_on_the_tables_python_unless_told() -> None:
    assert read(ACTIONS[0])["inputs"]["python"]["default"] == targets.load().release.python


def test_wheels_are_taken_for_the_oldest_macos_of_the_table() -> None:
    for machine, name in (("arm64", "macos-arm64"), ("x86_64", "macos-x64")):
        target = targets.load().find(name)
        flags, environment = noxfile.oldest_macos(machine)
        assert flags == ["--python-platform", target.python_platform]
        version = environment["MACOSX_DEPLOYMENT_TARGET"]
        assert tuple(map(int, version.split("."))) == target.minimum_version


def test_secrets_are_those_that_signing_knows() -> None:
    used = {
        name
        for path in WORKFLOWS
        for name in re.findall(r"secrets\.(\w+)", path.read_text(encoding="utf-8"))
    }
    names = {name for names in sign.SECRETS.values() for name in names}
    assert used - {"GITHUB_TOKEN"} == names
    asked = jobs("release")["build"]["steps"]
    given = next(one for one in asked if one.get("id") == "sign")["env"]
    assert given == {name: f"${{{{ secrets.{name} }}}}" for name in names}
    azure = next(one for one in asked if "artifact-signing" in one.get("uses", ""))["with"]
    assert azure["files-catalog"].split("\\")[-3:] == ["dist", "frozen", sign.CATALOG]


def test_secrets_are_given_to_tags_only() -> None:
    assert jobs("release")["build"]["environment"] == (
        "${{ github.event_name == 'push' && 'signing' || '' }}"
    )
    with_secrets = {
        (path.stem, job)
        for path in WORKFLOWS
        for job, row in read(path)["jobs"].items()
        if re.search(r"secrets\.(?!GITHUB_TOKEN)", json.dumps(row))
    }
    assert with_secrets == {("release", "build")}


def test_contributing_names_every_secret_and_environment() -> None:
    text = (GITHUB / "CONTRIBUTING.md").read_text(encoding="utf-8")
    names = [name for names in sign.SECRETS.values() for name in names]
    environments = {job["environment"] for job in jobs("publish").values()} | {"signing"}
    assert [name for name in (*names, *sorted(environments)) if f"`{name}`" not in text] == []


FLAGS = [
    ("build/freeze.py", "--release"), ("build/smoke.py", "--exe"), ("build/smoke.py", "--release"),
    ("release.sign", "--verify"), ("release.package", "--from"), ("release.package", "--release"),
    ("release.package", "--sums-only"), ("release.check", "--assets"),
]  # fmt: skip


@pytest.mark.parametrize(("what", "flag"), FLAGS)
def test_flags_that_workflows_and_sessions_pass_exist(what: str, flag: str) -> None:
    command = [what] if what.endswith(".py") else ["-m", what]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(("build", "app"))}
    done = subprocess.run(
        [sys.executable, *command, "--help"], cwd=ROOT, env=environment,
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert flag in done.stdout
