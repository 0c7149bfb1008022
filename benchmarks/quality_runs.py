"""The runs of quality.py: which techniques, on which sets, with which flags."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Pipeline = Literal["embedding", "reranker"]

# The public original's data: pairs of one positive and one negative (so labels are used), 512 a step, temperature 1.
_ORIGINAL = "--temperature 1 --merge off --learning_rate 6e-5 --per_device_train_batch_size 512"
_EMBEDDING = "--max_length 128 --dropout 0 --learning_rate 4e-5 --num_train_epochs 2"
_RERANKER = "--max_length 128 --dropout 0 --learning_rate 1.5e-4 --per_device_train_batch_size 8 --num_train_epochs 2"
_SHORT_RERANKER = _RERANKER.replace("epochs 2", "epochs 1")


@dataclass(frozen=True)
class Run:
    """A way to distil.

    Attributes:
        technique: in words, for the tables; the first run of a pipeline and set is what others are compared with.
        teacher: whose scores: all-mpnet-base-v2's, these with 0.3 of BM25's, or those of `CROSS_ENCODER`.
        derive: flags of create_triplets or generate_scores.
        listed: a reranker learns from SoftLabels, by a loss over the whole list.
        anchors: hold the embeddings of texts of neither domain.
    """

    pipeline: Pipeline
    technique: str
    train: str
    trained_on: str = "wikiqa"
    teacher: Literal["mpnet", "ensemble", "cross-encoder"] = "mpnet"
    derive: str = ""
    listed: bool = False
    anchors: bool = True
    seeds: int = 1

    @property
    def tested_on(self) -> str:
        """Return the set whose test file is in-domain."""
        return {"corpus": "scifact", "archive": "semeval"}.get(self.trained_on, self.trained_on)

    @property
    def developed_on(self) -> str:
        """Return the set whose dev file is in-domain; where there are no queries it has no labels either."""
        return "corpus" if self.trained_on == "corpus" else self.tested_on


_CORPUS = _EMBEDDING.replace("length 128", "length 160").replace("epochs 2", "epochs 1")

RUNS: dict[str, Run] = {
    "embedding-wikiqa": Run("embedding", "kl, anchors, merged", _EMBEDDING, seeds=3),
    "embedding-wikiqa_no_anchors": Run("embedding", "no anchors", _EMBEDDING, anchors=False),
    "embedding-wikiqa_original": Run("embedding", "pairs, temperature 1 (public recipe)", _ORIGINAL, anchors=False),
    "embedding-wikiqa_reranker": Run("embedding", "teacher: a cross-encoder", _EMBEDDING, teacher="cross-encoder"),
    "embedding-scifact": Run("embedding", "kl, anchors, merged", _EMBEDDING, "scifact"),
    "embedding-scifact_ensemble": Run("embedding", "teacher: with BM25", _EMBEDDING, "scifact", "ensemble", seeds=3),
    "embedding-semeval_ensemble": Run(
        "embedding", "teacher: with BM25", _EMBEDDING.replace("epochs 2", "epochs 5"), "semeval", "ensemble", seeds=3
    ),
    "embedding-archive_ensemble": Run(
        "embedding",
        "each question of the archive asks for others, teacher with BM25",
        _EMBEDDING.replace("epochs 2", "epochs 1"),
        "archive",
        "ensemble",
        seeds=3,
    ),
    "embedding-corpus": Run("embedding", "sentences cut out of the corpus", _CORPUS, "corpus"),
    "embedding-corpus_ensemble": Run(
        "embedding", "sentences cut out of the corpus, teacher with BM25", _CORPUS, "corpus", "ensemble", seeds=3
    ),
    "embedding-wikiqa_shallow": Run("embedding", "3 of 6 layers", f"{_EMBEDDING} --init_layers 3", anchors=False),
    "reranker-wikiqa_plain": Run("reranker", "next ranks, MarginMSE (plain)", _RERANKER, seeds=3),
    "reranker-wikiqa_plain_short": Run("reranker", "plain, 1 epoch", _SHORT_RERANKER, seeds=3),
    **{
        f"reranker-wikiqa_{loss}_short": Run(
            "reranker", f"list, {loss}, 1 epoch", f"{_SHORT_RERANKER} --loss {loss}", listed=True, seeds=3
        )
        for loss in ("kl", "adr_mse")
    },
    "reranker-wikiqa_all": Run("reranker", "all pairs, MarginMSE", _RERANKER, derive="--num_negatives all"),
    "reranker-wikiqa_stratified": Run("reranker", "stratified, MarginMSE", _RERANKER, derive="--sampling stratified"),
    "reranker-wikiqa_random": Run("reranker", "random, MarginMSE", _RERANKER, derive="--sampling random"),
    **{
        f"reranker-wikiqa_{loss.replace('+', '_')}": Run(
            "reranker", f"list, {loss}", f"{_RERANKER} --loss {loss}", listed=True, seeds=seeds
        )
        for loss, seeds in (
            ("kl", 3),
            ("margin_mse+mse", 1),
            ("listnet", 1),
            ("plistmle", 1),
            ("adr_mse", 3),
            ("lambda", 1),
        )
    },
    "reranker-wikiqa_ranknet": Run("reranker", "next ranks, RankNet", f"{_RERANKER} --loss ranknet"),
    "reranker-scifact_plain": Run("reranker", "next ranks, MarginMSE (plain)", _RERANKER, "scifact", seeds=3),
    "reranker-wikiqa_shallow": Run(
        "reranker", "list, kl, 3 of 6 layers", f"{_RERANKER} --loss kl --init_layers 3", listed=True
    ),
    "reranker-scifact_kl_ensemble": Run(
        "reranker", "list, kl, teacher with BM25", f"{_RERANKER} --loss kl", "scifact", "ensemble", listed=True
    ),
    "reranker-scifact_ensemble": Run("reranker", "plain, teacher with BM25", _RERANKER, "scifact", "ensemble", seeds=3),
}
CROSS_ENCODER = "reranker-wikiqa_kl"  # that run's first seed teaches embedders, too
