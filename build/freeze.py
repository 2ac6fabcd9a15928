"""Make the executable: `dist/cortex-embed`, and the directory form `dist/onedir`.

    python build/freeze.py [--slim | --model DIR] [--out dist]
    python build/freeze.py --release [--rehearsal] [--out dist/frozen]

The second makes what a release packages (build/release/package.py): OUT/full with the table's
model, OUT/slim without one. This is the one place that knows which modules a bundle does
without. It must never change the model: the artifact directory goes in as it is, or with the one
precision that is asked for.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

import compile_kernels
import source_date
import targets
from cortex_embed.errors import EmbedError
from cortex_embed.models.artifact import load_artifact
from cortex_embed.models.store import EMBEDDED_DIR
from cortex_embed.providers import cl100k
from cortex_embed.providers.engine import newest_opset

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cortex_embed.models.artifact import Artifact

ROOT = Path(__file__).resolve().parent.parent
FROZEN = ROOT / "dist" / "frozen"
EXE = "cortex-embed.exe" if sys.platform == "win32" else "cortex-embed"

# Imported only by what we never call: tools, tests, other front ends of the same libraries.
EXCLUDES = (
    "onnx", "google", "safetensors", "ml_dtypes",
    "onnxruntime.tools", "onnxruntime.quantization", "onnxruntime.transformers",
    "onnxruntime.datasets", "onnxruntime.backend", "flatbuffers", "sympy", "coloredlogs",
    "numpy.f2py", "numpy.distutils", "numpy.testing", "numpy.tests", "numpy._core.tests",
    "numpy.random", "numpy.fft", "numpy.polynomial", "numpy.ma", "numpy.ctypeslib",
    "numpy._core._multiarray_tests",
    "tkinter", "unittest", "doctest", "pdb", "pydoc", "pydoc_data", "xmlrpc", "lib2to3",
    "distutils", "setuptools", "pkg_resources", "pip", "hatchling", "sqlite3", "_sqlite3",
    "curses", "_curses", "readline", "turtle", "test", "idlelib", "ensurepip", "venv",
    "multiprocessing", "IPython", "matplotlib", "pandas", "scipy", "PIL", "torch",
    "_codecs_cn", "_codecs_jp", "_codecs_kr", "_codecs_tw", "_codecs_hk", "_codecs_iso2022",
    "_multibytecodec", "_testcapi", "_lsprof", "cProfile", "profile", "uvloop", "gunicorn",
    "aiohttp.worker", "aiohttp.pytest_plugin", "aiohttp.test_utils",
    # The client half, which server/lean.py leaves out of every start.
    "aiohttp.client", "aiohttp.client_reqrep", "aiohttp.client_ws", "aiohttp.client_middlewares",
    "aiohttp.client_middleware_digest_auth", "aiohttp.connector", "aiohttp.cookiejar",
    # What stands in where a C extension is missing; ours are there.
    "_pydecimal", "multidict._multidict_py",
    "aiohttp._websocket.reader", "aiohttp._websocket.reader_c", "aiohttp._websocket.reader_py",
    "webbrowser", "ftplib", "tracemalloc",
    *(() if sys.platform == "win32" else ("asyncio.windows_events", "asyncio.proactor_events")),
)  # fmt: skip
# Of huggingface_hub only the download is wanted (models/hub.py). Its packages name all the rest
# under `if TYPE_CHECKING`, which PyInstaller follows; hf_xet is its other transport, 11 MB.
HUB_EXCLUDES = (
    "hf_xet", "yaml._yaml", "fsspec", "click", "rich", "pygments", "markdown_it", "pydantic",
    "packaging", "httpx2._main", "httpx2.websockets", "httpcore2._sync.http2",
    "httpcore2._async.http2", "anyio._backends._trio", "trio", "socksio", "h2", "brotli",
    "zstandard",
    *(f"huggingface_hub.{name}" for name in (
        "_bucket_live_follow", "_buckets", "_commit_api", "_commit_scheduler", "_dataset_viewer",
        "_eval_results", "_hot_reload", "_inference_endpoints", "_jobs_api", "_login", "_oauth",
        "_oidc", "_sandbox", "_sandbox_cache", "_snapshot_download", "_space_api",
        "_tensorboard_logger", "_upload_pipeline", "_webhooks_payload", "_webhooks_server", "cli",
        "community", "fastai_utils", "hf_api", "hf_file_system", "hub_mixin", "inference", "lfs",
        "repocard", "repocard_data", "serialization", "utils._cache_assets",
        "utils._cache_manager", "utils._chunk_utils", "utils._git_credential",
        "utils._pagination", "utils._safetensors", "utils._subprocess", "utils._telemetry",
        "utils._terminal", "utils._verification", "utils._xet_progress_reporting",
        "utils.endpoint_helpers",
    )),
)  # fmt: skip
# What its packages load by name, when an attribute is first asked for.
HIDDEN: tuple[str, ...] = (
    "huggingface_hub.file_download", "huggingface_hub.errors", "huggingface_hub.constants",
    *(f"huggingface_hub.utils.{name}" for name in (
        "_auth", "_fixes", "_headers", "_http", "_lfs", "_oauth_device", "_paths", "_runtime",
        "_shared_blobs", "_typing", "_validators", "_xet", "insecure_hashlib", "logging", "sha",
        "tqdm",
    )),
)  # fmt: skip
# Packages that ask for their own version when they are imported.
METADATA = ("httpx2", "httpcore2")
# Libraries that only excluded modules load.
DROP = ("libtinfo", "libreadline", "libsqlite3", "libncurses", "onnxruntime.dll")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Freeze cortex-embed.")
    parser.add_argument("--slim", action="store_true", help="carry no model")
    parser.add_argument("--model", type=Path, metavar="DIR", help="carry this artifact directory")
    parser.add_argument("--precision", choices=("fp32", "int8", "both"), help="of the model")
    parser.add_argument("--release", action="store_true", help="both, as a release has them")
    parser.add_argument(
        "--rehearsal", action="store_true", help="--release with the embedded model: no release"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="dist; of --release dist/frozen")
    args = parser.parse_args(arguments)
    if args.slim and args.model:
        parser.error("--slim carries no model: leave --model out.")
    if args.release and (args.slim or args.model):
        parser.error("--release makes both forms: leave --slim and --model out.")
    if args.rehearsal and not args.release:
        parser.error("--rehearsal is for --release.")
    refuse_static_python()
    if not cl100k.FILE.is_file():
        raise SystemExit(f"{cl100k.FILE} is missing. Run build/fetch_vocabulary.py first.")
    kernels = kernels_library()
    if args.release:
        out = args.out or FROZEN
        model = EMBEDDED_DIR if args.rehearsal else released_model()
        make(out / "full", kernels, model, args.precision)
        make(out / "slim", kernels, None, None)
    else:
        carried = None if args.slim else args.model or EMBEDDED_DIR
        make(args.out or ROOT / "dist", kernels, carried, args.precision)
    return 0


def kernels_library() -> Path | None:
    """This target's native kernels; None, said on stderr, on a machine that is none.

    Raises SystemExit where they have not been compiled.
    """
    for target in compile_kernels.chosen(None, every=False):
        library = compile_kernels.LIB / compile_kernels.library_name(target)
        if not library.is_file():
            raise SystemExit(f"{library} is missing. Run build/compile_kernels.py first.")
        return library
    return None


def released_model() -> Path:
    """The artifact directory of the table's model, proven. Raises SystemExit, saying why not."""
    from release import model

    try:
        return model.prepare(targets.load().release.model, ROOT / "dist")
    except EmbedError as why:
        raise SystemExit(f"error: {why.message}") from why


def make(out: Path, kernels: Path | None, model: Path | None, precision: str | None) -> None:
    """Freeze both forms into `out`, with the library `kernels` and the artifact directory `model`,
    or without.

    Raises EmbedError for a damaged one, CalledProcessError.
    """
    work = out / ".work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    staged = None
    if model is not None:
        staged = work / "model"
        stage(load_artifact(model), staged, precision)
    freeze(out, work, kernels, staged)
    print(f"{out / EXE}: {(out / EXE).stat().st_size / 1e6:.1f} MB", flush=True)


def refuse_static_python() -> None:
    """PyInstaller needs libpython as a shared library, and says so less clearly."""
    if sys.platform != "win32" and not sysconfig.get_config_var("Py_ENABLE_SHARED"):
        framework = sysconfig.get_config_var("PYTHONFRAMEWORK")
        if not framework:
            raise SystemExit(
                f"{sys.executable} has no shared libpython (Py_ENABLE_SHARED=0), which PyInstaller "
                "needs. Use the system's Python, uv's, or pyenv with --enable-shared."
            )


def stage(artifact: Artifact, out: Path, asked: str | None) -> None:
    """Copy what `artifact` needs on this platform, in the precision that `auto` would take.

    By the gate alone: the processor that it will run on is not known here.
    """
    gate = "int8" in artifact.precisions and artifact.passed_gate("int8")
    precision = asked or ("int8" if gate else "fp32")
    kept = artifact.precisions if precision == "both" else (precision,)
    graphs = [g for g in artifact.graphs if g.precision in kept and g.opset <= newest_opset()]
    best = {p: max(g.opset for g in graphs if g.precision == p) for p in kept}
    graphs = [g for g in graphs if g.opset == best[g.precision]]
    wanted = {"tokenizer.json"} | {name for g in graphs for name in (g.file, g.data)}
    out.mkdir(parents=True)
    for name in sorted(wanted):
        shutil.copyfile(artifact.directory / name, out / name)
    names = {g.file for g in graphs}
    manifest = artifact.manifest | {
        "graphs": [g for g in artifact.manifest["graphs"] if g["file"] in names],
        "files": {n: f for n, f in artifact.manifest["files"].items() if n in wanted},
    }
    (out / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    load_artifact(out).verify()


def freeze(out: Path, work: Path, kernels: Path | None, model: Path | None) -> None:
    """Run PyInstaller on the spec. Raises CalledProcessError."""
    options = {
        "work": str(work),
        "kernels": str(kernels) if kernels else None,
        "model": str(model) if model else None,
        "excludes": (*EXCLUDES, *HUB_EXCLUDES),
        "hidden": HIDDEN,
        "metadata": METADATA,
        "drop": DROP,
    }
    environment = os.environ | {
        "CORTEX_EMBED_FREEZE": json.dumps(options),
        # For the same bytes from the same sources.
        "PYTHONHASHSEED": "1",
        # Python modules are stored, as everything in the file is: inflating them at every start
        # costs more than the megabytes; the release archive is compressed as a whole.
        "PYINSTALLER_ZLIB_COMPRESSION_LEVEL": "0",
        source_date.VARIABLE: str(source_date.epoch()),
    }
    command = [sys.executable, "-m", "PyInstaller", str(ROOT / "specs" / "cortex-embed.spec")]
    command += ["--workpath", str(work / "pyinstaller"), "--distpath", str(out)]
    subprocess.run(
        [*command, "--noconfirm", "--log-level", "WARN"], check=True, env=environment, cwd=ROOT
    )


if __name__ == "__main__":
    sys.exit(main())
