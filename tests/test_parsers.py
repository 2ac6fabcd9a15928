from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_embed import parsers


@pytest.mark.parametrize(
    ("raw", "value"),
    [("1024", 1024), ("2k", 2000), ("2KiB", 2048), ("1.5s", None), ("10 MB", 10**7)],
)
def test_sizes(raw: str, value: int | None) -> None:
    if value is None:
        with pytest.raises(ValueError, match="size"):
            parsers.size(raw)
    else:
        assert parsers.size(raw) == value


@given(st.integers(0, 86_400))
def test_durations_in_seconds(seconds: int) -> None:
    assert parsers.duration(f"{seconds}s") == parsers.duration(str(seconds)) == seconds


def test_duration_units() -> None:
    assert parsers.duration("500ms") == 0.5
    assert parsers.duration("15m") == 900
    with pytest.raises(ValueError, match="24h"):
        parsers.duration("25h")


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        ("a", ("a",)),
        ("a, b", ("a", "b")),
        (["a", "./b,c"], ("a", "./b,c")),
    ],
)
def test_names(raw: str | list[str], value: tuple[str, ...]) -> None:
    assert parsers.names(raw) == value


@pytest.mark.parametrize("raw", ["", " ", "a,,b", "a,", [""], ["a", " "]])
def test_a_name_is_never_empty(raw: str | list[str]) -> None:
    with pytest.raises(ValueError, match="empty"):
        parsers.names(raw)


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        ("*", ("*",)),
        ("https://App.Example", ("https://app.example",)),
        ("http://localhost:3000, https://a.b", ("http://localhost:3000", "https://a.b")),
        (
            "https://a.b:443,http://a.b:80,http://a.b:443",
            ("https://a.b", "http://a.b", "http://a.b:443"),
        ),
        ("http://[::1]:80", ("http://[::1]",)),
        (
            "tauri://localhost,chrome-extension://abc",
            ("tauri://localhost", "chrome-extension://abc"),
        ),
        ("https://a.b,https://a.b", ("https://a.b",)),
    ],
)
def test_origins(raw: str, value: tuple[str, ...]) -> None:
    assert parsers.origins(raw) == value


@pytest.mark.parametrize(
    "raw",
    [
        *("", " ", ",", "https://a.b,", "null", "a.b", "https://", "https://a.b/", "https://a.b/x"),
        *("https://a.b?x", "https://u@a.b", "https://*.a.b", "https://a.b:123456", "https://ä.b"),
        *("https://a b", "//a.b", "https:a.b", "https://a.b https://c.d"),
    ],
)
def test_what_is_no_origin(raw: str) -> None:
    with pytest.raises(ValueError, match=r"scheme, host and port, no path"):
        parsers.origins(raw)
