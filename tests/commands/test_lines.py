from __future__ import annotations

import io
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from cortex_embed.commands import lines
from cortex_embed.commands.lines import Bad, Line
from cortex_embed.errors import InputError, UsageError


def read(
    tmp_path: Path, content: bytes, name: str = "in.txt", **options: object
) -> list[Line | Bad]:
    file = tmp_path / name
    file.write_bytes(content)
    settings: dict[str, object] = {"field": "text", "max_chars": 1000} | options
    return list(lines.source([], str(file), **settings).read())  # type: ignore[arg-type]


def test_lines_keep_their_text_but_lose_their_ends(tmp_path: Path) -> None:
    found = read(tmp_path, "\ufeffone\r\n two \nnaïve".encode())
    assert found == [
        Line(1, "line 1", "one"), Line(2, "line 2", " two "), Line(3, "line 3", "naïve")
    ]  # fmt: skip


def test_json_lines_may_be_strings_or_objects(tmp_path: Path) -> None:
    content = b'"one"\n{"text": "two", "id": {"k": 7}}\n'
    found = read(tmp_path, content, "in.jsonl")
    assert found == [Line(1, "line 1", "one"), Line(2, "line 2", "two", {"k": 7})]


def test_another_field_can_hold_the_text(tmp_path: Path) -> None:
    (found,) = read(tmp_path, b'{"body": "one"}', "in.jsonl", field="body")
    assert isinstance(found, Line)
    assert found.text == "one"


@pytest.mark.parametrize(
    ("content", "name", "reason"),
    [
        (b"ok\n\nok", "in.txt", "line 2 is empty"),
        (b"ok\n\xff\xfe", "in.txt", "line 2 is not UTF-8: byte 0xFF at 0"),
        (b"ok\na\0b", "in.txt", "line 2 contains NUL"),
        (b'"ok"\n{"text": 3}', "in.jsonl", "line 2 must be a JSON string, or an object with"),
        (b'"ok"\n{broken', "in.jsonl", "line 2 is not JSON"),
        (b'"ok"\n"\\ud800"', "in.jsonl", "line 2 contains a lone surrogate"),
        (b'"ok"\n' + b"[" * 900, "in.jsonl", "line 2 is not JSON"),
        (b"ok\n" + b"x" * 1001, "in.txt", "line 2 has 1001 characters"),
    ],
)
def test_a_bad_line_is_named_and_the_rest_goes_on(
    content: bytes, name: str, reason: str, tmp_path: Path
) -> None:
    found = read(tmp_path, content, name)
    assert isinstance(found[0], Line)
    assert isinstance(found[1], Bad)
    assert found[1].reason.startswith(reason)


def test_a_line_without_end_does_not_fill_the_memory(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"line 1 is longer than \d+ bytes"):
        read(tmp_path, b"x" * 20_000)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read") as caught:
        list(lines.source([], str(tmp_path / "none.txt"), "text", 10).read())
    assert "none.txt" in caught.value.message


def test_arguments_are_texts() -> None:
    source = lines.source(["a", ""], None, "text", 10)
    assert source.count() == 2
    found = list(source.read())
    assert found == [
        Line(1, "argument 1", "a"),
        Bad("argument 2 is empty; leave it out, or send a text."),
    ]


@pytest.mark.parametrize(("content", "count"), [(b"", 0), (b"a", 1), (b"a\n", 1), (b"a\nb", 2)])
def test_lines_are_counted_for_the_bar(content: bytes, count: int, tmp_path: Path) -> None:
    file = tmp_path / "in.txt"
    file.write_bytes(content)
    assert lines.source([], str(file), "text", 10).count() == count
    assert len(read(tmp_path, content)) == count


def test_stdin_is_read_when_nothing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    stdin = SimpleNamespace(buffer=io.BytesIO(b"one\ntwo\n"), isatty=lambda: False)
    monkeypatch.setattr("sys.stdin", stdin)
    source = lines.source([], "-", "text", 10)
    assert source.count() is None
    assert [json.dumps(x.text) for x in source.read() if isinstance(x, Line)] == ['"one"', '"two"']


def test_a_terminal_without_texts_is_a_usage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: True))
    with pytest.raises(UsageError, match="No texts"):
        lines.source([], None, "text", 10)
