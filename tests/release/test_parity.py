"""The judge itself: the texts cover every length, and a difference is never called parity."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

import parity
import parity_judge
from cortex_embed.errors import SelfTestError, UsageError
from make_families import TINY
from parity_texts import golden_texts, texts_up_to
from tests.models_fixtures import DATA

if TYPE_CHECKING:
    from pathlib import Path

    from cortex_embed.models.artifact import Artifact


def verdict(difference: float, cosine: float) -> parity_judge.Verdict:
    return parity_judge.Verdict("m", "how", 1, "3-3", difference, cosine)


def test_texts_reach_from_one_token_to_beyond_the_limit(tiny_mean: Artifact) -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(tiny_mean.tokenizer))
    limit = tiny_mean.spec.max_tokens
    lengths = {len(tokenizer.encode(t).ids) for t in texts_up_to(tiny_mean.tokenizer, limit)}
    assert {3, 4, limit - 1, limit, limit + 1} <= lengths
    assert max(lengths) > 2 * limit


def test_the_last_golden_text_is_over_the_limit(tiny_cls: Artifact) -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(tiny_cls.tokenizer))
    assert len(tokenizer.encode(golden_texts(64)[-1]).ids) > 64


def test_identical_vectors_agree() -> None:
    vectors = np.eye(3, dtype=np.float32)
    assert parity_judge.compare(vectors, vectors) == (0.0, 1.0)


def test_a_wrong_row_is_seen() -> None:
    vectors = np.eye(3, dtype=np.float32)
    difference, cosine = parity_judge.compare(vectors, vectors[[0, 2, 1]])
    assert (difference, cosine) == (1.0, 0.0)


def test_other_shapes_are_an_error() -> None:
    with pytest.raises(SelfTestError, match="Shapes differ"):
        parity_judge.compare(np.zeros((2, 3), np.float32), np.zeros((2, 4), np.float32))


@pytest.mark.parametrize(
    ("difference", "cosine", "passed"),
    [
        (9e-6, 0.9999995, True),
        (1.1e-5, 1.0, False),
        (0.0, 0.999998, False),
        (float("nan"), 1.0, False),
        (0.0, float("nan"), False),
    ],
)
def test_a_verdict(difference: float, cosine: float, passed: bool) -> None:
    assert verdict(difference, cosine).passed is passed


def test_batches_come_back_in_order() -> None:
    def embed(texts: list[str]) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
        return np.array([[float(t)] for t in texts], dtype=np.float32)

    texts = [str(i) for i in range(21)]
    found = parity_judge.in_batches(embed, texts, 8)  # type: ignore[arg-type]
    assert found.ravel().tolist() == [float(i) for i in range(21)]


def test_a_model_without_reference_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="There is no reference for model 'gpt'"):
        parity.subjects(tmp_path, "gpt")


def test_a_server_that_is_not_there_is_an_error(
    tmp_path: Path, unused_tcp_port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"http://127.0.0.1:{unused_tcp_port}"
    assert parity.main(["--work", str(tmp_path), "--url", url]) == 2
    assert "Is the server running?" in capsys.readouterr().err


def test_golden_files_say_where_they_come_from() -> None:
    import json

    files = sorted(DATA.glob("golden-*.json"))
    tiny = {f"golden-{name}.json" for name in ("tiny-cls", "tiny-mean", *TINY)}
    assert {file.name for file in files} == tiny | {"golden-bge-geometry.json"}
    for file in files:
        source = json.loads(file.read_text(encoding="utf-8"))["source"]
        assert "transformers" in source
        assert "eager attention" in source
