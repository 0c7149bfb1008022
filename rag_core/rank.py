"""Show how a model ranks the passages of a query, and what moved against another model.

passages, or a RankingSample -> a table on the screen

python -m rag_core.rank --model models/student --before BAAI/bge-m3 --query "how do I sort" --passages passages.txt

With --first_stage, the score is the mix that `evaluate --mix` measured and kept in the model's folder.
"""

from __future__ import annotations

import dataclasses
import logging
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rag_core.base.errors import DataError, UsageError
from rag_core.base.flags import flag
from rag_core.base.outside_text import quoted
from rag_core.base.records import RankingSample
from rag_core.base.stage import BadRowsArgs, run_stage, show
from rag_core.engines.role_prompts import PromptArgs
from rag_core.evaluation.first_stage_args import BM25_NAME
from rag_core.files.bad_rows import BadRows
from rag_core.files.formats import is_table
from rag_core.files.jsonl import read_lines, read_samples
from rag_core.files.manifest import check_inputs

if TYPE_CHECKING:
    import numpy.typing as npt

    from rag_core.engines.identity import ModelInfo
    from rag_core.engines.protocols import Floats
    from rag_core.release.mix import Mix

logger = logging.getLogger(__name__)


@dataclasses.dataclass(kw_only=True)
class Args(BadRowsArgs, PromptArgs):
    """Flags of the stage."""

    model: str = flag("cross-encoder, embedder or LLM reranker, a folder or a hub's name")
    before: str | None = flag("another model, to see what moved against it", None)
    first_stage: str | None = flag(
        "bm25, or the model that --model was mixed with by evaluate --mix: rank by the mix, with the weight kept there",
        None,
    )
    passages: Path = flag("one passage per line (.txt), or RankingSample records (.jsonl, .jsonl.gz)")
    query: str | None = flag("the query (default: that of the sample)", None)
    query_id: str | None = flag("which sample of the file (default: the first)", None)
    instruction: str | None = flag(
        "task instruction for a model that takes one (default: as in generate_logits)", None, decides=False
    )
    max_length: int = flag("tokens, as in generate_logits", 4096, least=1)
    batch_size: int = flag("pairs in a batch", 32, least=1)
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = flag("precision", "auto")


def run(args: Args) -> list[Path]:
    """Print the table; nothing is written."""
    samples = _samples(args)
    sample = samples[0]
    from rag_core.base.tables import format_ranking
    from rag_core.engines.identity import describe_models
    from rag_core.release.mix import read_mix
    from rag_core.scoring.ranking_table import ranking_rows

    mix = read_mix(Path(args.model)) if args.first_stage else None
    names = dict.fromkeys(filter(None, [args.model, args.before, _first_model(args)]))
    models = dict(zip(names, describe_models(list(names), args.prompt_names()), strict=True))
    if mix is not None:
        _check_first_stage(args, mix, models)
    scores_of = {name: _scores(model, sample, args) for name, model in models.items()}
    scores: npt.ArrayLike = scores_of[args.model]
    before: npt.ArrayLike | None = scores_of[args.before] if args.before else None
    if mix is not None:
        scores, first = _mixed(args, mix, samples, scores_of)
        before = first if before is None else before
    rows = ranking_rows(list(sample.passages()), scores, before)
    width = shutil.get_terminal_size((120, 24)).columns
    show(f"{' '.join(sample.query.split())}\n\n{format_ranking(rows, width)}")
    return []


def _first_model(args: Args) -> str | None:
    return None if args.first_stage == BM25_NAME else args.first_stage


def _check_first_stage(args: Args, mix: Mix, models: Mapping[str, ModelInfo]) -> None:
    """Check that the first stage is the one that the kept weight is for.

    Raises:
        UsageError: it is another one.
    """
    from rag_core.release.mix import FirstStage
    from rag_core.retrieval.analyser import PLAIN

    name = _first_model(args)
    mix.check_first_stage(FirstStage.model(models[name].identity) if name else FirstStage.bm25(PLAIN))


def _mixed(
    args: Args, mix: Mix, samples: Sequence[RankingSample], scores_of: Mapping[str, Floats]
) -> tuple[npt.ArrayLike, npt.ArrayLike]:
    """Return the mixed scores of the first sample's candidates, and those of the first stage."""
    from rag_core.evaluation.mixing import mixed
    from rag_core.retrieval.analyser import PLAIN
    from rag_core.retrieval.bm25 import bm25_scores

    name = _first_model(args)
    first = scores_of[name] if name else bm25_scores(samples, mix.first_stage.analyser or PLAIN)[0]
    return mixed(first, scores_of[args.model], mix.weight), first


def _samples(args: Args) -> list[RankingSample]:
    """Return the query with its candidates, and after it the other samples of its file, which BM25 counts words in.

    Raises:
        PipelineError: the file has no passages, or not the sample, or there is no query.
    """
    if is_table(args.passages) or args.passages.name.endswith((".json", ".json.gz")):
        raise UsageError(
            f"{args.passages} is neither .jsonl nor lines of text", "Convert it, or name it .txt or .jsonl"
        )
    if not args.passages.name.endswith((".jsonl", ".jsonl.gz")):
        if args.query_id:
            raise UsageError("--query_id names a sample, and the passages are lines of text", "Leave out --query_id")
        if not args.query or not args.query.strip():
            raise UsageError("lines of text have no query", "Pass --query QUERY")
        return [RankingSample(args.query, candidates=_read_lines(args.passages, BadRows(skip=args.skip_bad_rows)))]
    if args.query is not None and not args.query.strip():
        raise UsageError("--query is empty", "Pass a query, or leave out --query")
    samples = read_samples(args.passages, bad_rows=BadRows(skip=args.skip_bad_rows))
    chosen = [sample for sample in samples if args.query_id in (None, sample.query_id)]
    if not chosen:
        what = f"has no query_id {quoted(repr(args.query_id))}"
        raise DataError(what, "Leave out --query_id for the first", path=args.passages)
    sample = dataclasses.replace(chosen[0], query=args.query or chosen[0].query)
    return [sample, *(other for other in samples if other is not chosen[0])]


def _read_lines(path: Path, bad_rows: BadRows) -> list[str]:
    check_inputs([path])
    passages = [line.rstrip("\r\n") for _, line in read_lines(path, bad_rows=bad_rows)]
    if not passages:
        raise DataError("holds no passages", "Write one passage per line", path=path)
    return passages


def _scores(model: ModelInfo, sample: RankingSample, args: Args) -> Floats:
    """Score the candidates, without the canary of long runs: a single passage is no error."""
    from rag_core.engines.loading import choose_engine, scores_of
    from rag_core.engines.options import EngineOptions

    options = EngineOptions(
        model=model,
        instruction=args.instruction,
        max_length=args.max_length,
        batch_size=args.batch_size,
        dtype=args.dtype,
    )
    engine, _ = choose_engine(options.model, "auto")
    if options.model.note:
        logger.warning("WARNING: %s", options.model.note)
    return scores_of(engine, options, [(sample.query, passage) for passage, _ in sample.passages()])


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage from the command line."""
    return run_stage(Args, run, __doc__ or "", argv)


if __name__ == "__main__":
    sys.exit(main())
