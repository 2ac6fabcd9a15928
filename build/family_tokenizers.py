"""Tiny tokenizers of the three kinds that the families use, as `tokenizer.json` holds them.

They share the words of BERT's tiny vocabulary, so that texts have known lengths. Each carries
a truncation of its own, which an export must remove. They must never change: golden vectors
in tests/data depend on their ids.
"""

from __future__ import annotations

from typing import Any

from make_tiny import tiny_tokenizer, tiny_vocabulary

_SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")  # ids 0 to 3 in every repository of these families
_MASK = "<mask>"
_BERT = 5  # tiny_vocabulary starts with as many special tokens of BERT's
_SPACE = "\u2581"  # how SentencePiece writes a space


def word_pieces() -> dict[str, Any]:
    """MPNet's: BERT's WordPiece, but for its special tokens."""
    bert = tiny_tokenizer(tiny_vocabulary())
    tokens = [*_SPECIAL, "[UNK]", *tiny_vocabulary()[_BERT:], _MASK]
    ids = {token: index for index, token in enumerate(tokens)}
    model = bert["model"] | {"vocab": ids}
    return bert | {"added_tokens": _added(ids), "post_processor": _ends(ids), "model": model}


def unigrams() -> dict[str, Any]:
    """XLM-RoBERTa's: Unigram, a list of pieces with the logarithm of their probability."""
    words = [w for w in tiny_vocabulary()[_BERT:] if w.isascii() and w.isalpha()]
    letters = [w for w in tiny_vocabulary()[_BERT:] if len(w) == 1]
    endings = [w.removeprefix("##") for w in tiny_vocabulary() if w.startswith("##")]
    pieces = [_SPACE, *(_SPACE + w for w in words), *letters, *endings]
    pieces = list(dict.fromkeys(pieces))
    vocab: list[list[object]] = [[token, 0.0] for token in _SPECIAL]
    vocab += [[piece, -4.0 - 0.01 * index] for index, piece in enumerate(pieces)]
    vocab.append([_MASK, 0.0])
    ids = {str(token): index for index, (token, _) in enumerate(vocab)}
    spaces = {"type": "Metaspace", "replacement": _SPACE, "prepend_scheme": "always", "split": True}
    return tiny_tokenizer(tiny_vocabulary()) | {
        "added_tokens": _added(ids),
        "normalizer": {"type": "NFKC"},
        "pre_tokenizer": spaces,
        "post_processor": _template(ids),
        "decoder": spaces,
        "model": {"type": "Unigram", "unk_id": 3, "vocab": vocab, "byte_fallback": False},
    }


def byte_pairs() -> dict[str, Any]:
    """RoBERTa's: BPE over bytes, words grown from their first letter on."""
    from tokenizers.pre_tokenizers import ByteLevel

    alphabet = sorted(ByteLevel.alphabet())
    space = "\u0120"  # how ByteLevel writes a space
    words = [w for w in tiny_vocabulary()[_BERT:] if w.isascii() and w.isalpha() and len(w) > 1]
    merges: dict[tuple[str, str], None] = {}
    for word in words:
        for end in range(len(word)):
            merges[space + word[:end], word[end]] = None
    tokens = [*_SPECIAL, *alphabet, *(a + b for a, b in merges), _MASK]
    ids = {token: index for index, token in enumerate(tokens)}
    return tiny_tokenizer(tiny_vocabulary()) | {
        "added_tokens": _added(ids),
        "normalizer": None,
        "pre_tokenizer": {
            "type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True,
        },
        "post_processor": _ends(ids),
        "decoder": {
            "type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True,
        },
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": "",
            "end_of_word_suffix": "", "fuse_unk": False, "byte_fallback": False,
            "vocab": ids, "merges": [f"{a} {b}" for a, b in merges],
        },
    }  # fmt: skip


def _added(ids: dict[str, int]) -> list[dict[str, Any]]:
    plain = {"single_word": False, "rstrip": False, "normalized": False, "special": True}
    return [{"id": ids[t], "content": t, "lstrip": t == _MASK, **plain} for t in (*_SPECIAL, _MASK)]


def _ends(ids: dict[str, int]) -> dict[str, Any]:
    """<s> text </s>, as RoBERTa's and MPNet's files say it."""
    return {
        "type": "RobertaProcessing",
        "sep": ["</s>", ids["</s>"]],
        "cls": ["<s>", ids["<s>"]],
        "trim_offsets": True,
        "add_prefix_space": False,
    }


def _template(ids: dict[str, int]) -> dict[str, Any]:
    """<s> text </s>, as XLM-RoBERTa's file says it."""

    def piece(token: str) -> dict[str, Any]:
        return {"SpecialToken": {"id": token, "type_id": 0}}

    single = [piece("<s>"), {"Sequence": {"id": "A", "type_id": 0}}, piece("</s>")]
    pair = [piece("</s>"), {"Sequence": {"id": "B", "type_id": 0}}, piece("</s>")]
    return {
        "type": "TemplateProcessing",
        "single": single,
        "pair": [*single, *pair],
        "special_tokens": {t: {"id": t, "ids": [ids[t]], "tokens": [t]} for t in ("<s>", "</s>")},
    }


def ended_byte_pairs() -> dict[str, Any]:
    """Qwen's: BPE over bytes, nothing before a text and one token after it, which is pooled."""
    from tokenizers.pre_tokenizers import ByteLevel

    end = "<|endoftext|>"
    merges, words = _spelled("\u0120")
    tokens = [*sorted(ByteLevel.alphabet()), *(a + b for a, b in merges), *words, end]
    ids = {token: index for index, token in enumerate(tokens)}
    steps = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    given = byte_pairs()
    return given | {
        "truncation": None,
        "added_tokens": [_token(ids[end], end)],
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": steps | {"use_regex": True},
        "post_processor": {
            "type": "Sequence",
            "processors": [steps | {"use_regex": False}, _around(ids, after=end)],
        },
        "decoder": steps | {"use_regex": False},
        "model": given["model"]
        | {"vocab": ids, "merges": [list(pair) for pair in merges], "ignore_merges": True},
    }


def spaced_pairs() -> dict[str, Any]:
    """Gemma's: BPE over characters, a space being one of them; bytes for what has no token."""
    start, end = "<bos>", "<eos>"
    merges, words = _spelled(_SPACE)
    letters = [w for w in tiny_vocabulary()[_BERT:] if len(w) == 1]
    values = [f"<0x{value:02X}>" for value in range(256)]
    pairs = [a + b for a, b in merges]
    tokens = ["<pad>", end, start, "<unk>", *values, _SPACE, *letters, *pairs, *words]
    ids = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    return tiny_tokenizer(tiny_vocabulary()) | {
        "truncation": None,
        "added_tokens": [_token(ids[token], token) for token in tokens[:4]],
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE},
        "pre_tokenizer": {
            "type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious",
            "invert": False,
        },
        "post_processor": _around(ids, before=start, after=end),
        "decoder": None,
        "model": {
            "type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True,
            "ignore_merges": True, "vocab": ids, "merges": [list(pair) for pair in merges],
        },
    }  # fmt: skip


def _spelled(space: str) -> tuple[list[tuple[str, str]], list[str]]:
    """Merges that spell every word after a space, from there on; and the words without one.

    Merges for these too would join letters inside other words.
    """
    words = [w for w in tiny_vocabulary()[_BERT:] if w.isascii() and w.isalpha() and len(w) > 1]
    merges = {(space + word[:at], word[at]): None for word in words for at in range(len(word))}
    return list(merges), words


def _token(index: int, token: str) -> dict[str, Any]:
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {"id": index, "content": token, "special": True, **plain}


def _around(ids: dict[str, int], *, before: str = "", after: str) -> dict[str, Any]:
    """A template with one special token after a text, and perhaps one before it."""

    def piece(token: str) -> list[dict[str, Any]]:
        return [{"SpecialToken": {"id": token, "type_id": 0}}] if token else []

    text = {"Sequence": {"id": "A", "type_id": 0}}
    single = [*piece(before), text, *piece(after)]
    second = {"Sequence": {"id": "B", "type_id": 1}}
    used = [token for token in (before, after) if token]
    return {
        "type": "TemplateProcessing",
        "single": single,
        "pair": [*single, second],
        "special_tokens": {t: {"id": t, "ids": [ids[t]], "tokens": [t]} for t in used},
    }
