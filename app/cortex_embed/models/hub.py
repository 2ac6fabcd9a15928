"""One file from a Hugging Face hub to a place on this disk: resumed, retried, never silent.

huggingface_hub finds the file (endpoint, token, proxies, certificates, metadata). The bytes are
read here, since its own download starts anew after a kill (huggingface_hub#4228) and waits out
six time-outs on a server that stalls. It must never decide what to fetch, nor whether a content
is the right one (`obtain` does).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from cortex_embed import __version__
from cortex_embed.config import prepare_hub_environment
from cortex_embed.errors import DownloadError
from cortex_embed.models import faults

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from cortex_embed.models.catalogue import SourceFile

T = TypeVar("T")

_PAUSES = (0.5, 1.0, 2.0)
"""Seconds before each further attempt."""
_STEP = 2**20
"""An attempt that has brought so many bytes makes up for the failed ones before it."""
_SHA256_DIGITS = 64


@dataclass(frozen=True, slots=True)
class Remote:
    """What the hub says of a file: `size` in bytes if it does, `sha256` of large files, else ""."""

    size: int | None
    sha256: str


class Hub:
    """A client of the hub that HF_ENDPOINT names. `say` hears of every attempt that failed."""

    def __init__(self, *, stall_timeout: float, say: Callable[[str], None]) -> None:
        prepare_hub_environment()
        from huggingface_hub import constants

        self._stall_timeout = stall_timeout or None
        self._say = say
        self.host = constants.ENDPOINT.partition("://")[2].partition("/")[0] or constants.ENDPOINT

    def look(self, file: SourceFile) -> Remote:
        """What the hub says of `file`. Raises DownloadError."""
        return self._patiently(file, lambda: self._look(file), lambda: 0)

    def fetch(
        self, file: SourceFile, part: Path, size: int | None, arrived: Callable[[int], None]
    ) -> None:
        """Complete `part`, which may hold the beginning of `file`. `size` is all of it in bytes.

        `arrived` is told how many bytes `part` holds by now. Raises DownloadError, OSError.
        """

        def held() -> int:
            return part.stat().st_size if part.exists() else 0

        self._patiently(file, lambda: self._fetch(file, part, size, arrived), held)

    def close(self) -> None:
        """Close the connections."""
        from huggingface_hub.utils import close_session

        close_session()

    def _patiently(self, file: SourceFile, call: Callable[[], T], held: Callable[[], int]) -> T:
        """`call`, again after what passes, for as long as it makes headway."""
        pauses = list(_PAUSES)
        while True:
            before = held()
            try:
                return call()
            except DownloadError:
                raise
            except Exception as why:
                fault = faults.of_network(
                    why, file, host=self.host, stall_timeout=self._stall_timeout or 0
                )
                if held() - before >= _STEP:
                    pauses = list(_PAUSES)
                longest = self._stall_timeout or 60.0
                if not fault.passing or not pauses or (fault.wait or 0) > longest:
                    raise fault.error from None
                pause = max(pauses.pop(0), fault.wait or 0)
                code = fault.error.code.removeprefix("download_").replace("_", " ")
                self._say(f"{file.path}: {code}; trying again in {pause:g} s.")
            time.sleep(pause)

    def _look(self, file: SourceFile) -> Remote:
        from huggingface_hub.file_download import get_hf_file_metadata

        found = get_hf_file_metadata(
            self._url(file), timeout=self._stall_timeout, headers=self._headers()
        )
        if not found.commit_hash or not found.etag:
            # A page of a hotel's network must not pass for a small file that nobody has pinned.
            raise DownloadError(
                f"What {self.host} answers is not a hub's: {file.path} of {file.repo} comes "
                "without X-Repo-Commit or ETag. Check HF_ENDPOINT, and whether the network wants "
                "you to log in first.",
                code="answer",
            )
        is_sha256 = len(found.etag) == _SHA256_DIGITS
        return Remote(found.size, found.etag.lower() if is_sha256 else "")

    def _fetch(
        self, file: SourceFile, part: Path, size: int | None, arrived: Callable[[int], None]
    ) -> None:
        from huggingface_hub.utils import get_session

        # Always by the hub's own address: a link to its storage expires.
        # The token goes no further: on a redirect to another origin httpx2 leaves it out.
        with part.open("ab") as out:
            start = out.tell()
            if start and start == size:
                return
            request = get_session().stream(
                "GET",
                self._url(file),
                headers=self._headers() | ({"Range": f"bytes={start}-"} if start else {}),
                timeout=self._stall_timeout,
                follow_redirects=True,
            )
            with request as response:
                if start and not _goes_on(response, start):
                    out.truncate(0)
                    start = 0
                    if response.status_code != 200:
                        raise faults.CutError  # what we have is no beginning of it: all anew
                if response.status_code not in (200, 206):
                    raise faults.StatusError(response.status_code, response.headers)
                _check_length(file, start, response.headers, size)
                for chunk in response.iter_bytes():
                    out.write(chunk)
                    start += len(chunk)
                    arrived(start)
                    if size is not None and start > size:
                        break
        if size is not None and start < size:  # a body without a length, cut short
            raise faults.CutError
        if size is not None and start > size:
            raise _wrong_size(file, start, size)

    def _url(self, file: SourceFile) -> str:
        from huggingface_hub.file_download import hf_hub_url

        return hf_hub_url(file.repo, file.path, revision=file.revision)

    def _headers(self) -> dict[str, str]:
        from huggingface_hub.utils import build_hf_headers

        headers: dict[str, str] = build_hf_headers(
            library_name="cortex-embed", library_version=__version__
        )
        # Else ranges and lengths are those of compressed bytes.
        return headers | {"Accept-Encoding": "identity"}


def _goes_on(response: Any, start: int) -> bool:
    """Whether `response` is to be taken as an answer to a request for all from `start` on."""
    if response.status_code == 206:
        return str(response.headers.get("Content-Range", "")).startswith(f"bytes {start}-")
    return response.status_code not in (200, 416)


def _check_length(
    file: SourceFile, start: int, headers: Mapping[str, Any], size: int | None
) -> None:
    """Before a gigabyte of something else is fetched. Raises DownloadError."""
    length = str(headers.get("Content-Length", ""))
    if headers.get("Content-Encoding", "identity") != "identity":
        return
    if size is not None and length.isdigit() and start + int(length) != size:
        raise _wrong_size(file, start + int(length), size)


def _wrong_size(file: SourceFile, found: int, size: int) -> DownloadError:
    return DownloadError(
        f"{file.path} of {file.repo} comes with {found:,} bytes; it must have {size:,}. Something "
        "between here and the hub (a proxy, a mirror) changes it, or the hub is wrong.",
        code="wrong_size",
    )


def cached(file: SourceFile) -> Path | None:
    """Where Hugging Face's own cache has `file`, if it does."""
    prepare_hub_environment()
    from pathlib import Path

    from huggingface_hub import try_to_load_from_cache

    try:
        found = try_to_load_from_cache(file.repo, file.path, revision=file.revision)
    except (OSError, ValueError):  # unreadable, or a name that no repository has
        return None
    return Path(found) if isinstance(found, str) else None
