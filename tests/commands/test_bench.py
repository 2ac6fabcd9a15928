"""`bench`: its flags, and the whole command in this process. No figure is asserted."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from cortex_embed.cli import build_parser
from cortex_embed.commands import bench
from cortex_embed.config import Settings
from cortex_embed.errors import TargetError, UsageError
from tests.models_fixtures import with_other_graph

if TYPE_CHECKING:
    from pathlib import Path

    from cortex_embed.models.store import Artifact


def options(*arguments: str) -> bench.Options:
    return bench.Options.from_arguments(build_parser().parse_args(["bench", *arguments]))


def test_defaults() -> None:
    found = options()
    assert found.concurrency == (1, 8, 64)
    assert (found.texts, found.batch, found.duration, found.url) == ("short", 1, 5.0, None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--concurrency", "1,x"], "--concurrency: '1,x'"),
        (["--concurrency", "0"], "from 1 to 4096"),
        (["--batch", "0"], "--batch: '0'"),
        (["--batch", "1,2"], "one whole number"),
        (["--duration", "5parsecs"], "--duration: '5parsecs'"),
        (["--duration", "0"], "from 100ms to 1h"),
        (["--header", "no colon"], "--header"),
        (["--header", "A: b\r\nC: d"], "--header"),
    ],
)
def test_wrong_flags_are_named(arguments: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        options(*arguments)


def test_flags_of_a_url_need_one(tiny_mean: Artifact) -> None:
    settings = Settings(model=(str(tiny_mean.directory),))
    with pytest.raises(UsageError, match="go with --url"):
        bench.run(settings, options("--bench-model", "x"))


def test_nobody_there_is_an_error_with_its_exit_code() -> None:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}/v1"
        with pytest.raises(TargetError, match="cannot be reached") as caught:
            bench.run(Settings(), options("--url", url, "--bench-model", "m"))
    assert caught.value.exit_code == 8


def test_a_plot_of_another_kind_is_refused_before_measuring(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\.html or \.png"):
        bench.run(Settings(), options("--plot", str(tmp_path / "x.pdf")))


def test_in_process_with_table_json_and_chart(
    tiny_mean: Artifact, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = Settings(model=(str(tiny_mean.directory),), threads=1)
    out, chart = tmp_path / "out.json", tmp_path / "chart.html"
    flags = ["--concurrency", "1,4", "--duration", "200ms", "--batch", "2", "--texts", "mixed"]
    code = bench.run(settings, options(*flags, "--json", str(out), "--plot", str(chart)))
    assert code == 0
    printed = capsys.readouterr()
    assert printed.err == ""  # no bar without a terminal
    assert printed.out.splitlines()[0].startswith("in process, tiny-mean")
    table = printed.out.splitlines()[3:]
    assert len({len(line) for line in table}) == 1
    found = json.loads(out.read_text(encoding="utf-8"))
    assert [row["concurrency"] for row in found["results"]] == [1, 4]
    assert all(row["texts_per_second"] > 0 for row in found["results"])
    assert found["machine"]["processor"]


def test_the_engine_that_ran_is_named(
    kernel_mean: Artifact,
    kernel_sets: tuple[str, ...],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Also where a graph turned out not to be for the one that was meant to."""
    if not kernel_sets:
        pytest.skip("this processor has none of the instruction sets")
    odd = with_other_graph(kernel_mean, tmp_path / "odd")
    said = []
    for artifact, engine in ((kernel_mean, "auto"), (kernel_mean, "onnxruntime"), (odd, "auto")):
        settings = Settings(
            model=(str(artifact.directory),), threads=1, precision="int8", engine=engine
        )
        bench.run(settings, options("--concurrency", "1", "--duration", "100ms"))
        said.append(capsys.readouterr().out.splitlines()[0])
    model = f"in process, {kernel_mean.spec.id} (int8, engine"
    native, asked, fallen = said
    assert native == f"{model} native: {kernel_sets[0]}): short texts, 1 a request"
    assert asked == f"{model} onnxruntime): short texts, 1 a request"
    assert fallen.startswith(f"{model} onnxruntime: ")
    assert "where ours has" in fallen
