"""What Prometheus reads at `/metrics`: the counted numbers, in its text formats.

The one module that knows prometheus_client, which is imported at the first scrape, in a thread.
It must never be given a text or a key to show.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from cortex_embed.metrics import PREFIX, Family, Histogram

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from prometheus_client import Metric

    from cortex_embed.service import EmbeddingService

OPENMETRICS = "application/openmetrics-text"


class Exposition(NamedTuple):
    """A response's body and its Content-Type."""

    body: bytes
    media: str


def families(service: EmbeddingService, in_flight: int) -> list[Family]:
    """Everything there is to tell now. Call it on the event loop."""
    models = service.models()
    about: dict[tuple[str, ...], float] = {
        (one.spec.id, str(one.facts.get("precision", "")), one.fingerprint): 1.0 for one in models
    }
    return [
        *service.metrics.families(),
        Family(
            PREFIX + "requests_in_flight",
            "gauge",
            "HTTP requests that are being answered.",
            {(): in_flight},
        ),
        Family(
            PREFIX + "model_loaded",
            "gauge",
            "1 once the default model has been loaded, until the server drains.",
            {(): float(service.phase == "ready")},
        ),
        Family(
            PREFIX + "model_info",
            "gauge",
            "The models served here.",
            about,
            ("model", "precision", "fingerprint"),
        ),
    ]


def render(told: Iterable[Family], accept: str, *, began: float) -> Exposition:
    """`told` and the process's own figures, in the format that `accept` asks for.

    `began` is when the process did, in seconds since the Unix epoch.

    Blocks: prometheus_client is imported, and the process's figures are read from /proc.
    """
    from prometheus_client import CollectorRegistry, ProcessCollector, exposition
    from prometheus_client.openmetrics import exposition as openmetrics

    process = list(ProcessCollector(registry=None).collect())

    class Told:
        """A collector in prometheus_client's words."""

        def collect(self) -> Iterator[Metric]:
            for family in told:
                yield from _metrics(family)
            yield from process or _process(began)

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Told())
    # Not its choose_encoder: that fails on a version that is no number, and echoes it.
    asked = {part.partition(";")[0].strip().lower() for part in accept.split(",")}
    if OPENMETRICS in asked:
        body = openmetrics.generate_latest(registry)  # type: ignore[no-untyped-call]
        return Exposition(body, openmetrics.CONTENT_TYPE_LATEST)
    body = exposition.generate_latest(registry)
    return Exposition(body, exposition.CONTENT_TYPE_PLAIN_0_0_4)


def _metrics(family: Family) -> Iterator[Metric]:
    """`family` under its own name, and under that of text-embeddings-inference."""
    from prometheus_client import Metric

    # OpenMetrics wants `_total` at the end of a counter, which TEI's have not: of no type then.
    untyped = "unknown" if family.kind == "counter" else family.kind
    names = [(family.name, family.kind), (family.tei, untyped)]
    for name, kind in names:
        if name:
            metric = Metric(name.removesuffix("_total"), family.help, kind)
            for values, sample in family.samples.items():
                _add(metric, name, dict(zip(family.labels, values, strict=True)), sample)
            yield metric


def _add(metric: Metric, name: str, labels: dict[str, str], sample: float | Histogram) -> None:
    if not isinstance(sample, Histogram):
        metric.add_sample(name, labels, float(sample))
        return
    count = 0
    for bound, more in zip((*sample.bounds, None), sample.counts, strict=True):
        count += more
        upper = "+Inf" if bound is None else str(bound)
        metric.add_sample(f"{name}_bucket", labels | {"le": upper}, float(count))
    metric.add_sample(f"{name}_sum", labels, sample.sum)
    metric.add_sample(f"{name}_count", labels, float(count))


def _process(began: float) -> Iterator[Metric]:
    """What every system tells without a library: where there is no /proc."""
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    spent = os.times()
    yield CounterMetricFamily(
        "process_cpu_seconds", "Total user and system CPU time.", value=spent.user + spent.system
    )
    yield GaugeMetricFamily(
        "process_start_time_seconds", "Start time since the Unix epoch.", value=began
    )
