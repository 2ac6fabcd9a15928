"""One artifact directory: what intact means, and what is said of each way not to be."""

from __future__ import annotations

import json
import os
import shutil
import sys
from typing import TYPE_CHECKING, Any

import pytest

from cortex_embed.errors import ModelFileError
from cortex_embed.models.artifact import GRAPH, MANIFEST, TOKENIZER, hash_file, load_artifact

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cortex_embed.models.artifact import Artifact

OPTIONAL = {"notes", "fingerprints"}


@pytest.fixture
def copy(tiny_cls: Artifact, tmp_path: Path) -> Artifact:
    """A copy that a test may damage, under a path with a space and beyond ASCII."""
    return load_artifact(shutil.copytree(tiny_cls.directory, tmp_path / "mödels und 模型"))


def rewrite(artifact: Artifact, change: Callable[[dict[str, Any]], None]) -> Path:
    """Change the manifest and give the directory."""
    path = artifact.directory / MANIFEST
    manifest = json.loads(path.read_text(encoding="utf-8"))
    change(manifest)
    path.write_text(json.dumps(manifest), encoding="utf-8")
    return artifact.directory


def test_an_intact_directory_verifies(copy: Artifact) -> None:
    copy.verify()
    assert copy.spec.id == "tiny-cls"
    assert copy.precisions == ("fp32", "int8")
    assert {GRAPH, TOKENIZER} < set(copy.files)
    assert {g.file for g in copy.graphs} | {g.data for g in copy.graphs} < set(copy.files)
    assert set(copy.sources) == {"config.json", "model.safetensors", "tokenizer.json"}
    assert copy.manifest["heads"] == 4


def test_the_manifest_gives_back_the_whole_spec(copy: Artifact) -> None:
    from make_tiny import tiny_spec

    assert copy.spec == tiny_spec("cls")


@pytest.mark.parametrize("name", [GRAPH, TOKENIZER])
def test_one_flipped_bit_names_the_file_and_both_hashes(copy: Artifact, name: str) -> None:
    path = copy.directory / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ModelFileError) as caught:
        copy.verify()
    for part in (str(path), hash_file(path), copy.files[name].sha256, "nox -s serve"):
        assert part in caught.value.message
    assert caught.value.exit_code == 3


def test_a_cut_file_names_both_sizes(copy: Artifact) -> None:
    size = copy.graph.stat().st_size
    os.truncate(copy.graph, size - 1)
    with pytest.raises(
        ModelFileError, match=rf"has {size - 1:,} bytes and SHA-256 .*, expected {size:,} bytes"
    ):
        copy.verify()


def test_a_missing_file_is_named(copy: Artifact) -> None:
    copy.tokenizer.unlink()
    with pytest.raises(ModelFileError, match=r"tokenizer\.json cannot be read: No such file"):
        copy.verify()


@pytest.mark.skipif(sys.platform == "win32", reason="making a symbolic link needs a privilege")
def test_an_unreadable_file_is_named(copy: Artifact) -> None:
    # Not chmod: the tests may run as root, who reads everything.
    copy.graph.unlink()
    copy.graph.symlink_to(copy.graph)
    with pytest.raises(ModelFileError, match=r"model\.onnx cannot be read: .*symbolic link"):
        copy.verify()


def test_a_file_that_fails_while_reading_is_named(
    copy: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Path) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("cortex_embed.models.artifact.hash_file", refuse)
    with pytest.raises(
        ModelFileError, match=r"model\.compatible\.onnx cannot be read: Permission denied"
    ):
        copy.verify()


def test_a_directory_in_a_files_place_is_refused(copy: Artifact) -> None:
    copy.graph.unlink()
    copy.graph.mkdir()
    with pytest.raises(ModelFileError, match=r"model\.onnx is not a regular file"):
        copy.verify()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no FIFOs in directories")
def test_a_pipe_in_a_files_place_is_refused_without_waiting(copy: Artifact) -> None:
    copy.graph.unlink()
    os.mkfifo(copy.graph)
    with pytest.raises(ModelFileError, match=r"model\.onnx is not a regular file"):
        copy.verify()


def test_every_required_key_is_required(copy: Artifact) -> None:
    original = (copy.directory / MANIFEST).read_bytes()
    for key in set(copy.manifest) - OPTIONAL:
        directory = rewrite(copy, lambda m, key=key: m.pop(key))  # type: ignore[misc]
        with pytest.raises(ModelFileError, match=f"`{key}` is missing"):
            load_artifact(directory)
        (copy.directory / MANIFEST).write_bytes(original)


def test_every_key_is_typed(copy: Artifact) -> None:
    original = (copy.directory / MANIFEST).read_bytes()
    for key, value in copy.manifest.items():
        if key in OPTIONAL:
            continue
        wrong = 7 if isinstance(value, str | bool | list | dict) else "seven"
        directory = rewrite(copy, lambda m, k=key, w=wrong: m.update({k: w}))  # type: ignore[misc]
        with pytest.raises(ModelFileError, match=f"`{key}` must be"):
            load_artifact(directory)
        (copy.directory / MANIFEST).write_bytes(original)


def test_a_future_schema_says_so_before_anything_else(copy: Artifact) -> None:
    path = copy.directory / MANIFEST
    path.write_text('{"schema": 3}', encoding="utf-8")
    with pytest.raises(ModelFileError, match=r"`schema` is 3, .* reads 2"):
        load_artifact(copy.directory)


def test_an_unknown_key_is_no_error(copy: Artifact) -> None:
    assert load_artifact(rewrite(copy, lambda m: m.update(later=1))).spec == copy.spec


@pytest.mark.parametrize("name", ["../passwd", "a/b", "C:x", "a\\b", "..", ""])
def test_a_file_outside_the_directory_is_refused(copy: Artifact, name: str) -> None:
    directory = rewrite(copy, lambda m: m["files"].update({name: {"size": 1, "sha256": "0" * 64}}))
    with pytest.raises(ModelFileError, match="not a plain file name"):
        load_artifact(directory)


def test_the_graph_and_the_tokenizer_must_be_listed(copy: Artifact) -> None:
    original = (copy.directory / MANIFEST).read_bytes()
    with pytest.raises(ModelFileError, match=r"graphs\[0\]: 'model\.onnx' is not among `files`"):
        load_artifact(rewrite(copy, lambda m: m["files"].pop(GRAPH)))
    (copy.directory / MANIFEST).write_bytes(original)
    with pytest.raises(ModelFileError, match=r"files: .*`tokenizer\.json` is missing"):
        load_artifact(rewrite(copy, lambda m: m["files"].pop(TOKENIZER)))


def test_an_artifact_of_int8_alone_is_whole(copy: Artifact) -> None:
    def only_int8(manifest: dict[str, Any]) -> None:
        manifest["graphs"] = [g for g in manifest["graphs"] if g["precision"] == "int8"]
        kept = {g[key] for g in manifest["graphs"] for key in ("file", "data")} | {TOKENIZER}
        manifest["files"] = {n: f for n, f in manifest["files"].items() if n in kept}

    artifact = load_artifact(rewrite(copy, only_int8))
    artifact.verify()
    assert artifact.precisions == ("int8",)
    assert artifact.graph_for("int8", 24).name == "model.int8.onnx"
    assert artifact.graph_for("int8", 23).name == "model.int8.compatible.onnx"
    with pytest.raises(ModelFileError, match="no fp32 graph"):
        artifact.graph_for("fp32", 24)


def test_graphs_of_token_states_are_apart_from_those_that_pool(copy: Artifact) -> None:
    for precision, stem in (("fp32", "model"), ("int8", "model.int8")):
        newest, older = (copy.token_graph_for(precision, opset) for opset in (24, 23))
        assert newest == copy.directory / f"{stem}.tokens.onnx"
        assert older == copy.directory / f"{stem}.tokens.compatible.onnx"
        assert copy.token_graph_for(precision, 19) is None
        assert copy.graph_for(precision, 24) == copy.directory / f"{stem}.onnx"


def test_an_artifact_from_before_token_states_is_whole(copy: Artifact) -> None:
    def without(manifest: dict[str, Any]) -> None:
        manifest["graphs"] = [g for g in manifest["graphs"] if "output" not in g]
        manifest["files"] = {n: f for n, f in manifest["files"].items() if "tokens" not in n}

    artifact = load_artifact(rewrite(copy, without))
    artifact.verify()
    assert artifact.precisions == ("fp32", "int8")
    assert artifact.token_graph_for("fp32", 24) is None


def test_graphs_of_token_states_alone_are_no_precision(copy: Artifact) -> None:
    def only_tokens(manifest: dict[str, Any]) -> None:
        rows = manifest["graphs"]
        manifest["graphs"] = [g for g in rows if g["precision"] == "int8" or "output" in g]

    artifact = load_artifact(rewrite(copy, only_tokens))
    assert artifact.precisions == ("int8",)
    with pytest.raises(ModelFileError, match="no fp32 graph"):
        artifact.graph_for("fp32", 24)


def test_an_unknown_output_is_named(copy: Artifact) -> None:
    with pytest.raises(ModelFileError, match=r"graphs\[1\]: `output` is 'speech', must be one of"):
        load_artifact(rewrite(copy, lambda m: m["graphs"][1].update(output="speech")))


def test_a_precisions_files_are_verified_and_no_others(copy: Artifact) -> None:
    (copy.directory / "model.int8.onnx.data").write_bytes(b"damaged")
    copy.verify("fp32")
    for precision in ("int8", None):
        with pytest.raises(ModelFileError, match=r"model\.int8\.onnx\.data has"):
            copy.verify(precision)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b"\xff\xfe", "not UTF-8"),
        (b"[1]", "must be a table of keys and values, not a list"),
        (b"null", "must be a table of keys and values, not null"),
    ],
)
def test_a_malformed_manifest_is_named(copy: Artifact, content: bytes, words: str) -> None:
    (copy.directory / MANIFEST).write_bytes(content)
    with pytest.raises(ModelFileError) as caught:
        load_artifact(copy.directory)
    assert str(copy.directory / MANIFEST) in caught.value.message
    assert words in caught.value.message


def test_a_directory_without_manifest_is_no_artifact(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"holds no manifest\.json"):
        load_artifact(tmp_path)


def test_a_manifest_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / MANIFEST).mkdir()
    with pytest.raises(ModelFileError, match=r"manifest\.json cannot be read"):
        load_artifact(tmp_path)
