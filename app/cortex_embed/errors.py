"""The error tree: every failure a caller or a person can meet, in one place.

    EmbedError
    ├── InvalidRequestError       400   the caller's input
    │   ├── TextError             400   one text of it, by index
    │   ├── TokensError           400   all of its texts together
    │   ├── ModelNotFoundError    404
    │   └── UnsupportedError      400   this model, or this server, has no such thing
    ├── AuthenticationError       401   no token, or a wrong one
    ├── ForbiddenError            403   a web page that must not reach a local server
    ├── PayloadTooLargeError      413
    ├── RequestTimeoutError       408
    ├── FingerprintError          412   the caller wants vectors of another space
    ├── RouteError                404, 405
    ├── OverloadedError           429   retry later
    ├── NotReadyError             503   loading or draining; retry later
    ├── EngineError               500   our fault
    ├── ModelLoadError            500   a model that is loaded on request; the next one tries again
    └── StartupError              the process cannot start; exit code, no status
        ├── UsageError            exit 2
        ├── ModelFileError        exit 3   missing, damaged, or not ours
        │   └── NotInstalledError exit 3   known, and not on this machine
        ├── NativeEngineError     exit 3   the native engine cannot run here, or not this graph
        ├── BindError             exit 4   port in use, address not ours
        ├── InputError            exit 5   a line of `embed`'s input
        ├── OutputError           exit 6   a file or directory that cannot be written
        ├── InstanceError         exit 1   a background server; its own code if it ended
        ├── SelfTestError         exit 7
        ├── FingerprintMismatch   exit 7   two installations, two vector spaces
        ├── TargetError           exit 8   the server that `bench` measures
        ├── UnpackError           exit 9   a one-file executable cannot unpack itself
        └── DownloadError         exit 10  a model cannot be fetched; `code` says what stopped it

A message says the value, the limit and the way out. This module must never import the
rest of the package, and no class here knows a wire format: `wire/` maps them, once per
dialect.
"""

from typing import ClassVar


class EmbedError(Exception):
    """Base of all errors this package raises on purpose.

    `code` is stable and machine-readable; `status` the HTTP status; `retryable` whether the
    same request can succeed later; `exit_code` what the process exits with when the error
    reaches the command line.
    """

    code: ClassVar[str] = "internal_error"
    status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        """Path of the offending field in the caller's own spelling, e.g. `input[3]`."""


class InvalidRequestError(EmbedError):
    """The request itself is wrong; sending it again cannot help."""

    code = "invalid_request"
    status = 400
    exit_code = 5

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message, param=param)
        if code is not None:
            self.code = code  # type: ignore[misc]  # a narrower code of the same class


TOO_LONG = "text_too_long"
"""Code of a text over the model's limit that was not to be truncated."""


class TextError(InvalidRequestError):
    """Text `index` of a request cannot be embedded; says nothing yet of how the caller named it."""

    code = "invalid_text"

    def __init__(self, index: int, message: str, *, code: str | None = None) -> None:
        super().__init__(message, code=code)
        self.index = index


class TokensError(InvalidRequestError):
    """The texts of a request have more tokens than one request may have; as above, nameless."""

    code = "too_many_tokens"

    def __init__(self, tokens: int, limit: int) -> None:
        super().__init__(
            f"has {tokens} tokens; the limit is {limit} a request (--max-request-tokens). "
            "Send several requests."
        )


class ModelNotFoundError(InvalidRequestError):
    """The named model is not served here (never answered by another model)."""

    code = "model_not_found"
    status = 404
    exit_code = 2

    def __init__(self, message: str, *, param: str | None = None, name: str = "") -> None:
        super().__init__(message, param=param)
        self.name = name
        """What the caller asked for, where a dialect has a sentence of its own around it."""


class UnsupportedError(InvalidRequestError):
    """A part of a published format that this model or this server does not have."""

    code = "unsupported"


class AuthenticationError(EmbedError):
    """The request carries no token, or not this server's."""

    code = "unauthorized"
    status = 401


class ForbiddenError(EmbedError):
    """The request comes by way of a name or a page that has no business here."""

    code = "forbidden"
    status = 403


class PayloadTooLargeError(EmbedError):
    """The body is over `max_body_bytes`."""

    code = "payload_too_large"
    status = 413


class RequestTimeoutError(EmbedError):
    """The client stopped sending its body."""

    code = "request_timeout"
    status = 408


class FingerprintError(EmbedError):
    """The vectors here are not of the space that the caller's index is of."""

    code = "fingerprint_mismatch"
    status = 412


class RouteError(EmbedError):
    """No such path (404) or no such method on it (405)."""

    code = "not_found"
    status = 404

    def __init__(self, message: str, *, allowed: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.allowed = allowed
        if allowed:
            self.code = "method_not_allowed"  # type: ignore[misc]
            self.status = 405  # type: ignore[misc]


class OverloadedError(EmbedError):
    """The queue is full; refused before any work was done."""

    code = "overloaded"
    status = 429
    retryable = True

    def __init__(self, message: str, *, retry_after: int = 1) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        """Seconds, for the Retry-After header (RFC 9110 section 10.2.3)."""


class NotReadyError(EmbedError):
    """The model is being downloaded or loaded, or the server is draining."""

    code = "not_ready"
    status = 503
    retryable = True

    def __init__(self, message: str, *, phase: str, retry_after: int = 1) -> None:
        super().__init__(message)
        self.phase = phase
        """`downloading`, `loading` or `draining`."""
        self.retry_after = retry_after


class EngineError(EmbedError):
    """The runtime failed on a micro-batch. Only that micro-batch's waiters see it."""

    code = "engine_error"
    status = 500


class ModelLoadError(EmbedError):
    """A model that is loaded when it is asked for could not be. Never remembered: the next
    request tries again."""

    code = "model_load_failed"
    status = 500
    retryable = True


class StartupError(EmbedError):
    """The process cannot do what it was started for."""

    code = "startup_failed"
    exit_code = 1


class UsageError(StartupError):
    """A flag, an environment variable or a line of the settings file is wrong."""

    code = "usage"
    exit_code = 2


class ModelFileError(StartupError):
    """A model file is missing, damaged, or of a kind that cannot be loaded."""

    code = "model_file"
    exit_code = 3


class NotInstalledError(ModelFileError):
    """A model that we know, and that is not on this machine: it can be fetched."""

    code = "model_not_installed"

    def __init__(self, message: str, *, model: str) -> None:
        super().__init__(message)
        self.model = model
        """Its id in the catalogue."""


class NativeEngineError(StartupError):
    """The native engine cannot run on this machine, or not this model: ONNX Runtime can.

    The message is the reason alone, to be put into a sentence.
    """

    code = "native_engine"
    exit_code = 3


class BindError(StartupError):
    """The address cannot be listened on."""

    code = "bind"
    exit_code = 4


class InputError(StartupError):
    """A line of `embed`'s input cannot be embedded."""

    code = "input"
    exit_code = 5


class OutputError(StartupError):
    """A file or directory cannot be written."""

    code = "output"
    exit_code = 6


class TargetError(StartupError):
    """The server that `bench` is to measure cannot be reached, or answers with an error."""

    code = "bench_target"
    exit_code = 8


class InstanceError(StartupError):
    """A server in the background did not start, or did not stop."""

    code = "instance"

    def __init__(self, message: str, *, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]  # what the server itself exited with


class SelfTestError(StartupError):
    """The vectors are not the ones this model must give."""

    code = "selftest"
    exit_code = 7


class FingerprintMismatch(StartupError):  # noqa: N818 - it is a finding
    """Two installations give vectors of different spaces."""

    code = "fingerprint_mismatch"
    exit_code = 7


class UnpackError(StartupError):
    """A one-file executable finds no place for its libraries."""

    code = "cannot_unpack"
    exit_code = 9


class DownloadError(StartupError):
    """A model cannot be fetched, or not kept. `code` tells a program which case it is:

    offline, unavailable, terms, unreachable, proxy, certificate, stalled, cut, unauthorized,
    gated, not_found, rate_limited, server, answer, wrong_size, wrong_content, disk_full,
    read_only or write, each after `download_`.
    """

    code = "download"
    exit_code = 10

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.code = f"download_{code}"  # type: ignore[misc]  # a narrower code of the same class
