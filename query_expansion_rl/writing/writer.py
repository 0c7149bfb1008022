"""A language model that writes expansions, chunk by chunk: what runs it, and what outlives a kill."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from query_expansion_rl.records import Expansion, Topic
from query_expansion_rl.writing.form_choice import FormArgs, choose_form
from query_expansion_rl.writing.forms import VERSION, Form
from query_expansion_rl.writing.sampling import write_expansions
from rag_core.base.flags import flag
from rag_core.files.jsonl import read_records, write_records
from rag_core.files.kept_times import KeptTimes

if TYPE_CHECKING:
    from rag_core.engines.generation import Sampling
    from rag_core.engines.identity import ModelInfo

_CHUNK = 32  # queries


@dataclasses.dataclass(kw_only=True)
class WriterArgs(FormArgs):
    """Flags of a stage that lets a model write."""

    model: str = flag("language model that writes: a folder that train made, or any other", decides=False)
    engine: Literal["auto", "vllm", "transformers", "server"] = flag(
        "what runs the model (auto: vllm where there is a GPU)", "auto", decides=False
    )
    server_url: str | None = flag("server engine: http://host:port of vLLM's server", None, decides=False)
    max_length: int = flag("tokens of prompt and answer", 1024, least=1)
    batch_size: int = flag("answers that are written at once (vLLM makes its own batches)", 64, decides=False, least=1)
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = flag("precision of the model", "auto")


@dataclasses.dataclass(frozen=True)
class Writer:
    """A model and its form, settled but not loaded."""

    args: WriterArgs
    model: ModelInfo
    form: Form

    @classmethod
    def of(cls, args: WriterArgs) -> Self:
        """Settle both.

        Raises:
            UsageError: flags do not go together, or the model was trained for another form.
            PipelineError: the model is not there, or is none.
        """
        from rag_core.engines.identity import describe_model
        from rag_core.engines.options import check_server_flags

        check_server_flags(args.engine, args.server_url, args.dtype)
        return cls(args, model=describe_model(args.model), form=choose_form(args, args.model))

    @property
    def identity(self) -> dict[str, Any]:
        """What of the model decides the texts."""
        from rag_core.engines.model_files import template_file

        template = template_file(self.args.model) if self.form.style == "chat" else {}
        return {**self.model.identity, **template, "prompt": VERSION}

    def write(self, topics: Sequence[Topic], sampling: Sampling, method: str, folder: Path) -> Written:
        """Write the expansions of topics; chunks that stand in the folder are finished.

        Raises:
            EngineError: no chat can be made of a query, or as the model raises.
        """
        from tqdm import tqdm

        from rag_core.engines.loading import load_generator
        from rag_core.engines.options import EngineOptions, ServerOptions

        args, times = self.args, KeptTimes(folder)
        chunks = {start: folder / f"expansions-{start:09}-{_CHUNK}.jsonl" for start in range(0, len(topics), _CHUNK)}
        todo = [(start, path) for start, path in chunks.items() if not path.exists()]
        if todo:
            if self.form.style == "chat":
                self._check_template()
            options = EngineOptions(
                self.model,
                max_length=args.max_length,
                batch_size=args.batch_size,
                dtype=args.dtype,
                server=ServerOptions(args.server_url) if args.server_url else None,
            )
            generator = load_generator(args.engine, options)
        for start, path in tqdm(todo, unit="chunk", desc="write expansions", disable=None):
            drawn = sampling
            if sampling.seed is not None:  # those that the queries would have without chunks
                drawn = dataclasses.replace(sampling, seed=sampling.seed + start * sampling.num_samples)
            started = time.perf_counter()
            found = list(write_expansions(generator, self.form, topics[start : start + _CHUNK], drawn, method))
            times.keep(path.name, (time.perf_counter() - started) * 1000)
            write_records(path, found)
        spent = sum(times.get(path.name) or 0.0 for path in chunks.values())
        return Written(list(chunks.values()), spent)

    def _check_template(self) -> None:
        """Check that a chat can be made of a query, before the weights are read."""
        from rag_core.engines.generation import token_ids
        from rag_core.engines.tokenizer import load_tokenizer

        room = self.args.max_length - self.form.max_new_tokens
        token_ids(load_tokenizer(self.args.model), [self.form.prompt("query")], room)


@dataclasses.dataclass(frozen=True)
class Written:
    """Finished chunks.

    Attributes:
        milliseconds: of the model's clock, over all.
    """

    chunks: list[Path]
    milliseconds: float

    def rows(self) -> Iterator[Expansion]:
        """Yield the expansions, in the order of the topics."""
        return chain.from_iterable(read_records(path, Expansion) for path in self.chunks)
