"""The ways of peers.py: our two distillations, and the losses with which sentence-transformers distils.

Where tevatron stands: the package on PyPI (0.1.0, of 2022) has no distillation. Its repository distils bi-encoders by
KL(teacher || student) over a query's own candidates, with one temperature for both, 0.02 in its example. That is
`DistillKLDivLoss(temperature=0.02)`: the row `embedder_tevatron` is its loss and temperature in sentence-transformers'
trainer, not its program.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["embedder", "reranker"]
# One row: a triplet, the list of a query, a pair of query and passage, a text with the teacher's vector.
Rows = Literal["triplets", "lists", "pairs", "vectors"]
# The teacher's scores as they are; times our --margin_scale; over our temperature; from 0 to 1 in the whole file.
Labels = Literal["scores", "scaled", "sharp", "unit"]


@dataclass(frozen=True)
class Way:
    """A way to distil.

    Attributes:
        what: in words, for the table.
        loss: of sentence-transformers, by its class; empty for our own stage.
        settings: of that loss; "ours" stands for our temperature, "teacher" for the teacher's dimensions.
        flags: of our own stage.
        merged: our stage gets dev files, and merges with the weights before training.
    """

    kind: Kind
    what: str
    rows: Rows
    loss: str = ""
    labels: Labels = "scores"
    settings: dict[str, Any] = field(default_factory=dict)
    flags: str = ""
    merged: bool = False


_SHARP = {"student_temperature": 0.05, "teacher_temperature": "ours"}

# The first of a kind is what its others are compared with.
WAYS: dict[str, Way] = {
    "embedder_ours": Way("embedder", "ours: kl, not merged", "lists", flags="--merge off"),
    "embedder_ours_merged": Way("embedder", "ours: kl, merged by dev files", "lists", merged=True),
    "embedder_kl": Way("embedder", "DistillKLDivLoss", "lists", "DistillKLDivLoss"),
    "embedder_kl_sharp": Way(
        "embedder", "DistillKLDivLoss, our temperatures", "lists", "DistillKLDivLoss", settings=_SHARP
    ),
    "embedder_tevatron": Way(
        "embedder", "tevatron's: KL, temperature 0.02", "lists", "DistillKLDivLoss", settings={"temperature": 0.02}
    ),
    "embedder_margin_mse": Way("embedder", "MarginMSELoss, triplets", "triplets", "MarginMSELoss"),
    "embedder_margin_mse_lists": Way("embedder", "MarginMSELoss, lists", "lists", "MarginMSELoss"),
    "embedder_mse": Way("embedder", "MSELoss, projected", "vectors", "MSELoss", settings={"projection_dim": "teacher"}),
    "embedder_embed_distill": Way(
        "embedder", "EmbedDistillLoss, projected", "vectors", "EmbedDistillLoss", settings={"projection_dim": "teacher"}
    ),
    "embedder_cosent": Way("embedder", "CoSENTLoss", "pairs", "CoSENTLoss"),
    "embedder_angle": Way("embedder", "AnglELoss", "pairs", "AnglELoss"),
    "reranker_ours": Way("reranker", "ours: MarginMSE", "triplets"),
    "reranker_ours_kl": Way("reranker", "ours: kl", "lists", flags="--loss kl"),
    "reranker_margin_mse": Way("reranker", "MarginMSELoss", "triplets", "MarginMSELoss", "scaled"),
    "reranker_mse": Way("reranker", "MSELoss", "pairs", "MSELoss"),
    "reranker_bce": Way("reranker", "BinaryCrossEntropyLoss", "pairs", "BinaryCrossEntropyLoss", "unit"),
    "reranker_lambda": Way("reranker", "LambdaLoss", "lists", "LambdaLoss", "unit"),
    "reranker_listnet": Way("reranker", "ListNetLoss", "lists", "ListNetLoss", "sharp"),
    "reranker_ranknet": Way("reranker", "RankNetLoss", "lists", "RankNetLoss"),
    "reranker_adr_mse": Way("reranker", "ADRMSELoss", "lists", "ADRMSELoss"),
}
# The student before training, which is the embedder for both kinds, and the teacher.
BEFORE = "before"


def reference(kind: Kind) -> str:
    """Return what ways of a kind are compared with."""
    return next(name for name, way in WAYS.items() if way.kind == kind)
