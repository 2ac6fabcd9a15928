"""`embed` as a real process: what it prints, writes, and exits with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from cortex_embed.models.store import Artifact

pytestmark = pytest.mark.e2e


def embed(
    model: Artifact, *arguments: str, stdin: bytes = b"", cwd: Path | None = None
) -> subprocess.CompletedProcess[bytes]:
    exe = os.environ.get("CORTEX_EMBED_EXE")
    program = [exe] if exe else [sys.executable, "-m", "cortex_embed"]
    return subprocess.run(
        [*program, "embed", "--model", str(model.directory), *arguments],
        input=stdin,
        capture_output=True,
        timeout=110,
        check=False,
        cwd=cwd,
    )


def rows(done: subprocess.CompletedProcess[bytes]) -> list[dict[str, Any]]:
    assert done.returncode == 0, done.stderr.decode()
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_arguments_to_json_lines(tiny_mean: Artifact) -> None:
    done = embed(tiny_mean, "one", "two")
    found = rows(done)
    assert [row["index"] for row in found] == [0, 1]
    assert len(found[0]["embedding"]) == tiny_mean.spec.dimensions
    assert done.stderr == b""  # no bar, no chatter in a pipe


def test_stdin_file_and_arguments_give_the_same_vectors(
    tiny_mean: Artifact, tmp_path: Path
) -> None:
    texts = ["one", "two words", "naïve 日本語"]
    (tmp_path / "in.txt").write_text("\n".join(texts), encoding="utf-8")
    (tmp_path / "in.jsonl").write_text("\n".join(json.dumps({"text": t}) for t in texts))
    by_arguments = rows(embed(tiny_mean, *texts))
    by_stdin = rows(embed(tiny_mean, stdin="\n".join(texts).encode()))
    by_file = rows(embed(tiny_mean, "--input", str(tmp_path / "in.txt")))
    by_json = rows(embed(tiny_mean, "--input", str(tmp_path / "in.jsonl")))
    assert by_arguments == by_stdin == by_file == by_json


def test_many_lines_to_npy_in_order(tiny_mean: Artifact, tmp_path: Path) -> None:
    texts = [f"text {n} " + "word " * (n % 30) for n in range(3000)]
    (tmp_path / "in.txt").write_text("\n".join(texts) + "\n")
    done = embed(tiny_mean, "--input", "in.txt", "--output", "ünï côde.npy", cwd=tmp_path)
    assert done.returncode == 0, done.stderr.decode()
    array = np.load(tmp_path / "ünï côde.npy")
    assert array.shape == (3000, tiny_mean.spec.dimensions)
    picked = [0, 511, 512, 1777, 2999]
    alone = [rows(embed(tiny_mean, texts[n]))[0]["embedding"] for n in picked]
    np.testing.assert_allclose(array[picked], alone, atol=1e-6)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.txt", "ünï côde.npy"]


def test_dimensions_shorten(tiny_mean: Artifact) -> None:
    (row,) = rows(embed(tiny_mean, "--dimensions", "8", "one"))
    assert len(row["embedding"]) == 8
    assert abs(np.linalg.norm(row["embedding"]) - 1) < 1e-5


def test_truncation_is_reported(tiny_mean: Artifact) -> None:
    done = embed(tiny_mean, "a " * 500, "short")
    cut, whole = rows(done)
    assert cut["truncated"] == {"tokens": 502, "used": tiny_mean.spec.max_tokens}
    assert "truncated" not in whole
    assert b"1 of 2 texts were truncated" in done.stderr


def test_overlong_can_be_an_error(tiny_mean: Artifact) -> None:
    done = embed(tiny_mean, "--on-overlong", "error", "short", "a " * 500)
    assert done.returncode == 5
    assert b"argument 2: the text has 502 tokens" in done.stderr


def test_a_bad_line_stops_with_its_number_and_loses_nothing_before(
    tiny_mean: Artifact, tmp_path: Path
) -> None:
    content = b"\n".join([b"good"] * 1200 + [b"", b"good"])
    (tmp_path / "in.txt").write_bytes(content)
    done = embed(tiny_mean, "--input", "in.txt", "--output", "out.npy", cwd=tmp_path)
    assert done.returncode == 5
    assert b"line 1201 is empty" in done.stderr
    assert b"The first 1200 vectors are in" in done.stderr
    assert not (tmp_path / "out.npy").exists()
    assert np.load(tmp_path / "out.npy.part").shape[0] == 1200


def test_bad_lines_can_be_skipped_and_are_counted(tiny_mean: Artifact) -> None:
    done = embed(tiny_mean, "--skip-invalid", stdin=b"one\n\n\xff\nfour\n")
    assert [row["index"] for row in rows(done)] == [0, 3]
    assert b"2 lines were skipped; 2 texts were embedded" in done.stderr


def test_nothing_in_nothing_out(tiny_mean: Artifact) -> None:
    assert rows(embed(tiny_mean, stdin=b"")) == []


@pytest.mark.skipif(sys.platform == "win32", reason="EPIPE is POSIX's")
def test_a_reader_that_leaves_ends_it_quietly(tiny_mean: Artifact, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("text\n" * 20_000)
    command = [sys.executable, "-m", "cortex_embed", "embed"]
    command += ["--model", str(tiny_mean.directory), "--input", str(tmp_path / "in.txt")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 141


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full is Linux's")
def test_a_full_disk_is_an_error(tiny_mean: Artifact, tmp_path: Path) -> None:
    (tmp_path / "out.jsonl.part").symlink_to("/dev/full")
    texts = "text\n" * 4000
    done = embed(tiny_mean, "--output", str(tmp_path / "out.jsonl"), stdin=texts.encode())
    assert done.returncode == 6
    assert b"No space left on device" in done.stderr


@pytest.mark.real
def test_the_default_model_embeds(minilm_artifact: Artifact) -> None:
    (row,) = rows(embed(minilm_artifact, "hello world"))
    # Published by qdrant/fastembed for this model.
    expected = [-0.034478, 0.03102, 0.00673, 0.02611, -0.039362]
    np.testing.assert_allclose(row["embedding"][:5], expected, atol=1e-3)
