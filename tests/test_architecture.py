"""Rules about the source itself that no linter knows."""

from __future__ import annotations

import ast
import json
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "app" / "cortex_embed"
MODULES = sorted(PACKAGE.rglob("*.py"))
SOURCES = [*MODULES, *sorted((ROOT / "build").rglob("*.py"))]
BARE = {"__init__.py", "__main__.py"}
# No behaviour of their own: data nouns, error classes, protocols and keys are exercised by all.
NO_MIRROR = {"domain.py", "errors.py", "wire/dialect.py", "server/keys.py"}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_files_stay_readable(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 420


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_functions_stay_short(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 60, f"{path}:{node.lineno} {node.name}"


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_every_module_says_why_it_exists(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), path


@pytest.mark.parametrize(
    "path",
    [p for p in MODULES if p.name not in BARE and str(p.relative_to(PACKAGE)) not in NO_MIRROR],
    ids=name_of,
)
def test_every_module_has_its_test(path: Path) -> None:
    relative = path.relative_to(PACKAGE)
    mirror = ROOT / "tests" / relative.parent / f"test_{relative.name}"
    assert mirror.exists(), f"{mirror} is missing"


def test_our_names_are_not_ignored_by_git() -> None:
    ours = [
        "build/export_onnx.py",
        "app/cortex_embed/kernels/kernels.c",
        "specs/cortex-embed.spec",
        "specs/entry.py",
        "app/cortex_embed/cli.py",
    ]
    done = subprocess.run(
        ["git", "check-ignore", "--no-index", *ours],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1, f"ignored: {done.stdout}"


def test_build_is_no_package() -> None:
    # It would shadow the PyPI package `build`.
    assert not (ROOT / "build" / "__init__.py").exists()


def test_locks_carry_hashes_and_no_hosts() -> None:
    locks = sorted((ROOT / "requirements").glob("*.lock"))
    assert len(locks) == 9
    for lock in locks:
        text = lock.read_text(encoding="utf-8")
        assert "http://" not in text
        assert "https://" not in text
        assert "--index" not in text
        pins = [line for line in text.splitlines() if "==" in line and not line.startswith(" ")]
        assert text.count("--hash=sha256:") >= len(pins) > 10


def test_the_compiler_is_locked_where_something_is_built_and_no_part_of_the_program() -> None:
    locks = {path.stem: path for path in (ROOT / "requirements").glob("*.lock")}
    with_zig = {n for n, lock in locks.items() if "\nziglang==" in lock.read_text(encoding="utf-8")}
    assert with_zig == set(locks) - {"runtime", "ci"}


@pytest.mark.parametrize("session", ["clients", "rehearsal"])
def test_a_javascript_lock_carries_hashes_and_no_hosts(session: str) -> None:
    text = (ROOT / "tests" / session / "js" / "package-lock.json").read_text(encoding="utf-8")
    assert "://" not in text
    packages = [at for at in json.loads(text)["packages"] if at]
    assert text.count('"integrity": "sha512-') == len(packages) > 10


def test_locks_hold_onnxruntime_for_every_target() -> None:
    text = (ROOT / "requirements" / "runtime.lock").read_text(encoding="utf-8")
    assert "onnxruntime==1.23.2 ; platform_machine == 'x86_64' and sys_platform == 'darwin'" in text
    assert "onnxruntime==1.31" in text
