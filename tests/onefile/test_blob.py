"""What is packed reads back, and damage is named."""

from __future__ import annotations

import io
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_embed.errors import ModelFileError
from cortex_embed.onefile import blob
from tests.onefile.conftest import blob_of

FILES = {"numpy/core.so": b"core" * 1000, "empty": b"", "a b/ü.bin": b"\0\1\2"}


def test_every_file_reads_back_at_its_offset(tmp_path: Path) -> None:
    raw = b"before" + blob_of(tmp_path / "s", FILES, {"numpy.core": "numpy/core.so"}) + b"after"
    index = blob.read_index(io.BytesIO(raw), 6, len(raw) - 11)
    assert index.modules == {"numpy.core": "numpy/core.so"}
    assert set(index.files) == set(FILES)
    for path, content in FILES.items():
        entry = index.files[path]
        assert raw[entry.offset : entry.offset + entry.size] == content
        assert entry.crc32 == zlib.crc32(content)


def test_what_a_module_needs_is_kept_in_order(tmp_path: Path) -> None:
    source = tmp_path / "a"
    source.write_bytes(b"a")
    out = io.BytesIO()
    blob.write(out, {"a": source}, {"m": "a"}, {"m": ["libb.so", "liba.so"]})
    index = blob.read_index(out, 0, len(out.getvalue()))
    assert index.needs == {"m": ["libb.so", "liba.so"]}


def test_the_key_follows_the_content(tmp_path: Path) -> None:
    def key(files: dict[str, bytes]) -> str:
        raw = blob_of(tmp_path / "k", files, {})
        return blob.read_index(io.BytesIO(raw), 0, len(raw)).key

    assert key(FILES) == key(FILES)
    assert key(FILES) != key(FILES | {"empty": b"1"})
    assert key({"a": b"xy"}) != key({"a": b"yx"})


@pytest.mark.parametrize("cut", [0, 8, 15, 40, 200])
def test_a_cut_blob_is_an_error(tmp_path: Path, cut: int) -> None:
    raw = blob_of(tmp_path / "c", FILES, {})[:cut]
    with pytest.raises(ModelFileError, match="damaged"):
        blob.read_index(io.BytesIO(raw), 0, len(raw))


@given(st.binary(max_size=200))
def test_no_bytes_give_another_error(raw: bytes) -> None:
    with pytest.raises(ModelFileError, match="damaged"):
        blob.read_index(io.BytesIO(raw), 0, len(raw))
