"""The same bits from every processor: harness.c here, under qemu and under wine.

What it must print is in tests/data/kernels.txt, since no machine of CI has all processors: each
compares with that. AMX's floats have bits of their own, in kernels_amx.txt (test_floats.py holds
how near they are). Whoever changes the arithmetic on purpose writes both anew, where there is AMX,
with

    python -m tests.kernels.test_processors

(PYTHONPATH=app:build:.), and says so in the changelog: vectors change.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from cortex_embed.kernels import INSTRUCTION_SETS, supported
from tests.kernels.processors import (
    ARM64,
    MACHINE,
    NATIVE,
    WINDOWS,
    compile_harness,
    compile_objects,
)

EXPECTED = Path(__file__).parent.parent / "data" / "kernels.txt"
AMX_FLOATS = EXPECTED.with_name("kernels_amx.txt")
QEMU = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")
WINE = shutil.which("wine")
NOT_THERE = 3
NEON = INSTRUCTION_SETS.index("NEON dot product")
# The first time, zig compiles a C library for the other system; then qemu interprets.
pytestmark = pytest.mark.timeout(900)


def expected(name: str) -> str:
    lines = EXPECTED.read_text(encoding="utf-8").splitlines(keepends=True)
    if name == "AMX":
        lines = [line for line in lines if not line.startswith("fp32")]
        lines += AMX_FLOATS.read_text(encoding="utf-8").splitlines(keepends=True)
    return "".join(sorted(lines))


def in_order(printed: str) -> str:
    return "".join(sorted(printed.splitlines(keepends=True)))


def harness(triple: str, out: Path) -> Path:
    return compile_harness(triple, [*compile_objects(triple, out).values()], out)


def output(command: list[str], **environment: str) -> str:
    done = subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{done.returncode}: {done.stdout[-300:]}{done.stderr[-300:]}"
    return done.stdout


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return harness(NATIVE, tmp_path_factory.mktemp("native"))


@pytest.mark.parametrize("place", ["end", "start"])
def test_every_instruction_set_of_this_processor(
    place: str, native: Path, kernel_sets: tuple[str, ...]
) -> None:
    for name in kernel_sets:
        got = output([str(native), str(INSTRUCTION_SETS.index(name)), place])
        assert in_order(got) == expected(name), f"{name} gives other bits"


def test_what_the_processor_lacks_is_not_run(native: Path, kernel_sets: tuple[str, ...]) -> None:
    for number, name in enumerate(INSTRUCTION_SETS):
        if name not in kernel_sets:
            done = subprocess.run(
                [str(native), str(number), "end"], capture_output=True, text=True, check=False
            )
            assert (done.returncode, done.stdout) == (NOT_THERE, "")
            assert "does not run instruction set" in done.stderr


@pytest.mark.skipif(MACHINE.arch == "arm64", reason="this processor is one itself")
@pytest.mark.skipif(QEMU is None, reason="needs qemu-aarch64-static (qemu-user-static)")
def test_arm_under_qemu(tmp_path: Path) -> None:
    got = output([str(QEMU), str(harness(ARM64, tmp_path)), str(NEON), "end"])
    assert in_order(got) == expected("NEON dot product")


@pytest.mark.skipif(WINE is None or MACHINE.arch != "x64", reason="needs wine on an x86 processor")
def test_windows_under_wine(tmp_path: Path, kernel_sets: tuple[str, ...]) -> None:
    program = harness(WINDOWS, tmp_path)
    places = {"WINEPREFIX": str(tmp_path / "wine"), "WINEDEBUG": "-all"}
    for name in kernel_sets:
        words = [str(WINE), str(program), str(INSTRUCTION_SETS.index(name)), "end"]
        got = output(words, **places).replace("\r\n", "\n")
        assert in_order(got) == expected(name), f"{name} gives other bits"


@pytest.mark.parametrize(("file", "count"), [(EXPECTED, 39), (AMX_FLOATS, 13)], ids=["all", "AMX"])
def test_what_is_expected_is_of_vectors(file: Path, count: int) -> None:
    """No NaN and no zeros among it, and neighbouring cases differ."""
    lines = file.read_text(encoding="utf-8").splitlines()
    shown = [bits for line in lines for bits in re.findall(r" ([0-9a-f]{8})\b", line)]
    assert len(lines) == count
    assert len({re.findall(r"[0-9a-f]{16}", line)[0] for line in lines}) == len(lines)
    exponents = [int(bits, 16) >> 23 & 0xFF for bits in shown]
    assert 100 < min(exponents) <= max(exponents) < 140


def test_amx_floats_are_named_as_the_others() -> None:
    names = [
        [line.partition(":")[0] for line in file.read_text(encoding="utf-8").splitlines()]
        for file in (EXPECTED, AMX_FLOATS)
    ]
    assert [name for name in names[0] if name.startswith("fp32")] == names[1]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        program = str(harness(NATIVE, Path(scratch)))
        others = next(one for one in supported() if one != "AMX")
        for name, file in ((others, EXPECTED), ("AMX", AMX_FLOATS)):
            if name in supported():
                printed = output([program, str(INSTRUCTION_SETS.index(name)), "end"])
                kept = [x for x in printed.splitlines(True) if name == others or "fp32" in x]
                file.write_text("".join(kept), "utf-8")
