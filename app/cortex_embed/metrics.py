"""What is counted while the server works: plain numbers, a microsecond or so a request.

prometheus_client is only loaded at the first scrape (`server/exposition.py`): it would cost
every start 80 ms. All of this belongs to the event loop's thread. It must never hold a text or
a key, or a label whose values a client can choose.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cortex_embed.domain import EmbedRequest, EmbedResult

    Labels = tuple[str, ...]

PREFIX = "cortex_embed_"
_SECONDS = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
)
_TEXTS = tuple(float(2**power) for power in range(11))
_TOKENS = tuple(float(2**power) for power in range(15))
# What text-embeddings-inference would call an error of ours; the rest it does not count.
_TEI_ERRORS = {
    "overloaded": "overloaded",
    "not_ready": "unhealthy",
    "model_load_failed": "unhealthy",
    "engine_error": "inference",
    "internal_error": "inference",
}
_TEI_IGNORES = {"not_found", "method_not_allowed", "unauthorized", "forbidden", "model_not_found"}


class Histogram:
    """How many values fell between two bounds, and their sum. The last count has no upper bound."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        """Count `value`; a value that is equal to a bound lies below it, as Prometheus has it."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.sum += value * times

    def observe_all(self, values: Sequence[float]) -> None:
        """Count each of `values`."""
        bounds, counts = self.bounds, self.counts
        for value in values:
            counts[bisect_left(bounds, value)] += 1
        self.sum += sum(values)

    def plus(self, other: Histogram) -> Histogram:
        """Of what either has counted, with the same bounds."""
        both = self.copy()
        both.counts = [one + more for one, more in zip(self.counts, other.counts, strict=True)]
        both.sum += other.sum
        return both

    def copy(self) -> Histogram:
        twin = Histogram(self.bounds)
        twin.counts, twin.sum = self.counts.copy(), self.sum
        return twin


class Family(NamedTuple):
    """One metric: its samples by the values of its labels.

    `name` begins with `PREFIX`; `tei` is what text-embeddings-inference calls the same.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    samples: Mapping[Labels, float | Histogram]
    labels: Labels = ()
    tei: str = ""


class Metrics:
    """The counters of one process. Every method returns at once and never fails."""

    def __init__(self) -> None:
        self.started = time.time()
        """Seconds since the Unix epoch."""
        self._began = time.monotonic()
        self._requests: dict[tuple[str, str, int], int] = {}
        self._request_seconds: dict[tuple[str, str], Histogram] = {}
        self._errors: dict[str, int] = {}
        self._asked = {"single": 0, "batch": 0}
        self._embedded = {"single": 0, "batch": 0}
        self._texts_asked = 0
        self.texts = 0
        """Texts embedded."""
        self.tokens = 0
        """Tokens embedded, special ones included."""
        self.truncations = 0
        """Texts of which a part was cut off."""
        # By request, and (as TEI also has it) by text, whose time is that of its request: the first
        # text's is there already, and most requests have no other.
        self._stages = [Histogram(_SECONDS) for _ in range(4)]
        self._more_texts = [Histogram(_SECONDS) for _ in range(4)]
        self._text_tokens = Histogram(_TOKENS)
        self._batch_texts = Histogram(_TEXTS)
        self._batch_tokens = Histogram(_TOKENS)
        self._run_seconds = Histogram(_SECONDS)
        self._backlogs: list[Callable[[], tuple[int, int]]] = []

    @property
    def uptime(self) -> float:
        """Seconds since counting began."""
        return time.monotonic() - self._began

    @property
    def embeds(self) -> int:
        """Requests for vectors that were well-formed, whether they were answered or not."""
        return sum(self._asked.values())

    def answered(self, dialect: str, route: str, status: int, *seconds: float) -> None:
        """Requests got their response, each after so many of `seconds`. `route` is a path of the
        table of routes, or "other"."""
        key = (dialect, route, status)
        self._requests[key] = self._requests.get(key, 0) + len(seconds)
        histogram = self._request_seconds.get((dialect, route))
        if histogram is None:
            histogram = self._request_seconds[dialect, route] = Histogram(_SECONDS)
        histogram.observe_all(seconds)

    def failed(self, code: str) -> None:
        """A request was answered with the error of this `code`."""
        self._errors[code] = self._errors.get(code, 0) + 1

    def asked(self, request: EmbedRequest, requests: int = 1) -> None:
        """Vectors were asked for, in so many requests."""
        self._asked["single" if request.single else "batch"] += requests
        self._texts_asked += len(request.texts)

    def embedded(
        self, request: EmbedRequest, result: EmbedResult, seconds: float, requests: int = 1
    ) -> None:
        """`request` has its vectors, `seconds` after it was asked. It may stand for several, with
        as many texts each."""
        texts = len(request.texts)
        self._embedded["single" if request.single else "batch"] += requests
        self.texts += texts
        self.tokens += result.tokens
        self.truncations += len(result.truncations)
        spent = result.timings
        values = (seconds, spent.tokenize, spent.queue, spent.engine)
        for value, stage in zip(values, self._stages, strict=True):
            stage.counts[bisect_left(_SECONDS, value)] += requests
            stage.sum += value * requests
        if texts > requests:
            for value, more in zip(values, self._more_texts, strict=True):
                more.observe(value, texts - requests)

    def ran(self, lengths: Sequence[int], seconds: float) -> None:
        """A micro-batch of texts of these lengths in tokens went through the engine."""
        self._batch_texts.observe(len(lengths))
        self._batch_tokens.observe(sum(lengths))
        self._run_seconds.observe(seconds)
        self._text_tokens.observe_all(lengths)

    def watch(self, backlog: Callable[[], tuple[int, int]]) -> None:
        """Ask `backlog` for the texts and tokens that wait, whenever somebody wants to know."""
        self._backlogs.append(backlog)

    def forget(self, backlog: Callable[[], tuple[int, int]]) -> None:
        """Ask it no more, if it was asked: what it told of is gone."""
        if backlog in self._backlogs:
            self._backlogs.remove(backlog)

    def waiting(self) -> tuple[int, int]:
        """Texts and tokens that wait for the engine."""
        found = [backlog() for backlog in self._backlogs]
        return sum(texts for texts, _ in found), sum(tokens for _, tokens in found)

    def families(self) -> list[Family]:
        """Everything counted so far. A copy: another thread may read it."""
        return [*self._about_requests(), *self._about_embedding(), *self._about_the_engine()]

    def _about_requests(self) -> list[Family]:
        by_status: dict[Labels, float] = {
            (dialect, route, str(status)): count
            for (dialect, route, status), count in self._requests.items()
        }
        tei: dict[Labels, float] = {}
        for code, count in self._errors.items():
            if code not in _TEI_IGNORES:
                label = (_TEI_ERRORS.get(code, "validation"),)
                tei[label] = tei.get(label, 0) + count
        return [
            Family(
                PREFIX + "requests_total",
                "counter",
                "HTTP requests answered; 499: the client left before.",
                by_status,
                ("dialect", "route", "status"),
            ),
            Family(
                PREFIX + "request_seconds",
                "histogram",
                "Time from a request's head to its response.",
                {key: value.copy() for key, value in self._request_seconds.items()},
                ("dialect", "route"),
            ),
            Family(
                PREFIX + "errors_total",
                "counter",
                "Errors answered, by their code.",
                {(code,): count for code, count in self._errors.items()},
                ("code",),
            ),
            Family("", "counter", "Requests that failed.", tei, ("err",), "te_request_failure"),
        ]

    def _about_embedding(self) -> list[Family]:
        def total(name: str, text: str, value: int, tei: str = "") -> Family:
            return Family(f"{PREFIX}{name}_total", "counter", text, {(): value}, (), tei)

        def by_method(name: str, text: str, values: dict[str, int], tei: str) -> Family:
            samples: dict[Labels, float] = {(method,): count for method, count in values.items()}
            return Family(f"{PREFIX}{name}_total", "counter", text, samples, ("method",), tei)

        def timed(name: str, text: str, values: Histogram, tei: str) -> Family:
            own = PREFIX + name if name else ""
            return Family(own, "histogram", text, {(): values.copy()}, (), tei)

        stages = (
            ("embed_seconds", "from request to vectors", ""),
            ("tokenize_seconds", "tokenizing", "tokenization_"),
            ("queue_wait_seconds", "before the first micro-batch", "queue_"),
            ("engine_seconds", "in micro-batches", "inference_"),
        )
        by_request = [
            timed(name, f"Time {of}, by request.", values, f"te_request_{tei}duration")
            for (name, of, tei), values in zip(stages, self._stages, strict=True)
        ]
        by_text = [
            timed(
                "",
                f"Time {of}: its request's, by text.",
                values.plus(more),
                f"te_embed_{tei}duration",
            )
            for (_, of, tei), values, more in zip(
                stages, self._stages, self._more_texts, strict=True
            )
        ]
        return [
            by_method("embeds", "Requests for vectors.", self._asked, "te_request_count"),
            by_method(
                "embeds_answered",
                "Requests for vectors answered with them.",
                self._embedded,
                "te_request_success",
            ),
            total("texts_asked", "Texts to embed.", self._texts_asked, "te_embed_count"),
            total("texts", "Texts embedded.", self.texts, "te_embed_success"),
            total("tokens", "Tokens embedded, special ones included.", self.tokens),
            total("truncations", "Texts of which a part was cut off.", self.truncations),
            *by_request,
            *by_text,
        ]

    def _about_the_engine(self) -> list[Family]:
        texts, tokens = self.waiting()
        rows: tuple[tuple[str, str, float | Histogram, str], ...] = (
            ("queue_texts", "Texts that wait.", texts, "te_queue_size"),
            ("queue_tokens", "Tokens that wait.", tokens, ""),
            ("text_tokens", "Tokens of a text.", self._text_tokens, "te_request_input_length"),
            ("batch_texts", "Texts of a micro-batch.", self._batch_texts, "te_batch_next_size"),
            (
                "batch_tokens",
                "Tokens of a micro-batch, padding not counted.",
                self._batch_tokens,
                "te_batch_next_tokens",
            ),
            ("engine_run_seconds", "Time of a micro-batch in the engine.", self._run_seconds, ""),
        )
        return [
            Family(PREFIX + name, "histogram", text, {(): value.copy()}, (), tei)
            if isinstance(value, Histogram)
            else Family(PREFIX + name, "gauge", text, {(): value}, (), tei)
            for name, text, value, tei in rows
        ]
