"""What is in each instruction set's object: all that it is for, and nothing that is not asked for.

Few processors have AVX-VNNI or AMX, and qemu emulates neither, so that where they are not, their
instructions at least are looked at. A file is called once
`ck_supported` has found what it needs: one instruction more, and it ends on some processor.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.kernels.processors import MACHINE, NATIVE, compile_objects, zig

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.skipif(
        sys.platform != "linux" or MACHINE.arch != "x64", reason="needs Linux's objdump for x86"
    ),
    pytest.mark.skipif(shutil.which("objdump") is None, reason="needs objdump (binutils)"),
]
# Of AVX-512 and later: in 64-bit code no other instruction begins with it (SDM volume 2, 2.7).
EVEX = "62"
DOT = {"vpdpbusd", "vpdpwssd"}
# Of extensions that no file is compiled for, and `ck_supported` does not look for.
OTHERS = re.compile(
    r"andn|bextr|bls[ir]|blsmsk|bzhi|mulx|pdep|pext|rorx|sarx|shlx|shrx|tzcnt|lzcnt|popcnt|movbe"
    r"|adcx|adox|gf2p8\w*|vgf2p8\w*|vpopcnt\w|vpconflict\w|vplzcnt\w|vpermb|vperm[it]2b"
    r"|vpcompress[bw]|vpexpand[bw]|vpsh[lr]d\w*|vpmadd52\w*|vpmultishiftqb|vcvtph2ps|vcvtps2ph"
    r"|v\w*bf16\w*|v\w+[ps]h|vpdpb[su]\w?d?s|vpdpwu\w+|vpdpw[su]sds|vpdpbss\w+|vpdpbuud\w*"
)
TILES = re.compile(r"(ld|st)tilecfg|tile\w+|td?p\w+|tcmm\w+")


class Instruction(NamedTuple):
    encoding: str
    mnemonic: str
    operands: str


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Instruction]]:
    objects = compile_objects(NATIVE, tmp_path_factory.mktemp("objects"))
    return {source: disassembled(path) for source, path in objects.items()}


def disassembled(path: Path) -> list[Instruction]:
    done = subprocess.run(
        ["objdump", "--disassemble", "--wide", str(path)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = []
    for line in done.stdout.splitlines():
        parts = line.split("\t")
        if len(parts) > 2:
            # `{vex}` says that there is another encoding; `cs`, `lock` and such are prefixes.
            words = re.sub(r"^(\{vex\}|cs|ds|data16|lock|rep\w*) +", "", parts[2]).split(maxsplit=1)
            found.append(Instruction(parts[1].strip(), words[0], " ".join(words[1:])))
    return found


def encodings(instructions: list[Instruction], mnemonics: set[str]) -> set[tuple[str, str]]:
    """Mnemonic and first byte."""
    return {(i.mnemonic, i.encoding[:2]) for i in instructions if i.mnemonic in mnemonics}


def test_every_object_has_instructions(code: dict[str, list[Instruction]]) -> None:
    assert all(len(found) > 100 for found in code.values())
    assert len(code) == 7


@pytest.mark.parametrize("source", ["kernels.c", "queue.c"])
def test_what_runs_first_is_for_every_processor(
    source: str, code: dict[str, list[Instruction]]
) -> None:
    wrong = [i for i in code[source] if i.mnemonic.startswith("v") or "mm" in i.operands]
    assert wrong == []


@pytest.mark.parametrize("source", ["avx2.c", "avx_vnni.c"])
def test_without_avx512_there_is_none_of_it(
    source: str, code: dict[str, list[Instruction]]
) -> None:
    wrong = [i for i in code[source] if i.encoding.startswith(EVEX)]
    wrong += [i for i in code[source] if re.search(r"%zmm|%k[0-7]", i.operands)]
    assert wrong == []
    assert any("%ymm" in i.operands for i in code[source])


def test_the_dot_product_is_where_it_is_asked_for(code: dict[str, list[Instruction]]) -> None:
    assert encodings(code["avx2.c"], DOT) == encodings(code["avx512.c"], DOT) == set()
    # The three-byte VEX, which AVX-VNNI has and AVX-512 VNNI has not (SDM volume 2, VPDPBUSD).
    assert encodings(code["avx_vnni.c"], DOT) == {(name, "c4") for name in DOT}
    assert encodings(code["avx512_vnni.c"], DOT) == {(name, EVEX) for name in DOT}
    assert all("%zmm" in i.operands for i in code["avx512_vnni.c"] if i.mnemonic in DOT)
    # Tiles multiply for its linear layers, and its attention is AVX-512 VNNI's.
    assert encodings(code["amx.c"], DOT) == set()


def test_tiles_are_where_they_are_asked_for(code: dict[str, list[Instruction]]) -> None:
    """Those of AMX-TILE, AMX-INT8 and AMX-BF16; whoever configures them gives them back."""
    found = {s: {i.mnemonic for i in c if TILES.fullmatch(i.mnemonic)} for s, c in code.items()}
    assert found.pop("amx.c") == {
        "ldtilecfg", "tilerelease", "tilezero", "tileloadd", "tilestored",
        "tdpbssd", "tdpbsud", "tdpbusd", "tdpbuud", "tdpbf16ps",
    }  # fmt: skip
    assert not any(found.values())


def test_nothing_that_no_one_asked_for(code: dict[str, list[Instruction]]) -> None:
    wrong = [(s, i) for s, found in code.items() for i in found if OTHERS.fullmatch(i.mnemonic)]
    assert wrong == []


@pytest.mark.parametrize("flags", ["-mbmi2", "-mavx512vbmi"])
def test_the_list_knows_what_a_flag_would_bring(flags: str, tmp_path: Path) -> None:
    source = tmp_path / "more.c"
    source.write_text(
        "#include <immintrin.h>\nunsigned long f(unsigned long x, int n) { return x << n; }\n"
        "#ifdef __AVX512VBMI__\n"
        "__m512i g(__m512i a, __m512i b) { return _mm512_permutexvar_epi8(a, b); }\n#endif\n",
        encoding="utf-8",
    )
    made = tmp_path / "more.o"
    zig(NATIVE, "-O2", flags, "-c", source.name, "-o", str(made), cwd=tmp_path)
    assert [i.mnemonic for i in disassembled(made) if OTHERS.fullmatch(i.mnemonic)]
