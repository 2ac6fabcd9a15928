"""The compiler of the kernels: its flags, its refusals, and what a library may depend on.

Against small sources of its own; that the real ones are of the table is looked at too. Windows'
library is compiled here on Windows alone: elsewhere zig would compile mingw-w64 for it first, a
minute, which `nox -s wheel` takes.
"""

from __future__ import annotations

import ctypes
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import compile_kernels
import platform_floor
import targets
from compile_kernels import KernelsError
from targets import Target

TABLE = targets.load()
HERE = targets.here(TABLE)
QUICK = [t for t in TABLE.targets if t.os != "windows" or t == HERE]
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="binutils are Linux's")
each = pytest.mark.parametrize("target", QUICK, ids=lambda target: target.name)

_DISPATCH = """
#include "kernels.h"
#include <string.h>
#if defined(__AVX__) || (defined(__linux__) && defined(__ARM_FEATURE_DOTPROD))
#error "more than the oldest processor has"
#endif
API int answer(void) { return ANSWER; }
API void clear(void *to, size_t bytes) { memset(to, 0, bytes); }
"""
_HEADER = """
#include <stddef.h>
#ifdef _WIN32
#define API __declspec(dllexport)
#else
#define API __attribute__((visibility("default")))
#endif
#define ANSWER 42
"""
# What the compiler must define for a file.
_DEFINED = {
    "avx2.c": ("__AVX2__", "__FMA__"),
    "avx_vnni.c": ("__AVX2__", "__FMA__", "__AVXVNNI__"),
    "avx512.c": ("__AVX512F__", "__AVX512BW__", "__AVX512VL__", "__AVX512DQ__", "__FMA__"),
    "avx512_vnni.c": ("__AVX512F__", "__AVX512BW__", "__AVX512VNNI__"),
    "amx.c": ("__AVX512VNNI__", "__AMX_TILE__", "__AMX_INT8__", "__AMX_BF16__"),
    "neon_dot.c": ("__ARM_FEATURE_DOTPROD",),
    "queue.c": (),
}


def write_sources(kernels: Path) -> Path:
    """A file of each name in the table, which refuses to be compiled without its flags."""
    kernels.mkdir(parents=True)
    (kernels / "kernels.h").write_text(_HEADER, encoding="utf-8")
    (kernels / "kernels.c").write_text(_DISPATCH, encoding="utf-8")
    for name, macros in _DEFINED.items():
        checks = [f"#ifndef {macro}\n#error {macro}\n#endif\n" for macro in macros]
        function = f"int {name.removesuffix('.c')}(int x);\nint {name.removesuffix('.c')}(int x)"
        text = "".join(checks) + function + " { return x + 1; }\n"
        (kernels / name).write_text(text, encoding="utf-8")
    return kernels


@pytest.fixture
def kernels(tmp_path: Path) -> Path:
    return write_sources(tmp_path / "a plače" / "kernels")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The library of every target that is quick to compile for."""
    kernels = write_sources(tmp_path_factory.mktemp("made") / "kernels")
    return {target.name: compile_kernels.compile_for(target, kernels) for target in QUICK}


def test_the_real_sources_are_those_of_the_table() -> None:
    assert {t.name: set(compile_kernels.sources(t)) for t in TABLE.targets} == {
        t.name: set(compile_kernels.SOURCES[t.arch]) for t in TABLE.targets
    }
    assert set(_DEFINED) | {"kernels.c"} == {n for s in compile_kernels.SOURCES.values() for n in s}


def test_zig_s_words_for_the_targets() -> None:
    assert [compile_kernels.triple(target) for target in TABLE.targets] == [
        "x86_64-linux-gnu.2.28",
        "aarch64-linux-gnu.2.28",
        "aarch64-macos.14.0",
        "x86_64-macos.13.4",
        "x86_64-windows-gnu",
    ]


def test_it_answers(made: dict[str, Path]) -> None:
    library = ctypes.CDLL(str(made[HERE.name]))
    assert library.answer() == 42
    buffer = ctypes.create_string_buffer(b"abc")
    library.clear(buffer, 2)
    assert buffer.raw == b"\0\0c\0"


@on_linux
def test_only_what_the_header_shows_is_visible(made: dict[str, Path]) -> None:
    for name in ("linux-x64", "linux-arm64"):
        done = subprocess.run(
            ["nm", "--dynamic", "--defined-only", str(made[name])],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert sorted(line.split()[-1] for line in done.stdout.splitlines()) == ["answer", "clear"]


@on_linux
def test_it_needs_the_c_library_and_nothing_else(made: dict[str, Path]) -> None:
    for name in ("linux-x64", "linux-arm64"):
        target = TABLE.find(name)
        done = subprocess.run(
            ["readelf", "--dynamic", "--wide", str(made[name])],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        needed = [line.split()[-1] for line in done.stdout.splitlines() if "(NEEDED)" in line]
        assert needed == ["[libc.so.6]"]
        assert platform_floor.floor(made[name], target).version <= target.minimum_version


def test_macos_libraries_state_the_table_s_system_and_no_place(made: dict[str, Path]) -> None:
    from macholib.MachO import MachO

    for target in QUICK:
        if target.os != "macos":
            continue
        library = made[target.name]
        assert platform_floor.floor(library, target).version == target.minimum_version
        (part,) = MachO(str(library)).headers
        stated = [
            data.rstrip(b"\0").decode()
            for load, _, data in part.commands
            if load.get_cmd_name() in ("LC_ID_DYLIB", "LC_LOAD_DYLIB")
        ]
        assert stated == [f"@rpath/{library.name}", "/usr/lib/libSystem.B.dylib"]


@each
def test_another_directory_gives_the_same_bytes(
    target: Target, made: dict[str, Path], kernels: Path
) -> None:
    again = compile_kernels.compile_for(target, kernels)
    assert again.read_bytes() == made[target.name].read_bytes()
    assert str(kernels.parent).encode() not in again.read_bytes()
    left = {path.name for path in again.parent.iterdir()}
    assert left == {again.name, compile_kernels.stamp_of(again).name}
    assert not list(kernels.glob(".*"))


def test_a_library_is_current_until_what_it_is_made_of_changes(
    kernels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def current() -> bool:
        return compile_kernels.is_current(HERE, kernels)

    assert not current()
    library = compile_kernels.compile_for(HERE, kernels)
    assert current()
    (kernels / "__init__.py").write_text("'loads it'", encoding="utf-8")
    assert current()  # Python compiles nothing
    with monkeypatch.context() as patch:
        patch.setattr(compile_kernels, "COMMON", (*compile_kernels.COMMON, "-DX"))
        assert not current()
    with monkeypatch.context() as patch:
        patch.setattr(metadata, "version", lambda _: "0.99")
        assert not current()
    (kernels / "shared.inc").touch()
    assert not current()
    (kernels / "shared.inc").unlink()
    assert current()
    library.write_bytes(library.read_bytes()[:-1])
    assert not current()
    compile_kernels.compile_for(HERE, kernels)
    assert current()
    library.unlink()
    assert not current()


def test_a_header_is_an_input(kernels: Path) -> None:
    header = kernels / "kernels.h"
    before = compile_kernels.digest(HERE, kernels)
    header.write_text(header.read_text(encoding="utf-8").replace("42", "43"), encoding="utf-8")
    assert compile_kernels.digest(HERE, kernels) != before
    library = compile_kernels.compile_for(HERE, kernels)
    assert ctypes.CDLL(str(library)).answer() == 43


def test_a_file_without_a_row_is_an_error(kernels: Path) -> None:
    (kernels / "sve2.c").touch()
    with pytest.raises(KernelsError, match=r"sve2\.c is in no row of SOURCES in compile_kernels"):
        compile_kernels.compile_for(HERE, kernels)


def test_a_row_without_its_file_is_an_error(kernels: Path) -> None:
    (kernels / "avx2.c").unlink()
    with pytest.raises(KernelsError, match=r"avx2\.c is missing, which linux-x64 needs"):
        compile_kernels.sources(TABLE.find("linux-x64"), kernels)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ("int f(void) { return nothing; }", "nothing"),
        ("static int unused(void) { return 1; }", "unused"),  # a warning
        ("int elsewhere(void); int f(void); int f(void) { return elsewhere(); }", "elsewhere"),
    ],
)
def test_what_does_not_compile_or_link_leaves_the_old_library(
    kernels: Path, wrong: str, says: str
) -> None:
    library = compile_kernels.compile_for(HERE, kernels)
    before = library.read_bytes()
    source = kernels / "kernels.c"
    text = source.read_text(encoding="utf-8")
    source.write_text(f"{text}\nAPI {wrong}\n" if "f(" in wrong else text + wrong, encoding="utf-8")
    with pytest.raises(KernelsError, match=says):
        compile_kernels.compile_for(HERE, kernels)
    assert library.read_bytes() == before
    assert not compile_kernels.is_current(HERE, kernels)
    assert not list(kernels.glob(".*"))


def test_without_zig_it_says_what_to_install(
    kernels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(_: str) -> str:
        raise metadata.PackageNotFoundError

    monkeypatch.setattr(metadata, "version", missing)
    with pytest.raises(KernelsError, match=r"no ziglang, .* requirements/export\.lock"):
        compile_kernels.compile_for(HERE, kernels)


@pytest.mark.parametrize(
    ("flags", "names"),
    [
        ([], [HERE.name]),
        (["--target", "macos-arm64"], ["macos-arm64"]),
        (["--all"], [target.name for target in TABLE.targets]),
    ],
)
def test_which_are_compiled(
    flags: list[str], names: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    compiled: list[str] = []

    def compile_for(target: Target) -> Path:
        compiled.append(target.name)
        (tmp_path / compile_kernels.library_name(target)).touch()
        return tmp_path

    monkeypatch.setattr(compile_kernels, "exit_on_sigterm", lambda: None)
    monkeypatch.setattr(compile_kernels, "compile_for", compile_for)
    monkeypatch.setattr(compile_kernels, "is_current", lambda _: True)
    monkeypatch.setattr(compile_kernels, "LIB", tmp_path)
    assert compile_kernels.main([*flags, "--if-changed"]) == 0
    assert compiled == []
    assert compile_kernels.main(flags) == 0
    assert compiled == names


def test_a_machine_that_is_no_target_goes_without_and_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    monkeypatch.setattr(compile_kernels, "exit_on_sigterm", lambda: None)
    assert compile_kernels.main([]) == 0
    assert "ONNX Runtime computes: 'linux-riscv64' is no target" in capsys.readouterr().err


def test_an_unknown_target_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(compile_kernels, "exit_on_sigterm", lambda: None)
    assert compile_kernels.main(["--target", "amiga"]) == 1
    assert "'amiga' is no target of targets.toml" in capsys.readouterr().err
