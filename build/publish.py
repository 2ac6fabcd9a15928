"""Make a published model: transformers' own class with random weights, laid out by
sentence-transformers, its graph written by torch.onnx.

Nothing of ours is in it, so that it can judge us: the files are those that authors' tools write,
and the reference vectors are sentence-transformers', one text at a time. Needs torch,
transformers and sentence-transformers (requirements/parity.in).
"""

from __future__ import annotations

import json
import logging
import shutil
import warnings
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from cortex_embed.errors import SelfTestError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from cortex_embed.domain import InputType
    from published_models import Publication

    Vectors = NDArray[np.float32]

_POOLINGS = {"cls": "cls", "mean": "mean", "last_token": "lasttoken"}
_SEED = 20_260
_PAST = 3  # any length above 1: the exporter takes 0 and 1 for constants


class Published:
    """One row of `published_models` in `directory`, with its authors' pipeline in memory."""

    def __init__(self, row: Publication, directory: Path) -> None:
        """Make it anew; what was in `directory` is removed."""
        quiet()
        shutil.rmtree(directory, ignore_errors=True)
        self.row = row
        self.directory = directory
        self._pipeline = _pipeline(row, directory.with_name(f"{directory.name}-source"))
        self._pipeline.save(str(directory))
        _export(self._pipeline, row, directory / "onnx" / "model.onnx")
        (directory / "model.safetensors").unlink()  # only the graph is left to read weights from

    def reference(self, texts: Sequence[str], input_type: InputType | None = None) -> Vectors:
        """[n, d] as sentence-transformers gives them, normalized, one text at a time."""
        import numpy as np

        prompt = None if input_type is None else self.row.known.prefix(input_type)
        rows = [
            self._pipeline.encode([text], prompt=prompt or None, normalize_embeddings=True)
            for text in texts
        ]
        vectors: Vectors = np.concatenate(rows)
        return vectors

    def close(self) -> None:
        """Give the weights' memory back; the files stay."""
        del self._pipeline


def quiet() -> None:
    """Neither progress bars nor reports of what no embedding uses."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    logging.getLogger("sentence_transformers").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"torch\..*|transformers\..*|onnxscript\..*")


def _pipeline(row: Publication, source: Path) -> Any:
    """sentence-transformers' modules around a model read back from its files."""
    import torch
    import transformers
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer import modules

    known = row.known
    kind = getattr(transformers, row.architecture)
    source.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng():
        torch.manual_seed(_SEED)
        model = kind(kind.config_class(**row.config))
        _randomize(model)
        widths = (row.config["hidden_size"], *row.dense)
        denses = [
            modules.Dense(a, b, bias=False, activation_function=torch.nn.Identity())
            for a, b in pairwise(widths)
        ]
    model.save_pretrained(source)
    del model
    _save_tokenizer(row, source)
    reader = modules.Transformer(
        str(source),
        max_seq_length=row.max_tokens,
        model_kwargs={"dtype": torch.float32, "attn_implementation": "sdpa"}
        if row.architecture != "MPNetModel"  # it has eager attention alone
        else {"dtype": torch.float32},
    )
    shutil.rmtree(source)
    pooling = modules.Pooling(widths[0], _POOLINGS[known.pooling])
    prompts = {"query": known.query_prefix, "document": known.document_prefix}
    steps = [reader, pooling, *denses, modules.Normalize()]
    return SentenceTransformer(modules=steps, prompts=prompts, device="cpu").eval()


def _randomize(model: Any) -> None:
    """No term near its default: leaving a bias, a norm or a position out must show."""
    import torch

    with torch.no_grad():
        for name, weight in model.named_parameters():
            drawn = torch.randn(weight.shape)
            if weight.dim() > 1:
                drawn *= 0.5 if "embed" in name else 1.2 / weight.shape[-1] ** 0.5
                weight.copy_(drawn)
            else:
                weight.copy_(weight + 0.2 * drawn)


def _save_tokenizer(row: Publication, source: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    file = source / "tokenizer.json"
    made = row.tokenizer()
    file.write_text(json.dumps(made), encoding="utf-8")
    names = {token["content"] for token in made["added_tokens"]}
    pad = next(name for name in ("<pad>", "[PAD]", "<|endoftext|>") if name in names)
    PreTrainedTokenizerFast(
        tokenizer_file=str(file), pad_token=pad, model_max_length=row.max_tokens
    ).save_pretrained(source)


def _export(pipeline: Any, row: Publication, out: Path) -> None:
    """The graph with the inputs and outputs under the names that exporters give them."""
    import torch

    config = pipeline[0].model.config
    layers = config.num_hidden_layers if row.cached else 0
    torch.manual_seed(_SEED + 1)
    batch, length = 2, 7
    ids = torch.randint(5, config.vocab_size, (batch, length))
    past = _PAST if layers else 0
    mask = torch.ones(batch, past + length, dtype=torch.long)
    mask[1, -2:] = 0  # a mask of ones alone could be left out
    sample = {
        "input_ids": ids,
        "attention_mask": mask,
        "token_type_ids": torch.zeros_like(ids),
        "position_ids": torch.arange(past, past + length).repeat(batch, 1),
    }
    given = [sample[name] for name in row.inputs]
    if layers:
        shape = (batch, config.num_key_value_heads, past, config.head_dim)
        given += [torch.randn(shape) for _ in range(2 * layers)]
    varies = torch.export.Dim.DYNAMIC
    axes = [{0: varies, 1: varies}] * len(row.inputs) + [{0: varies, 2: varies}] * (2 * layers)
    out.parent.mkdir()
    torch.onnx.export(
        _graph(pipeline, row, layers),
        tuple(given),
        str(out),
        input_names=[*row.inputs, *_cache("past_key_values", layers)],
        output_names=[*_outputs(row), *_cache("present", layers)],
        dynamic_shapes=(tuple(axes),),
        external_data=not row.is_tiny,
        dynamo=True,
        verbose=False,
    )
    if not out.is_file():
        raise SelfTestError(f"torch.onnx wrote no {out}.")


def _cache(name: str, layers: int) -> list[str]:
    return [f"{name}.{index}.{part}" for index in range(layers) for part in ("key", "value")]


def _outputs(row: Publication) -> list[str]:
    states = "token_embeddings" if row.output == "both" and not row.dense else "last_hidden_state"
    return [states] + ["sentence_embedding"] * (row.output == "both")


def _graph(pipeline: Any, row: Publication, layers: int) -> Any:
    import torch
    from transformers.cache_utils import DynamicCache

    model = pipeline[0].model
    denses = [step.linear for step in pipeline if hasattr(step, "linear")]

    class Graph(torch.nn.Module):  # type: ignore[misc]  # torch is not typed here
        def __init__(self) -> None:
            super().__init__()
            self.model = model
            self.denses = torch.nn.ModuleList(denses)

        def forward(self, *given: Any) -> tuple[Any, ...]:
            named = dict(zip(row.inputs, given, strict=False))
            if layers:
                cache, past = DynamicCache(), given[len(row.inputs) :]
                for index in range(layers):
                    cache.update(past[2 * index], past[2 * index + 1], index)
                answer = self.model(**named, past_key_values=cache, use_cache=True)
                present = [t for la in answer.past_key_values.layers for t in (la.keys, la.values)]
                return (answer.last_hidden_state, *present)
            states = self.model(**named).last_hidden_state
            if row.output == "states":
                return (states,)
            return (states, self.vector(states, named["attention_mask"]))

        def vector(self, states: Any, mask: Any) -> Any:
            if row.known.pooling == "cls":
                pooled = states[:, 0]
            else:
                wide = mask.unsqueeze(-1).to(states.dtype)
                pooled = (states * wide).sum(1) / wide.sum(1).clamp(min=1e-9)
            for dense in self.denses:
                pooled = dense(pooled)
            return torch.nn.functional.normalize(pooled, p=2, dim=1)

    return Graph().eval()
