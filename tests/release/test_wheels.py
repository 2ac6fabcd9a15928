"""Wheels' tags against the table; what uv says is stood in for. `nox -s wheels` asks it."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import msgspec
import pytest

import targets
from platform_floor import Floor
from release import wheels
from release.wheels import Demand

if TYPE_CHECKING:
    from pathlib import Path

LINUX = targets.load().find("linux-x64")
MAC = targets.load().find("macos-x64")
HASH = {letter: letter * 64 for letter in "abcdef"}
LOCK = f"""numpy==2.0 ; python_full_version >= '3.12' \\
    --hash=sha256:{HASH["a"]} \\
    --hash=sha256:{HASH["b"]}
    # via cortex-embed
Ruamel.Yaml==1.0 \\
    --hash=sha256:{HASH["c"]}
"""
PYLOCK = """
[[packages]]
name = "numpy"
version = "2.0"
[[packages.wheels]]
url = "https://host/numpy-2.0-cp313-cp313-macosx_14_0_x86_64.whl"
hashes = {{ sha256 = "{a}" }}
[[packages.wheels]]
url = "https://host/numpy-2.0-cp313-cp313-macosx_10_9_x86_64.whl"
hashes = {{ sha256 = "{other}" }}
"""


@pytest.mark.parametrize(
    ("file", "version"),
    [
        ("n-1-cp313-cp313-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl", (2, 27)),
        ("n-1-cp313-cp313-manylinux2014_x86_64.manylinux_2_17_x86_64.whl", (2, 17)),
        ("n-1-cp38-abi3-manylinux2014_aarch64.whl", (2, 17)),
        ("n-1-cp313-cp313-macosx_13_0_x86_64.whl", (13, 0)),
        ("n-1-cp313-cp313-macosx_10_15_x86_64.macosx_11_0_arm64.whl", (10, 15)),
        ("n-1-cp313-cp313-win_amd64.whl", None),
        ("n-1-py3-none-any.whl", None),
    ],
)
def test_the_oldest_system_by_the_tags(file: str, version: tuple[int, ...] | None) -> None:
    assert wheels.demand_of(file) == version


def test_a_tag_that_is_not_known_is_an_error() -> None:
    with pytest.raises(ValueError, match="android_21_x86_64 is a tag that we do not know"):
        wheels.demand_of("n-1-cp313-cp313-android_21_x86_64.whl")


def test_hashes_by_package(tmp_path: Path) -> None:
    lock = tmp_path / "some.lock"
    lock.write_text(LOCK, encoding="utf-8")
    assert wheels.locked_hashes(lock) == {
        "numpy": {HASH["a"], HASH["b"]},
        "ruamel-yaml": {HASH["c"]},
    }


def test_only_wheels_of_the_lock_count() -> None:
    text = PYLOCK.format(a=HASH["a"], other=HASH["f"])
    locked = {"numpy": {HASH["a"], HASH["b"]}}
    assert wheels.wheels_of(text, locked, "here") == {
        "numpy": ["numpy-2.0-cp313-cp313-macosx_14_0_x86_64.whl"]
    }
    with pytest.raises(wheels.NoWheelError, match=r"here: no wheel of numpy 2\.0 is in the lock"):
        wheels.wheels_of(text, {"numpy": {HASH["b"]}}, "here")


def test_the_package_that_needs_most_sets_the_demand() -> None:
    found = {
        "numpy": [f"numpy-2-cp313-cp313-macosx_{v}_arm64.whl" for v in ("14_0", "11_0")],
        "onnxruntime": ["onnxruntime-1-cp313-cp313-macosx_13_0_arm64.whl"],
        "aiohttp": ["aiohttp-3-py3-none-any.whl", "aiohttp-3-cp313-cp313-macosx_12_0_arm64.whl"],
        "pip": ["pip-1-py3-none-any.whl"],
        "onnx": ["onnx-1-cp313-cp313-macosx_15_0_arm64.whl"],
    }
    bundled = ["numpy", "onnxruntime", "aiohttp", "pip", "not-here"]
    assert wheels.by_tags(found, bundled) == Demand((13, 0), found["onnxruntime"][0])
    assert wheels.by_tags(found, ["aiohttp"]) == Demand((12, 0), found["aiohttp"][1])
    assert wheels.by_tags(found, ["pip"]) is None


@pytest.mark.parametrize(
    ("minimum", "says"),
    [
        ("macOS 13.4", None),
        ("macOS 13.0", "says macOS 13.0, but its wheels need macOS 13.4 (ort): an asset would not"),
        ("macOS 14.0", "says macOS 14.0, but its wheels need macOS 13.4 (ort): the promise is"),
    ],
)
def test_the_table_is_held_to_the_wheels(minimum: str, says: str | None) -> None:
    target = msgspec.structs.replace(MAC, minimum=minimum)
    wrong = wheels.verdict(target, Demand((13, 4), "ort"))
    assert (says is None and wrong is None) or (says or "") in (wrong or "")


def test_a_tables_row_that_contradicts_itself() -> None:
    target = msgspec.structs.replace(LINUX, minimum="glibc 2.31")
    wrong = wheels.verdict(target, Demand((2, 31), "numpy"))
    assert wrong == "linux-x64: x86_64-manylinux_2_28 is not glibc 2.31."


def test_a_package_that_is_compiled_elsewhere_only() -> None:
    pure, compiled = "yarl-1-py3-none-any.whl", "yarl-1-cp313-cp313-win_amd64.whl"
    found = {"one": {"yarl": [pure], "idna": [pure]}, "two": {"yarl": [compiled], "idna": [pure]}}
    assert wheels.fallbacks(found) == ["one: yarl has only a pure-Python wheel here."]


ORT = ["onnxruntime-1-cp313-cp313-macosx_13_0_x86_64.whl"]


@pytest.mark.parametrize(
    ("minos", "wrong"),
    [((13, 4), []), ((13, 0), ["needlessly narrow"]), ((14, 0), ["would not start"])],
)
def test_a_library_may_need_more_than_its_wheels_tag(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    minos: tuple[int, int],
    wrong: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(wheels, "available", lambda *_: {"onnxruntime": ORT})
    monkeypatch.setattr(wheels, "resolves", lambda *_: None)
    floor = Floor(minos, tmp_path / "libort.dylib", ("minos",))
    monkeypatch.setattr(wheels, "by_libraries", lambda *_: floor)
    _, problems = wheels.judge(MAC, "3.13", True, tmp_path)
    assert len(problems) == len(wrong)
    assert all(word in problem for word, problem in zip(wrong, problems, strict=True))
    assert ("libort.dylib" in capsys.readouterr().out) is (minos > (13, 0))


def test_a_missing_wheel_is_named_with_target_and_python(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(command: list[str], **_: object) -> object:
        raise subprocess.CalledProcessError(1, command, "", "onnxruntime==9 has no wheels")

    monkeypatch.setattr(subprocess, "run", refuse)
    assert wheels.main(["--work", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    for target in targets.load().targets:
        for python in wheels.PYTHONS:
            assert f"FAIL  {target.name}, Python {python}: onnxruntime==9 has no wheels" in out


def test_uv_is_asked_as_on_the_target(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[tuple[list[str], dict[str, str]]] = []

    def run(command: list[str], *, env: dict[str, str], **_: object) -> object:
        asked.append((command, env))
        return subprocess.CompletedProcess(command, 0, "packages = []", "")

    monkeypatch.setattr(subprocess, "run", run)
    assert wheels.resolves(MAC, "3.12", tmp_path) is None
    wheels.available(LINUX, "3.11", wheels.RUNTIME)
    (at_minimum, environment), (newest, _) = asked
    assert environment["MACOSX_DEPLOYMENT_TARGET"] == "13.4"
    assert at_minimum[-2:] == ["--python-platform", "x86_64-apple-darwin"]
    assert {"--require-hashes", "--dry-run", "--only-binary"} <= set(at_minimum)
    assert newest[-2:] == ["--python-platform", "x86_64-manylinux_2_40"]
    assert {"--only-binary", ":all:", "--python-version", "3.11"} <= set(newest)
