"""Logs, metrics and keys of a real process with a real model."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING

import pytest
from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from pathlib import Path

    from cortex_embed.models.artifact import Artifact
    from tests.e2e.conftest import Serve
    from tests.e2e.process import Client

SECRET = "k3y-of-somebody"
TEXT = "a text that nobody may log"
TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"


def samples(client: Client) -> dict[str, float]:
    """Samples without labels, and the last of those with, by name."""
    text = client.get("/metrics").body.decode()
    families = text_string_to_metric_families(text)
    return {sample.name: sample.value for family in families for sample in family.samples}


def test_every_line_is_json_and_none_has_a_text_or_a_key(
    serve: Serve, tiny_mean: Artifact, tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"# ours\n{SECRET}\n")
    keys.chmod(0o644)
    served = serve(tiny_mean, "--log-format", "json", "--access-log", "--api-key-file", str(keys))
    client = served.ready()
    traced = {"traceparent": f"00-{TRACE_ID}-00f067aa0ba902b7-01", "x-api-key": SECRET}
    known = type(client)(client.port, traced)
    assert client.post("/embed", {"texts": [TEXT]}).status == 401
    assert known.post("/embed?a=b", {"texts": [TEXT]}).status == 200
    assert client.get("/readyz").status == 200
    served.wait_for('"path": "/readyz"')
    served.process.terminate()
    if sys.platform != "win32":
        assert served.exit_code() == 0
    events = [json.loads(line) for line in served.stderr.splitlines()]
    assert all(one["time"] and one["level"] and one["message"] for one in events)
    access = [one for one in events if one["logger"] == "cortex_embed.access"]
    assert [(one["path"], one["status"]) for one in access] == [
        ("/embed", 401),
        ("/embed", 200),
        ("/readyz", 200),
    ]
    assert [one.get("trace_id") for one in access] == [None, TRACE_ID, None]
    starts = [one["event"] for one in events if one["logger"] == "cortex_embed.start"]
    assert starts[:3] == ["listening", "loading", "ready"]
    warnings = [one["message"] for one in events if one["level"] == "warning"]
    assert [str(keys) in line for line in warnings] == ([] if sys.platform == "win32" else [True])
    assert SECRET not in served.stderr
    assert TEXT not in served.stderr


def test_the_engine_is_counted(serve: Serve, tiny_mean: Artifact) -> None:
    client = serve(tiny_mean).ready()
    began = time.monotonic()
    before = samples(client)
    assert time.monotonic() - began < 10
    assert before["cortex_embed_batch_texts_count"] == 0
    client.embed(["one", "two", "word " * 500])
    after = samples(client)
    assert after["cortex_embed_texts_total"] == after["te_embed_success"] == 3
    assert after["cortex_embed_batch_texts_sum"] == after["te_batch_next_size_sum"] == 3
    assert after["te_request_input_length_sum"] == after["cortex_embed_tokens_total"]
    assert after["cortex_embed_truncations_total"] == 1
    assert 0 < after["cortex_embed_engine_run_seconds_sum"] < 60
    assert 0 < after["te_request_inference_duration_sum"] <= after["te_request_duration_sum"]
    assert after["cortex_embed_queue_tokens"] == 0


def test_a_port_that_others_reach_is_warned_of(serve: Serve, tiny_mean: Artifact) -> None:
    served = serve(tiny_mean, "--host", "0.0.0.0")  # noqa: S104 - that is the point
    served.wait_for(r"WARNING ANYONE who can reach http://0\.0\.0\.0:\d+ can use this server")
    served.wait_for("Model ready")


@pytest.mark.parametrize("content", ["", f"{SECRET} {SECRET}"])
def test_a_file_of_keys_that_cannot_be_used(
    serve: Serve, tiny_mean: Artifact, tmp_path: Path, content: str
) -> None:
    keys = tmp_path / "keys"
    keys.write_text(content)
    served = serve(tiny_mean, "--api-key-file", str(keys))
    assert served.exit_code() == 2
    assert "--api-key-file" in served.stderr
    assert SECRET not in served.stderr
