"""The flags of a stage that mines candidates, and what they come to."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

from rag_core.base.errors import UsageError
from rag_core.base.flags import flag
from rag_core.engines.role_prompts import PromptArgs
from rag_core.retrieval.analyser import AnalyserArgs
from rag_core.sources.mining import MAX_LENGTH, Mining


@dataclasses.dataclass(kw_only=True)
class MiningArgs(AnalyserArgs, PromptArgs):
    """Flags of a stage that mines candidates: they decide through `Mining.flags`, which has them settled."""

    dense_model: list[str] | None = flag(
        "beir, corpus, apidocs: embedders whose nearest passages are candidates beside BM25's, e.g. the student and "
        "the teacher",
        None,
        decides=False,
    )
    dense_max_length: int | None = flag(
        f"dense_model: tokens of a text that it reads (default: {MAX_LENGTH})", None, decides=False, least=1
    )
    score_store: Path | None = flag(
        "dense_model: folder that keeps the vectors, also for generate_logits --score_store (default: they go when the "
        "outputs are made)",
        None,
        decides=False,
    )
    random_share: float | None = flag(
        "beir, corpus, apidocs: share of --num_candidates that is drawn from the whole corpus (default: 0)",
        None,
        decides=False,
        least=0,
        most=1,
    )
    prefer: Literal["disagreement"] | None = flag(
        "two of --dense_model, the student and then the teacher: take those candidates on whose ranks they differ most "
        "(default: the best of each ranking in turns)",
        None,
        decides=False,
    )


def settle_mining(args: MiningArgs, num_candidates: int, seed: int, vectors: Path) -> Mining:
    """Return how candidates are found, as the flags say.

    Raises:
        UsageError: flags do not go together.
    """
    models = args.dense_model or []
    if not models:
        if args.query_prompt_name or args.passage_prompt_name:
            raise UsageError("--query_prompt_name and --passage_prompt_name are for --dense_model", "Pass it, too")
        for name in ("dense_max_length", "score_store"):
            if getattr(args, name) is not None:
                raise UsageError(f"--{name} is for --dense_model", "Pass it, too")
    if len(set(models)) < len(models):
        raise UsageError("--dense_model names a model twice", "Pass each once")
    if args.prefer and len(models) != 2:
        what = f"--prefer {args.prefer} compares two models, and --dense_model names {len(models) or 'none'}"
        raise UsageError(what, "Pass the student and then the teacher: --dense_model STUDENT TEACHER")
    mining = Mining(
        num_candidates,
        seed=seed,
        analyser=args.analyser,
        dense_models=models,
        prompt_names=args.prompt_names(),
        max_length=args.dense_max_length or MAX_LENGTH,
        vectors=vectors,
        score_store=args.score_store,
        random_share=args.random_share or 0,
        prefer=args.prefer,
    )
    if mining.random_share and not 1 <= mining.drawn <= num_candidates - 2:
        what = f"--random_share {mining.random_share:g} of {num_candidates} candidates is {mining.drawn}"
        remedy = "Pass one that draws at least 1 and leaves 2"
        raise UsageError(what, remedy if num_candidates > 2 else "Leave it out, or pass a higher --num_candidates")
    return mining
