from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_embed.domain import OpenAIIds
from cortex_embed.errors import TOO_LONG, ModelFileError, TextError
from cortex_embed.providers import cl100k
from cortex_embed.providers.tokenizer import Tokenizer, pieces
from make_tiny import tiny_tokenizer, tiny_vocabulary

if TYPE_CHECKING:
    from cortex_embed.models.store import Artifact

CLS, SEP = 101, 102
TESTS = Path(__file__).resolve().parent.parent
README = TESTS.parent / "README.md"
OPENAI = json.loads((TESTS / "data" / "cl100k.json").read_text(encoding="utf-8"))["cases"]


@pytest.fixture(scope="module")
def tokenizer(minilm_artifact: Artifact) -> Tokenizer:
    return Tokenizer(minilm_artifact.tokenizer, max_tokens=256)


def ids(tokenizer: Tokenizer, text: str, **options: str) -> list[int]:
    settings = {"prefix": "", "truncate": "end"} | options
    return tokenizer.encode([text], **settings)[0].ids.tolist()  # type: ignore[arg-type, no-any-return]


def test_special_tokens_are_the_models(tokenizer: Tokenizer) -> None:
    assert ids(tokenizer, "hello world") == [CLS, 7592, 2088, SEP]


def test_a_prefix_goes_before_the_text(tokenizer: Tokenizer) -> None:
    assert ids(tokenizer, "world", prefix="hello ") == ids(tokenizer, "hello world")


def test_the_files_own_limit_of_128_is_ignored(tokenizer: Tokenizer) -> None:
    encoded = tokenizer.encode(["word " * 200], prefix="", truncate="end")[0]
    assert len(encoded.ids) == encoded.tokens == 202


def test_truncation_keeps_the_end_marker_and_counts(tokenizer: Tokenizer) -> None:
    text = " ".join(str(n) for n in range(1000, 1400))
    whole = tokenizer.encode([text], prefix="", truncate="end")[0]
    assert whole.tokens > 256
    assert len(whole.ids) == 256
    assert (whole.ids[0], whole.ids[-1]) == (CLS, SEP)
    last = tokenizer.encode([text], prefix="", truncate="start")[0]
    assert last.tokens == whole.tokens
    assert (last.ids[0], last.ids[-1]) == (CLS, SEP)
    assert last.ids[-2] == ids(tokenizer, "1399")[-2]


def test_exactly_the_limit_is_not_truncated(tokenizer: Tokenizer) -> None:
    encoded = tokenizer.encode(["a " * 254], prefix="", truncate="none")[0]
    assert len(encoded.ids) == encoded.tokens == 256


def test_refusing_to_truncate_names_both_numbers(tokenizer: Tokenizer) -> None:
    with pytest.raises(TextError, match=r"has 257 tokens.*at most 256") as caught:
        tokenizer.encode(["fine", "a " * 255], prefix="", truncate="none")
    assert caught.value.code == TOO_LONG
    assert caught.value.index == 1


@pytest.mark.parametrize("truncate", ["end", "start"])
def test_a_very_long_text_is_counted_as_if_in_one_piece(
    tokenizer: Tokenizer, truncate: str
) -> None:
    words = "The quick-brown fox, naïve café; 日本語 isn't 3.14! "
    text = words * 4000  # about 200,000 characters: several pieces
    encoded = tokenizer.encode([text], prefix="", truncate=truncate)[0]  # type: ignore[arg-type]
    each = len(ids(tokenizer, words)) - 2
    assert encoded.tokens == 4000 * each + 2
    near = words * 300
    assert encoded.ids.tolist() == ids(tokenizer, near, truncate=truncate)


def test_whitespace_before_a_late_text_is_no_loss(tokenizer: Tokenizer) -> None:
    assert ids(tokenizer, " " * 120_000 + "hello world") == ids(tokenizer, "hello world")


@given(st.text(alphabet="ab \n", max_size=300), st.integers(1, 50))
def test_pieces_join_to_the_text_and_never_cut_a_word(text: str, limit: int) -> None:
    parts = list(pieces(text, limit))
    assert "".join(parts) == text
    assert all(part[0].isspace() for part in parts[1:])
    assert [w for part in parts for w in part.split()] == text.split()


def test_a_text_without_any_token_is_refused(tmp_path: Path) -> None:
    """Where no special token stands around a text: an engine has nothing to compute on then."""
    made = tiny_tokenizer(tiny_vocabulary()) | {"post_processor": None}
    (tmp_path / "tokenizer.json").write_text(json.dumps(made), encoding="utf-8")
    bare = Tokenizer(tmp_path / "tokenizer.json", max_tokens=8)
    with pytest.raises(TextError, match="nothing is left of the text") as caught:
        bare.encode(["hello", " \t"], prefix="", truncate="end")
    assert caught.value.index == 1
    assert len(ids(bare, "hello")) == 1
    assert len(ids(bare, " ", prefix="hello ")) == 1


def test_own_token_ids_with_special_tokens_are_accepted(tokenizer: Tokenizer) -> None:
    encoded = tokenizer.encode([(CLS, 7592, 2088, SEP)], prefix="", truncate="end")[0]
    np.testing.assert_array_equal(encoded.ids, ids(tokenizer, "hello world"))


def test_own_token_ids_are_truncated_and_counted(tokenizer: Tokenizer) -> None:
    encoded = tokenizer.encode([(CLS, *[7592] * 300, SEP)], prefix="", truncate="end")[0]
    assert (len(encoded.ids), encoded.tokens, encoded.ids[-1]) == (256, 302, SEP)


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        ((CLS, 7592), "do not spell UTF-8"),
        ((CLS,), "do not spell UTF-8"),
        ((71, 6151, 385), "gives other ids"),
        ((7592, 2088), "could be its own"),  # "hello world" of this model, without the ends
        ((100_257,), "outside that vocabulary"),  # <|endoftext|>
        ((CLS, 30522, SEP), "token id 30522 at position 1 is outside"),
        ((CLS, -1, SEP), "token id -1 at position 1 is outside"),
        ((CLS, 10**30, SEP), "outside"),
    ],
)
def test_foreign_token_ids_never_become_a_vector_of_nothing(
    tokenizer: Tokenizer, sent: tuple[int, ...], reason: str
) -> None:
    with pytest.raises(TextError, match=reason) as caught:
        tokenizer.encode(["fine", sent], prefix="", truncate="end")
    assert "check_embedding_ctx_length=False" in caught.value.message
    assert caught.value.index == 1


@pytest.mark.parametrize("case", OPENAI, ids=lambda case: case["text"][:12])
def test_openais_token_ids_are_their_text(tokenizer: Tokenizer, case: dict[str, Any]) -> None:
    """As LangChain sends them: same ids of this model, same count, and said."""
    sent, plain = tokenizer.encode(
        [tuple(case["ids"]), case["text"]], prefix="query: ", truncate="end"
    )
    np.testing.assert_array_equal(sent.ids, plain.ids)
    assert (sent.tokens, sent.read_as) == (plain.tokens, "cl100k_base")
    assert plain.read_as is None


def test_own_ids_without_special_tokens_are_not_taken_for_openais(tokenizer: Tokenizer) -> None:
    """Eight words of anything are more ids than chance makes of another vocabulary's."""
    words = re.findall(r"[\w.,']+", README.read_text(encoding="utf-8"))
    for start in range(0, len(words) - 8, 3):
        own = ids(tokenizer, " ".join(words[start : start + 8]))[1:-1]
        with pytest.raises(TextError, match="not certain"):
            tokenizer.encode([tuple(own)], prefix="", truncate="end")


@pytest.mark.parametrize(
    "text",
    [
        "model to load before they are answered with",
        "395 OpenVINO bf16 1841 2.82 199 3.81 275",
        "result is not a GenericAlias object n' Menu",
    ],
)
def test_own_ids_that_spell_something_usual_for_openai_are_refused(
    tokenizer: Tokenizer, text: str
) -> None:
    """By frequency alone they would be OpenAI's: a vector of nonsense that nobody sees."""
    own = tuple(ids(tokenizer, text)[1:-1])
    (openais,) = tokenizer.encode([OpenAIIds(own)], prefix="", truncate="end")
    assert openais.read_as == "cl100k_base"
    with pytest.raises(TextError, match="could be its own"):
        tokenizer.encode([own], prefix="", truncate="end")


def test_openais_own_client_is_believed(tokenizer: Tokenizer) -> None:
    """Ids that could be this model's, too; its special tokens still say whose they are."""
    both = (7592, 2088)
    with pytest.raises(TextError, match="could be its own"):
        tokenizer.encode([both], prefix="", truncate="end")
    (read,) = tokenizer.encode([OpenAIIds(both)], prefix="", truncate="end")
    assert read.read_as == "cl100k_base"
    (own,) = tokenizer.encode([OpenAIIds((CLS, *both, SEP))], prefix="", truncate="end")
    assert own.read_as is None
    assert own.ids.tolist() == [CLS, *both, SEP]


def test_without_the_vocabulary_openais_ids_are_refused(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cl100k, "cl100k", lambda: None)
    with pytest.raises(TextError, match=r"carries no other vocabulary.*check_embedding_ctx_length"):
        tokenizer.encode([(15339, 1917)], prefix="", truncate="end")


def test_token_ids_cannot_take_a_prefix(tokenizer: Tokenizer) -> None:
    with pytest.raises(TextError, match="prefix"):
        tokenizer.encode([(CLS, 7592, SEP)], prefix="query: ", truncate="end")


def test_a_file_that_is_no_tokenizer_names_itself(tmp_path: Path) -> None:
    file = tmp_path / "tokenizer.json"
    file.write_text(json.dumps({"model": "?"}))
    with pytest.raises(ModelFileError, match="is not a tokenizer") as caught:
        Tokenizer(file, max_tokens=8)
    assert str(file) in caught.value.message


def test_tokens_say_what_they_stand_for(tokenizer: Tokenizer) -> None:
    (found,) = tokenizer.tokens(["Naïve 😀 worlds"], prefix="q: ", special=True)
    assert [token.id for token in found] == ids(tokenizer, "q: Naïve 😀 worlds")
    assert found[0].special
    assert (found[0].text, found[0].start, found[0].stop) == ("[CLS]", None, None)
    whole = "q: Naïve 😀 worlds"
    for token in found[1:-1]:
        assert not token.special
        assert token.text == whole[token.start : token.stop] != ""
    (bare,) = tokenizer.tokens(["hello"], prefix="", special=False)
    assert [token.text for token in bare] == ["hello"]


def test_nothing_is_cut_from_tokens(tokenizer: Tokenizer) -> None:
    (found,) = tokenizer.tokens(["word " * 1000], prefix="", special=True)
    assert len(found) == 1002


def test_ids_back_to_texts(tokenizer: Tokenizer) -> None:
    given_ids = [ids(tokenizer, "hello world"), []]
    assert tokenizer.texts(given_ids, skip_special=True) == ["hello world", ""]
    assert tokenizer.texts(given_ids, skip_special=False) == ["[CLS] hello world [SEP]", ""]
    with pytest.raises(TextError, match="token id 30522 at position 1 is outside") as caught:
        tokenizer.texts([[101], [101, 30522]], skip_special=True)
    assert caught.value.index == 1
