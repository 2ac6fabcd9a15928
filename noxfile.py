#!/usr/bin/env -S uv run --script
# /// script
# dependencies = ["nox[uv]"]
# ///
"""Everything that is done with this repository, one session each: `nox -l` lists them.

Continuous integration calls these sessions and nothing else. A session installs what it
needs from the lock files, with hashes.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
from pathlib import Path

import nox

nox.needs_version = ">=2025.10.14"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.sessions = ["lint", "types", "tests"]
nox.options.reuse_venv = "yes"

ROOT = Path(__file__).parent
DEFAULT_MODEL = "all-minilm-l6-v2"
SOURCES = Path("dist", "sources", DEFAULT_MODEL)
EMBEDDED = Path("app", "cortex_embed", "embedded")
VOCABULARIES = Path("app", "cortex_embed", "vocabularies")
JS = Path("tests", "clients", "js")
TYPESCRIPT = Path("tests", "rehearsal", "js")
QUIET_NPM = ("--no-audit", "--no-fund", "--loglevel", "error")
PYTHONS = ["3.11", "3.12", "3.13"]


def install(session: nox.Session, lock: str) -> None:
    """The locked dependencies, then the package itself, editable."""
    flags: list[str] = []
    environment: dict[str, str] = {}
    if lock in ("freeze", "release") and sys.platform == "darwin":
        flags, environment = oldest_macos(platform.machine())
    session.install("--require-hashes", *flags, "-r", f"requirements/{lock}.lock", env=environment)
    session.install("--no-deps", "--no-build-isolation", "-e", ".")


def oldest_macos(machine: str) -> tuple[list[str], dict[str, str]]:
    """uv's flags and environment that hold wheels to the macOS that the table promises.

    Otherwise the newest that this machine can run are taken, and what is frozen of them starts
    nowhere else.
    """
    name = f"macos-{'arm64' if machine == 'arm64' else 'x64'}"
    rows = nox.project.load_toml("build/targets.toml")["target"]
    row = next(row for row in rows if row["name"] == name)
    minimum = row["minimum"].removeprefix("macOS ")
    return ["--python-platform", row["python_platform"]], {"MACOSX_DEPLOYMENT_TARGET": minimum}


def embed_default_model(session: nox.Session, *vocabulary: str) -> None:
    """Compile the kernels; fetch, export and check the model and the vocabulary of a checkout."""
    session.run("python", "build/compile_kernels.py", "--if-changed")
    session.run("python", "build/fetch_vocabulary.py", "--out", str(VOCABULARIES), *vocabulary)
    session.run("python", "build/fetch_model.py", DEFAULT_MODEL, "--out", str(SOURCES))
    session.run(
        "python", "build/export_onnx.py", str(SOURCES), "--model", DEFAULT_MODEL,
        "--out", str(EMBEDDED), "--if-changed",
    )  # fmt: skip


@nox.session
def serve(session: nox.Session) -> None:
    """Set everything up and serve on 127.0.0.1:8121; arguments after -- go to the server."""
    install(session, "export")
    embed_default_model(session)
    session.run("cortex-embed", "selftest")
    python = str(Path(session.bin) / ("python.exe" if sys.platform == "win32" else "python"))
    command = [python, "-m", "cortex_embed", "serve", *session.posargs]
    if sys.platform == "win32":
        session.run(*command, interrupt_timeout=40.0)
    else:
        # The server takes nox's place, so that whoever stops "nox" stops the server.
        sys.stdout.flush()
        sys.stderr.flush()
        os.execv(python, command)  # noqa: S606 - no shell is wanted


@nox.session
def tests(session: nox.Session) -> None:
    """Set everything up and run the test suite on the Python that runs nox."""
    install(session, "dev")
    embed_default_model(session)
    session.run("pytest", *session.posargs)


@nox.session(default=False)
def clients(session: nox.Session) -> None:
    """Other people's clients, in Python and in Node, against a running server."""
    install(session, "clients")
    embed_default_model(session, "--plain", "dist/clients/tiktoken")
    session.run("npm", "ci", "--ignore-scripts", *QUIET_NPM, "--prefix", str(JS), external=True)
    # Some of these clients leave their sockets to the garbage collector: theirs to mend.
    theirs = [
        "-W",
        "ignore::ResourceWarning",
        "-W",
        "ignore::pytest.PytestUnraisableExceptionWarning",
    ]
    session.run("pytest", "tests/clients", *theirs, *session.posargs)


@nox.session(default=False)
def browser(session: nox.Session) -> None:
    """The pages in a real headless Chromium; screenshots go to dist/screenshots."""
    install(session, "browser")
    embed_default_model(session)
    session.run("pytest", "tests/browser", *session.posargs, env={"CHROMIUM": chromium(session)})


def chromium(session: nox.Session) -> str:
    """The browser of this machine; installed first where that is root's to do, on Debian."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if not found and shutil.which("apt-get") and os.geteuid() == 0:
        session.run("apt-get", "update", "--quiet", external=True)
        session.run(
            "apt-get", "install", "--yes", "--quiet", "--no-install-recommends", names[0],
            external=True, env={"DEBIAN_FRONTEND": "noninteractive"},
        )  # fmt: skip
        found = shutil.which(names[0])
    if not found:
        session.error(f"no browser: install one of {', '.join(names)}, or set CHROMIUM to one")
    return found


@nox.session(python=PYTHONS, default=False)
def compat(session: nox.Session) -> None:
    """The test suite on every supported Python that this machine has."""
    install(session, "dev")
    embed_default_model(session)
    session.run("pytest", *session.posargs)


@nox.session(default=False)
def contract(session: nox.Session) -> None:
    """schemathesis and mutated bodies against the running server; `-- --fuzz 10000` for more."""
    install(session, "contract")
    session.run("pytest", "tests/contract", "-rP", *session.posargs)


@nox.session(default=False)
def oldest(session: nox.Session) -> None:
    """Graphs, parity and invariance on onnxruntime 1.23.2, which Intel Macs run."""
    install(session, "dev")
    session.install("--no-deps", "onnxruntime==1.23.2")
    embed_default_model(session)
    session.run("pytest", "tests/providers", "tests/models", "tests/commands", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Style, and the arrows between the packages."""
    install(session, "dev")
    session.run("ruff", "format", "--check")
    session.run("ruff", "check")
    session.run("lint-imports")
    lint_workflows(session)


def lint_workflows(session: nox.Session) -> None:
    """GitHub's workflows, and the scripts that people pipe into a shell.

    The workflows' own shell lines are held to shellcheck by tests/release/test_workflows.py.
    """
    session.run("yamllint", "--strict", "--config-file", ".github/yamllint.yml", ".github")
    for schema, pattern in (
        ("vendor.github-workflows", "workflows/*.yml"),
        ("vendor.github-actions", "actions/*/action.yml"),
        ("vendor.dependabot", "dependabot.yml"),
    ):
        files = map(str, sorted(Path(".github").glob(pattern)))
        session.run("check-jsonschema", "--builtin-schema", schema, *files)
    session.run("zizmor", "--offline", "--quiet", "--persona", "auditor", ".github")
    session.run("shellcheck", ".ci/run", *map(str, Path("build").rglob("*.sh")))


@nox.session
def types(session: nox.Session) -> None:
    """mypy, strict, over everything we wrote."""
    install(session, "dev")
    session.run("mypy")


@nox.session(default=False)
def fix(session: nox.Session) -> None:
    """Format, and apply the fixes that ruff can make."""
    install(session, "dev")
    session.run("ruff", "check", "--fix")
    session.run("ruff", "format")


@nox.session(default=False)
def docs(session: nox.Session) -> None:
    """Write the generated blocks of README.md."""
    install(session, "dev")
    session.run("python", "build/docs.py")


@nox.session(default=False, venv_backend="venv")
def parity(session: nox.Session) -> None:
    """Compare our vectors with PyTorch's and transformers', at graph level and served."""
    install_reference(session)
    embed_default_model(session)
    session.run("python", "build/parity.py", "--work", "dist/parity", "--serve", *session.posargs)


@nox.session(default=False, venv_backend="venv")
def published(session: nox.Session) -> None:
    """The same for graphs that others export, run as they are; `-- --only tiny` for minutes."""
    install_reference(session)
    arguments = ("--work", "dist/parity", "--introspected", *session.posargs)
    session.run("python", "build/parity.py", *arguments)


def install_reference(session: nox.Session) -> None:
    """torch, transformers and sentence-transformers beside what exports."""
    # pip, not uv: where a CPU wheel of torch is offered to pip it is taken; the hashes of
    # torch differ by platform and index, so this one file is pinned without them.
    session.install("--require-hashes", "-r", "requirements/export.lock")
    session.install("-r", "requirements/parity.in")
    session.install("--no-deps", "--no-build-isolation", "-e", ".")


@nox.session(default=False)
def freeze(session: nox.Session) -> None:
    """Make dist/cortex-embed and dist/onedir; `-- --slim` or `-- --model DIR` after it."""
    install(session, "freeze")
    embed_default_model(session)
    session.run("python", "build/freeze.py", *session.posargs)


@nox.session(default=False)
def smoke(session: nox.Session) -> None:
    """Run what `freeze` made as a stranger's machine would; prints sizes and start times."""
    install(session, "freeze")
    session.run("python", "build/smoke.py", *session.posargs)


def release_step(session: nox.Session, module: str, *arguments: str) -> None:
    """Run one module of build/release."""
    session.run("python", "-m", f"release.{module}", *arguments, env={"PYTHONPATH": "build"})


@nox.session(default=False)
def package(session: nox.Session) -> None:
    """Make this machine's assets in dist/release; a rehearsal, unless `-- --release`."""
    install(session, "release")
    embed_default_model(session)
    release_step(session, "package", *session.posargs)


@nox.session(default=False, venv_backend="none")
def sign(session: nox.Session) -> None:
    """Sign what `freeze -- --release` made, if the secrets for it are set; says so if not."""
    environment = {"PYTHONPATH": "build"}
    session.run(sys.executable, "-m", "release.sign", *session.posargs, env=environment)


def carried_by_every_wheel(session: nox.Session) -> None:
    """What the wheel carries beside its sources: the vocabulary, and every target's kernels."""
    session.run("python", "build/fetch_vocabulary.py", "--out", str(VOCABULARIES))
    session.run("python", "build/compile_kernels.py", "--all", "--if-changed")


@nox.session(default=False)
def collect(session: nox.Session) -> None:
    """Make, in dist/release, what needs all targets' archives: manifests, npm, wheel, sums."""
    install(session, "release")
    assets = Path("dist", "release")
    release_step(session, "package", "--sums-only", str(assets))
    release_step(session, "npm")
    release_step(session, "manifests")
    carried_by_every_wheel(session)
    release_step(session, "wheel")
    for made in (*Path("dist", "npm").glob("*.tgz"), *Path("dist", "wheel").glob("*.whl")):
        shutil.copy2(made, assets)
    release_step(session, "package", "--sums-only", str(assets))


@nox.session(name="release-check", default=False)
def release_check(session: nox.Session) -> None:
    """Do tag, version, changelog, table, notes and sums agree? `-- v0.1.0`"""
    install(session, "release")
    release_step(session, "check", *session.posargs)


@nox.session(default=False)
def wheel(session: nox.Session) -> None:
    """Make the Python package in dist/wheel, wheel and sdist, checked."""
    install(session, "release")
    carried_by_every_wheel(session)
    release_step(session, "wheel", *session.posargs)


@nox.session(default=False)
def reproducible(session: nox.Session) -> None:
    """Freeze twice, from two places, and say what differs."""
    install(session, "release")
    embed_default_model(session)
    release_step(session, "reproducible", *session.posargs)


@nox.session(default=False)
def wheels(session: nox.Session) -> None:
    """Is there a locked wheel of everything for every target? And for which oldest system?"""
    install(session, "dev")
    release_step(session, "wheels", *session.posargs)


@nox.session(default=False)
def rooms(session: nox.Session) -> None:
    """Freeze in an old Linux and run in a clean one (chroot, root's; `-- --target linux-arm64`)."""
    install(session, "dev")
    embed_default_model(session)
    release_step(session, "rooms", *session.posargs)


@nox.session(default=False)
def rehearsal(session: nox.Session) -> None:
    """Install what `package` made by every way that there is, and run it."""
    install(session, "dev")
    carried_by_every_wheel(session)
    session.run("pytest", "tests/rehearsal", "-rP", *session.posargs)


@nox.session(default=False)
def start(session: nox.Session) -> None:
    """Measure the frozen start against a plain `pyinstaller --onefile` of the same program."""
    install(session, "freeze")
    session.run("python", "build/start_time.py", *session.posargs)


@nox.session(default=False)
def bench(session: nox.Session) -> None:
    """Measure side by side with peers (installed on first use); writes the README's table."""
    install(session, "export")
    embed_default_model(session)
    session.run("python", "build/bench/run.py", "--work", "dist/bench", *session.posargs)


@nox.session(default=False)
def http(session: nox.Session) -> None:
    """Requests a second of the HTTP layer alone; `-- --publish` writes the README's table."""
    install(session, "export")
    session.run("python", "build/bench/http_layer.py", *session.posargs)


@nox.session(default=False)
def lock(session: nox.Session) -> None:
    """Write requirements/*.lock anew from pyproject.toml: all five targets, with hashes."""
    session.install("uv")
    compile_ = ["uv", "pip", "compile", "--universal", "--generate-hashes", "--no-header"]
    compile_ += ["--no-emit-index-url", "--python-version", "3.11", "--quiet", "pyproject.toml"]
    compile_ += session.posargs  # e.g. --upgrade
    runtime = "requirements/runtime.lock"
    session.run(*compile_, "-o", runtime)
    for group in ("ci", "export", "freeze", "release", "dev", "clients", "contract", "browser"):
        out = f"requirements/{group}.lock"
        session.run(*compile_, "--group", group, "-c", runtime, "-o", out)
    npm_lock(session, JS)
    npm_lock(session, TYPESCRIPT)


def npm_lock(session: nox.Session, project: Path) -> None:
    """Write the lock of a JavaScript project anew: hashes, and no host names."""
    file = project / "package-lock.json"
    file.unlink(missing_ok=True)
    npm = ["npm", "install", "--package-lock-only", "--ignore-scripts", *QUIET_NPM]
    npm += ["--omit-lockfile-registry-resolved=true", "--prefix", str(project)]
    session.run(*npm, external=True)
    document = json.loads(file.read_text(encoding="utf-8"))
    for package in document["packages"].values():
        package.pop("funding", None)
    file.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    nox.main()
