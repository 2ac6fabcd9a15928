"""Typed reads: what is accepted, and that an error names the file and the key."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cortex_embed.errors import ModelFileError
from cortex_embed.models.table import Table

if TYPE_CHECKING:
    from collections.abc import Callable


def table(**values: object) -> Table:
    return Table(values, "some.json", way_out="Do that.")


def test_values_come_back() -> None:
    t = table(a="x", b=3, c=0.5, d=True, e=["x", "y"], f=[1, 2], g=[1, 0.5], h={"i": 1}, j="")
    assert t.text("a") == "x"
    assert t.text("j", empty=True) == ""
    assert t.whole("b", low=3) == 3
    assert t.number("c") == 0.5
    assert t.number("b") == 3.0
    assert t.flag("d") is True
    assert t.texts("e") == ("x", "y")
    assert t.wholes("f") == (1, 2)
    assert t.numbers("g") == (1.0, 0.5)
    assert t.table("h").whole("i", low=0) == 1
    assert t.tables("absent") == []


@pytest.mark.parametrize(
    ("read", "value", "words"),
    [
        (lambda t: t.text("k"), 3, "a string, not 3"),
        (lambda t: t.text("k"), None, "a string, not null"),
        (lambda t: t.text("k"), "", "must not be empty"),
        (lambda t: t.choice("k", ("x", "y")), "z", "'z', must be one of x, y"),
        (lambda t: t.sha256("k"), "AB", "64 lower-case hexadecimal digits"),
        (lambda t: t.whole("k", low=1), 0, "at least 1, not 0"),
        (lambda t: t.whole("k", low=1), True, "a whole number, not true or false"),
        (lambda t: t.whole("k", low=1), 1.5, "a whole number, not 1.5"),
        (lambda t: t.number("k"), "1", "a number, not a string"),
        (lambda t: t.number("k"), False, "a number, not true or false"),
        (lambda t: t.flag("k"), 1, "true or false, not 1"),
        (lambda t: t.texts("k"), "abc", "a list of strings, not a string"),
        (lambda t: t.texts("k"), ["a", 1], "strings only, not 1"),
        (lambda t: t.wholes("k"), [True], "whole numbers only"),
        (lambda t: t.numbers("k"), [[]], "numbers only, not a list"),
        (lambda t: t.table("k"), [], "a table, not a list"),
        (lambda t: t.tables("k"), {}, "a list of tables, not a table"),
        (lambda t: t.tables("k"), [1], "a table of keys and values"),
    ],
)
def test_a_wrong_value_names_its_key(
    read: Callable[[Table], object], value: object, words: str
) -> None:
    with pytest.raises(ModelFileError) as caught:
        read(table(k=value))
    message = caught.value.message
    assert message.startswith("some.json")
    assert "k" in message
    assert words in message
    assert message.endswith("Do that.")


def test_a_missing_key_is_named() -> None:
    with pytest.raises(ModelFileError, match=r"some\.json: the key `k` is missing"):
        table().text("k")


def test_a_nested_error_says_where() -> None:
    with pytest.raises(ModelFileError, match=r"some\.json: files: model\.onnx: .*`size`"):
        table(files={"model.onnx": {}}).table("files").table("model.onnx").whole("size", low=1)
