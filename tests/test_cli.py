from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from cortex_embed import __version__, cli

COSTLY = {"numpy", "onnxruntime", "aiohttp", "tokenizers", "huggingface_hub", "tqdm", "orjson"}
COSTLY |= {"asyncio", "msgspec", "platformdirs", "logging"}


def modules_after(*arguments: str) -> set[str]:
    """Top-level names of the modules that this command line has imported when it exits."""
    code = (
        "import sys, json, atexit\n"
        "atexit.register(lambda: print('\\n' + json.dumps(sorted(sys.modules)), file=sys.stderr))\n"
        "from cortex_embed.cli import main\n"
        f"main({list(arguments)!r})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    names: list[str] = json.loads(done.stderr.splitlines()[-1])
    return {name.partition(".")[0] for name in names}


@pytest.mark.parametrize(
    "arguments",
    [
        ["--version"],
        ["--help"],
        ["serve", "--help"],
        ["embed", "--help"],
        ["service", "install", "--help"],
        ["service", "print", "--prot", "1"],
        ["--port", "x"],
        ["nope"],
    ],
)
def test_version_help_and_usage_errors_import_nothing_that_costs(arguments: list[str]) -> None:
    loaded = modules_after(*arguments)
    assert "cortex_embed" in loaded
    assert not loaded & COSTLY


def test_version_imports_these_modules_of_ours_and_no_more() -> None:
    code = (
        "import sys\n"
        "from cortex_embed.cli import main\n"
        "try: main(['--version'])\n"
        "except SystemExit: print(*sorted(m for m in sys.modules if m.startswith('cortex')))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    ours = ("cli", "config", "errors", "parsers", "settings", "settings_rows")
    assert done.stdout.splitlines() == [
        f"cortex-embed {__version__}",
        " ".join(["cortex_embed", *(f"cortex_embed.{name}" for name in ours)]),
    ]


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ([], ["serve"]),
        (["--port", "1"], ["serve", "--port", "1"]),
        (["--version"], ["--version"]),
        (["-h"], ["-h"]),
        (["embed", "x"], ["embed", "x"]),
        (["serv"], ["serv"]),
    ],
)
def test_serve_is_the_default_command(given: list[str], meant: list[str]) -> None:
    assert cli.with_default_command(given) == meant


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nope"], "invalid choice: 'nope'"),
        (["--port", "99999"], "--port: '99999' must be from 0 to 65535"),
        (["--prot", "1"], "unrecognized arguments: --prot"),
        (["--model", "no-such-model"], "no-such-model"),
        (["embed", "--dimensions", "0", "x"], "--dimensions: 0 must be from 1 to"),
        (["embed", "--output", "x.csv", "a"], "neither .jsonl nor .npy"),
        (["embed", "--format", "npy", "a"], "--format npy needs --output"),
        (["embed", "--input", "a.txt", "text"], "choose one"),
        (["embed", "--model", "a", "--model", "b", "x"], "embed takes one model, 2 were given"),
    ],
)
def test_usage_errors_exit_with_2_and_say_what_is_wrong(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    captured = capsys.readouterr()
    assert caught.value.code == 2
    assert words in captured.err
    assert captured.out == ""


def test_every_exit_code_of_the_errors_is_documented() -> None:
    from cortex_embed import errors

    documented = {int(c) for c in re.findall(r"^  (\d+)  ", cli.EXIT_CODES, flags=re.MULTILINE)}
    used = {
        kind.exit_code
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.EmbedError)
    }
    assert used <= documented


def test_a_model_directory_that_is_none_exits_with_3(
    capsys: pytest.CaptureFixture[str], tmp_path: object
) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["selftest", "--model", f"{tmp_path}/none"])
    assert caught.value.code == 3
    assert f"{tmp_path}/none" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="no head, and no EPIPE, there")
def test_a_reader_that_goes_is_no_error() -> None:
    """`models list | true`: nothing on stderr, and the code that the shell gives it as well."""
    command = [sys.executable, "-m", "cortex_embed", "models", "list"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 141


@pytest.mark.skipif(sys.platform == "win32", reason="needs a shell")
def test_a_closed_stdout_is_no_error() -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", '"$0" -m cortex_embed models list >&-', sys.executable],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
