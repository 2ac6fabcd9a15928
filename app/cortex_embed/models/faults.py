"""What stops a download, the network's and the disk's, as errors that a person can act on.

Here is told apart what the hub's library, its transport and the system each say in their own
way. A message must never quote a header, a body or a query: there are tokens in them.
"""

from __future__ import annotations

import errno
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cortex_embed.errors import DownloadError, EmbedError
from cortex_embed.models.artifact import reason

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from cortex_embed.models.catalogue import SourceFile

_TOKENS = "https://huggingface.co/settings/tokens"
_FULL = frozenset({errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)})
_FORBIDDEN = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})


@dataclass(frozen=True, slots=True)
class Fault:
    """`passing` says that the same request may do better soon; `wait` is Retry-After in seconds."""

    error: DownloadError
    passing: bool = False
    wait: float | None = None


class StatusError(Exception):
    """A response to GET that is no content. Its body is not read: it may have no end."""

    def __init__(self, status: int, headers: Mapping[str, str]) -> None:
        super().__init__(status)
        self.status = status
        self.headers = headers


class CutError(Exception):
    """A response that ended early, or did not go on where it should have."""


def of_network(why: Exception, file: SourceFile, *, host: str, stall_timeout: float) -> Fault:
    """The fault behind what a request for `file` has raised. Raises `why` if there is none."""
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError

    what = f"{file.path} of {file.repo}"
    match why:
        case StatusError():
            fault = _of_status(why.status, why.headers, file, host)
        case HfHubHTTPError():
            fault = _of_status(why.response.status_code, why.response.headers, file, host)
        case httpx2.ProxyError():
            fault = _fault(
                "proxy",
                f"The proxy refuses to connect to {host}: {_words(why)}. Check HTTPS_PROXY, "
                "HTTP_PROXY and NO_PROXY.",
            )
        case httpx2.ConnectTimeout():
            fault = _unreachable(host, f"no connection within {stall_timeout:g} s")
        case httpx2.TimeoutException():
            fault = _fault(
                "stalled",
                f"{host} has sent nothing of {what} for {stall_timeout:g} s (--stall-timeout). "
                "What has arrived is kept: the same command goes on from there.",
            )
        case httpx2.ConnectError():
            fault = _of_connecting(why, host)
        case CutError() | httpx2.NetworkError() | httpx2.RemoteProtocolError():
            fault = _fault(
                "cut",
                f"The connection to {host} was cut again and again while fetching {what}. What "
                "has arrived is kept: the same command goes on from there.",
                passing=True,
            )
        case httpx2.HTTPError() | httpx2.InvalidURL() | ValueError():
            # An HF_ENDPOINT that is no URL, a proxy of a kind that nobody knows, a loop.
            fault = _fault(
                "unreachable",
                f"{what} cannot be asked for at {host}: {_words(why)}. Check HF_ENDPOINT, the "
                "proxy settings, and the repository's name.",
            )
        case ImportError() if "socks" in str(why).lower():
            fault = _fault(
                "proxy", f"{host} cannot be reached through a SOCKS proxy; name an HTTP proxy."
            )
        case _:
            raise why
    return fault


def _fault(code: str, message: str, *, passing: bool = False, wait: float | None = None) -> Fault:
    return Fault(DownloadError(message, code=code), passing, wait)


def _unreachable(host: str, why: str, *, passing: bool = False) -> Fault:
    return _fault(
        "unreachable",
        f"{host} cannot be reached: {why}. Check the network, HTTPS_PROXY, or HF_ENDPOINT for a "
        "mirror; without a network, `cortex-embed models import` takes a directory from another "
        "machine.",
        passing=passing,
    )


def _of_connecting(why: Exception, host: str) -> Fault:
    import ssl

    for one in _chain(why):
        if isinstance(one, ssl.SSLCertVerificationError):
            return _fault(
                "certificate",
                f"The certificate of {host} is not trusted: {one.verify_message}. If your network "
                "has an authority of its own, install it in the system, or name its file in "
                "SSL_CERT_FILE.",
            )
    return _unreachable(host, _words(why), passing=True)


def _of_status(status: int, headers: Mapping[str, str], file: SourceFile, host: str) -> Fault:
    code = headers.get("X-Error-Code", "")
    where = f"{file.repo} on {host}"
    if code == "GatedRepo" or status == 403:
        return _fault(
            "gated",
            f"{where} is closed to this account (HTTP {status}). Accept its terms at "
            f"https://huggingface.co/{file.repo}, and put a token of that account ({_TOKENS}) "
            "into HF_TOKEN.",
        )
    if status == 401:
        return _fault(
            "unauthorized",
            f"{where} asks who you are (HTTP 401): it is private or gated, or there is no such "
            f"repository. Put a token that may read it ({_TOKENS}) into HF_TOKEN; if one is "
            "there, it is not valid.",
        )
    if status == 404:
        return _fault("not_found", _not_found(code, file, host))
    if status == 429:
        wait = _retry_after(headers)
        asks = f"; it asks to wait {wait:g} s" if wait else ""
        return _fault(
            "rate_limited",
            f"{host} refuses more requests for now (HTTP 429{asks}). Try again later; with a "
            f"token in HF_TOKEN the limit is higher.",
            passing=True,
            wait=wait,
        )
    if status >= 500 or status == 408:
        return _fault(
            "server",
            f"{host} fails (HTTP {status}) when asked for {file.path} of {file.repo}. Try again "
            "later: https://status.huggingface.co tells more.",
            passing=True,
            wait=_retry_after(headers),
        )
    return _fault(
        "answer",
        f"{host} answers HTTP {status} when asked for {file.path} of {file.repo}. Check "
        "HF_ENDPOINT and the proxy.",
    )


def _not_found(code: str, file: SourceFile, host: str) -> str:
    if code == "RevisionNotFound":
        what = f"{file.repo} has no revision {file.revision}"
    elif code == "EntryNotFound":
        what = f"{file.repo} has no {file.path} at revision {file.revision}"
    else:
        what = f"there is no {file.path} in {file.repo} at revision {file.revision}"
    return (
        f"{what[0].upper()}{what[1:]} on {host} (HTTP 404). A newer cortex-embed may know where it "
        "is; in a catalogue of your own, correct it there."
    )


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds from now, of either form (RFC 9110 section 10.2.3), or of the hub's `ratelimit`."""
    from huggingface_hub.utils import parse_ratelimit_headers

    said = headers.get("Retry-After", "").strip()
    if said.isdigit():
        return float(said)
    if said:
        import time
        from email.utils import parsedate_to_datetime

        try:
            return max(0.0, parsedate_to_datetime(said).timestamp() - time.time())
        except ValueError:
            return None
    limit = parse_ratelimit_headers(headers)
    return float(limit.reset_in_seconds) if limit and not limit.remaining else None


def of_disk(why: OSError, place: Path) -> DownloadError:
    """What the system says when `place` cannot be written."""
    where = f" ({why.filename})" if why.filename and str(why.filename) != str(place) else ""
    if why.errno in _FULL:
        return DownloadError(
            f"The disk of {place} is full. Free some space; what has arrived is kept, and the same "
            "command goes on from there.",
            code="disk_full",
        )
    if why.errno in _FORBIDDEN:
        return DownloadError(
            f"{place} cannot be written{where}: {reason(why)}. Make it writable, set XDG_DATA_HOME "
            "(Linux) to a place that is, or put the model there beforehand and name it with "
            "--model-dir.",
            code="read_only",
        )
    return DownloadError(f"{place} cannot be written{where}: {reason(why)}.", code="write")


def too_small(place: Path, needed: int, free: int) -> DownloadError:
    """`needed` and `free` are in bytes."""
    return DownloadError(
        f"The disk of {place} has {free / 1e6:,.1f} MB free; the download needs "
        f"{needed / 1e6:,.1f} MB. Free some space.",
        code="disk_full",
    )


def _words(why: BaseException) -> str:
    """The innermost cause's own words: the outer ones repeat or hide them."""
    *_, last = _chain(why)
    words: Any = last.strerror if isinstance(last, OSError) and last.strerror else str(last)
    return re.sub(r"^\[Errno -?\d+\] ", "", str(words)).strip().rstrip(".") or type(last).__name__


def _chain(why: BaseException) -> Iterator[BaseException]:
    one: BaseException | None = why
    while one is not None and not isinstance(one, EmbedError):
        yield one
        # Also what was suppressed: httpcore2's pool raises "from None".
        one = one.__cause__ or one.__context__
