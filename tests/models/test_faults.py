"""Failures in words: what each of the libraries' own errors means to a person.

`test_obtain.py` raises most of them by a hub that fails; here is what such a hub cannot do.
"""

from __future__ import annotations

import errno
from pathlib import Path

import httpx2
import pytest

from cortex_embed.models import faults
from cortex_embed.models.catalogue import SourceFile

FILE = SourceFile("onnx/model.onnx", 10, "", 0, "owner/name", "0" * 40)


def of(why: Exception) -> faults.Fault:
    return faults.of_network(why, FILE, host="hub.example", stall_timeout=30.0)


@pytest.mark.parametrize(
    ("why", "code", "passing"),
    [
        (httpx2.ConnectTimeout("t"), "unreachable", False),
        (httpx2.ReadTimeout("t"), "stalled", False),
        (httpx2.PoolTimeout("t"), "stalled", False),
        (httpx2.ConnectError("refused"), "unreachable", True),
        (httpx2.ReadError("reset"), "cut", True),
        (httpx2.RemoteProtocolError("peer closed"), "cut", True),
        (faults.CutError(), "cut", True),
        (httpx2.ProxyError("407 Proxy Authentication Required"), "proxy", False),
        (httpx2.TooManyRedirects("loop"), "unreachable", False),
        (httpx2.UnsupportedProtocol("no scheme"), "unreachable", False),
        (httpx2.InvalidURL("bad"), "unreachable", False),
        (ImportError("Using SOCKS proxy, but the 'socksio' package is not installed"),
         "proxy", False),
        (ValueError("Unknown scheme for proxy URL"), "unreachable", False),
        (faults.StatusError(408, {}), "server", True),
        (faults.StatusError(500, {"Retry-After": "7"}), "server", True),
        (faults.StatusError(451, {}), "answer", False),
    ],
)  # fmt: skip
def test_each_has_its_code(why: Exception, code: str, passing: bool) -> None:
    fault = of(why)
    assert (fault.error.code, fault.passing) == (f"download_{code}", passing)
    assert "hub.example" in fault.error.message


def test_what_is_no_failure_of_the_network_is_not_taken_for_one() -> None:
    with pytest.raises(OSError, match="disk"):
        of(OSError(errno.EIO, "disk"))
    with pytest.raises(ZeroDivisionError):
        of(ZeroDivisionError())
    with pytest.raises(ModuleNotFoundError):  # a program that was frozen without a module
        of(ModuleNotFoundError("httpx2"))


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({}, None),
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
        ({"Retry-After": "soon"}, None),
        ({"ratelimit": '"api";r=0;t=55'}, 55.0),
        ({"ratelimit": '"api";r=3;t=55'}, None),
    ],
)
def test_when_to_come_again(headers: dict[str, str], wait: float | None) -> None:
    assert of(faults.StatusError(429, headers)).wait == wait


def test_no_query_of_a_signed_address_is_quoted() -> None:
    request = httpx2.Request("GET", "https://cdn.example/x?X-Amz-Signature=secret")
    why = httpx2.ReadError("Connection reset by peer", request=request)
    assert "secret" not in of(why).error.message


@pytest.mark.parametrize(
    ("number", "code", "words"),
    [
        (errno.ENOSPC, "disk_full", "is full"),
        (errno.EDQUOT, "disk_full", "is full"),
        (errno.EROFS, "read_only", "--model-dir"),
        (errno.EACCES, "read_only", "cannot be written"),
        (errno.EMFILE, "write", "cannot be written"),
    ],
)
def test_what_the_disk_says(number: int, code: str, words: str) -> None:
    error = faults.of_disk(OSError(number, "words", "/data/models/x"), Path("/data/models"))
    assert error.code == f"download_{code}"
    assert words in error.message
    assert "/data/models" in error.message
