from __future__ import annotations

import pytest

from cortex_embed.errors import BindError
from cortex_embed.models.obtain import Progress
from cortex_embed.server.reporter import STOP_REASONS, Together
from cortex_embed.server.sockets import Listener
from cortex_embed.service import ServedModel
from tests.server.conftest import SPEC, Recorder

PROGRESS = Progress("download", "tiny", "model.onnx", 1, 2)


def test_every_reason_to_stop_is_listed() -> None:
    assert STOP_REASONS == ("signal", "parent", "stdin", "idle", "request")


@pytest.mark.parametrize("count", [0, 1, 3])
async def test_all_are_told_the_same(count: int) -> None:
    model = ServedModel(SPEC, 0)
    recorders = [Recorder() for _ in range(count)]
    both = Together(*recorders)
    both.listening(Listener((), "127.0.0.1", 1), "token")
    both.said("hello")
    both.progressed(PROGRESS)
    both.loading(model)
    both.ready(model, 0.1)
    both.draining(1, "idle")
    both.stopped()
    both.failed(BindError("no"))
    for recorder in recorders:
        assert recorder.events == [
            ("listening", "http://127.0.0.1:1", "token"),
            ("said", "hello"),
            ("progressed", PROGRESS),
            ("loading", "tiny"),
            ("ready", "tiny"),
            ("draining", 1, "idle"),
            ("stopped",),
            ("failed", "bind"),
        ]
