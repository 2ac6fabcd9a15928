"""The model that a full asset carries: fetched by pin, exported, and proven, before it is frozen.

It must never hand out an artifact whose published golden vector was not compared: a model that
has none cannot be released.

    python -m release.model [--model ID] [--work dist]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import export_onnx
import fetch_model
import targets
from cortex_embed.commands import selftest
from cortex_embed.config import Settings
from cortex_embed.errors import EmbedError, UsageError
from cortex_embed.models.catalogue import find

if TYPE_CHECKING:
    from collections.abc import Sequence


def prepare(model_id: str, work: Path) -> Path:
    """The artifact directory of catalogue model `model_id`, below `work`.

    Raises UsageError for a model that is unknown or has no published golden vector,
    ModelFileError for bytes that are not the pinned ones, SelfTestError for other vectors than
    the published ones.
    """
    entry = find(model_id)
    if entry is None:
        raise UsageError(
            f"{targets.TABLE.name} wants model {model_id!r}, which the catalogue has not."
        )
    if not entry.goldens:
        raise UsageError(
            f"{entry.spec.id} has no published golden vector in the catalogue: it cannot be "
            "proven, hence not released."
        )
    sources, out = work / "sources" / entry.spec.id, work / "models" / entry.spec.id
    fetch_model.fetch(entry, sources)
    if export_onnx.is_current(sources, out):
        print(f"{entry.spec.id}: the export in {out} is up to date and verified.", flush=True)
    else:
        export_onnx.export(sources, entry.spec, out)
    prove(out)
    return out


def prove(artifact: Path) -> None:
    """Hold an artifact directory to its golden vectors, in fp32; prints the table.

    Raises SelfTestError for other vectors than the published ones.
    """
    selftest.run(Settings(model=(str(artifact),), precision="fp32"))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Obtain and prove the model of full assets.")
    parser.add_argument("--model", default=targets.load().release.model, metavar="ID")
    parser.add_argument("--work", type=Path, default=Path("dist"), metavar="DIR")
    args = parser.parse_args(arguments)
    try:
        print(prepare(args.model, args.work))
    except EmbedError as why:
        print(f"error: {why.message}", file=sys.stderr)
        return why.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
