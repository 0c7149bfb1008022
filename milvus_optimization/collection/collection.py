"""A collection made to a plan: filled, indexed, checked and searched."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from milvus_optimization.backends.lite_store import index_files, read_index
from milvus_optimization.backends.readback import built_as_asked, plain_setting
from milvus_optimization.backends.space import milvus_build
from milvus_optimization.collection.plan import (
    DENSE,
    ID,
    LONGEST,
    SCRATCH,
    SPARSE,
    TEXT,
    WORDS,
    CollectionPlan,
    words_of,
)
from milvus_optimization.records import Setting
from rag_core.base.errors import EngineError, StaleError, UsageError
from rag_core.base.outside_text import quoted

if TYPE_CHECKING:
    from pymilvus import MilvusClient

Floats = npt.NDArray[np.float32]
Places = npt.NDArray[np.int64]
Hits = Sequence[Mapping[str, Any]]

_HAS_WORDS = (2, 5)
_ROWS_AT_ONCE = 500  # 500 vectors of 4,096 dimensions are 8 MB; a server takes 64 MB in one message
_QUERIES_AT_ONCE = 32
_BY_WORDS = {"metric_type": "BM25"}


def check_has_words(version: str) -> None:
    """Check that a server knows BM25, before anything is made.

    Raises:
        EngineError: it does not.
    """
    told = re.search(r"(\d+)\.(\d+)", version)
    if told and tuple(map(int, told.groups())) < _HAS_WORDS:
        what = f"this Milvus is of version {quoted(version)}, and BM25 needs {'.'.join(map(str, _HAS_WORDS))}"
        raise EngineError(what, "Update it, or pass --dense_only to recommend")


class Collection:
    """A collection of ours.

    Attributes:
        name: in Milvus.
    """

    def __init__(self, client: MilvusClient, name: str, plan: CollectionPlan, path: Path | None) -> None:
        """Prepare it.

        Args:
            path: of the milvus-lite database; None of a server.
        """
        self._client = client
        self.name = name
        self._plan = plan
        self._path = path

    def make(self) -> None:
        """Make it without indexes: given before there are rows, they are built behind our back, nobody says when."""
        from pymilvus import DataType, Function, FunctionType

        plan = self._plan
        if plan.uses_words and self._path is None:
            check_has_words(self._client.get_server_version())
        schema = self._client.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field(ID, DataType.VARCHAR, is_primary=True, max_length=plan.id_bytes)
        schema.add_field(TEXT, DataType.VARCHAR, max_length=LONGEST)
        schema.add_field(DENSE, DataType.FLOAT_VECTOR, dim=plan.dimensions)
        if plan.uses_words:
            schema.add_field(WORDS, DataType.VARCHAR, max_length=LONGEST, enable_analyzer=True)
            schema.add_field(SPARSE, DataType.SPARSE_FLOAT_VECTOR)
            kind = FunctionType.BM25
            schema.add_function(
                Function(name="bm25", function_type=kind, input_field_names=[WORDS], output_field_names=[SPARSE])
            )
        self._client.create_collection(self.name, schema=schema, consistency_level="Bounded")  # Milvus' default

    def insert(self, ids: Sequence[str], texts: Sequence[str], vectors: Floats) -> None:
        """Insert all documents."""
        from tqdm import tqdm

        for start in tqdm(range(0, len(ids), _ROWS_AT_ONCE), desc="inserting", unit_scale=_ROWS_AT_ONCE, disable=None):
            rows = slice(start, start + _ROWS_AT_ONCE)
            words = words_of(self._plan, list(texts[rows])) if self._plan.uses_words else None
            block = []
            for place, (key, text, vector) in enumerate(zip(ids[rows], texts[rows], vectors[rows], strict=True)):
                row = {ID: key, TEXT: text, DENSE: np.asarray(vector)}
                block.append(row | {WORDS: words[place]} if words is not None else row)
            self._client.insert(self.name, block)
        self._client.flush(self.name)

    def count(self) -> int:
        """Return the number of rows; the collection is loaded."""
        found = self._client.query(self.name, output_fields=["count(*)"], consistency_level="Strong")
        return int(found[0]["count(*)"])

    def build(self, rows: int) -> Setting:
        """Build the indexes and load; return the parameters of the vectors' index as Milvus tells them.

        Raises:
            EngineError: what was built is not what was asked, or not so many rows are there.
        """
        plan = self._plan
        indexes = self._client.prepare_index_params()
        # milvus-lite reads the parameters only where they stand in a `params` of their own; a server takes both forms.
        asked = {"params": milvus_build(plan.index_parameters)}
        indexes.add_index(DENSE, index_name=DENSE, index_type=plan.index_type, metric_type="COSINE", params=asked)
        if plan.uses_words:
            bm25 = {"params": {"bm25_k1": plan.k1, "bm25_b": plan.b}}
            kind = "SPARSE_INVERTED_INDEX"
            indexes.add_index(SPARSE, index_name=SPARSE, index_type=kind, metric_type="BM25", params=bm25)
        self._client.create_index(self.name, indexes)
        self._client.load_collection(self.name)
        if (count := self.count()) != rows:
            raise EngineError(f"the collection {self.name} has {count} rows, not {rows}", "Run the command again")
        return self._seen()

    def _seen(self) -> Setting:
        """Return what Milvus, and of milvus-lite its index files, tell, once they agree with what was asked for."""
        plan, told = self._plan, self._client.describe_index(self.name, DENSE)
        seen = plain_setting({**told, **(told.get("params") or {})})
        if self._path and plan.index_type != "FLAT":
            for file in index_files(self._path, self.name):
                seen |= read_index(file)
        asked: Setting = {"index_type": plan.index_type, "metric_type": "COSINE", **plan.index_parameters}
        if wrong := built_as_asked(asked, seen):
            raise EngineError(f"the index is another: {wrong}", "Update Milvus, or run recommend for this --target")
        return {key: seen[key] for key in asked}

    def nearest(self, vectors: Floats, k: int) -> list[Hits]:
        """Return the hits of each vector, by the index alone."""
        return self._each(
            lambda rows: self._client.search(self.name, self._listed(vectors[rows]), **self._by_vectors(k)),
            len(vectors),
        )

    def ranked(self, vectors: Floats, texts: Sequence[str], k: int) -> list[Hits]:
        """Return the hits of each query by all that Milvus does: both searches, fused."""
        from pymilvus import AnnSearchRequest

        plan = self._plan
        if not plan.uses_words:
            return self.nearest(vectors, k)
        words = words_of(plan, list(texts))
        if not plan.uses_vectors:
            by_words = {"anns_field": SPARSE, "limit": k, "search_params": _BY_WORDS}
            return self._each(lambda rows: self._client.search(self.name, words[rows], **by_words), len(words))

        def fused(rows: slice) -> list[Hits]:
            near = AnnSearchRequest(self._listed(vectors[rows]), DENSE, self._near(plan.deep_parameters), plan.depth)
            said = AnnSearchRequest(words[rows], SPARSE, _BY_WORDS, plan.depth)
            found: list[Hits] = self._client.hybrid_search(self.name, [near, said], self._ranker(), limit=k)
            return found

        return self._each(fused, len(words))

    @staticmethod
    def _near(parameters: Setting) -> dict[str, Any]:
        return {"metric_type": "COSINE", "params": dict(parameters)}

    def _by_vectors(self, k: int) -> dict[str, Any]:
        return {"anns_field": DENSE, "limit": k, "search_params": self._near(self._plan.search_parameters)}

    def _ranker(self) -> Any:
        from pymilvus import RRFRanker, WeightedRanker

        plan = self._plan
        if plan.fusion == "rrf":
            return RRFRanker(plan.parameter)
        normalised = plan.normalisation == "arctan"
        return WeightedRanker(plan.parameter, round(1 - plan.parameter, 9), norm_score=normalised)

    @staticmethod
    def _listed(vectors: Floats) -> list[Floats]:
        return [np.asarray(vector) for vector in vectors]

    @staticmethod
    def _each(search: Callable[[slice], Sequence[Hits]], queries: int) -> list[Hits]:
        from tqdm import tqdm

        found: list[Hits] = []
        for start in tqdm(range(0, queries, _QUERIES_AT_ONCE), desc="searching", disable=None):
            found += search(slice(start, start + _QUERIES_AT_ONCE))
        return found


def check_free(client: MilvusClient, name: str, *, replace: bool) -> None:
    """Check that a collection may take a name.

    Raises:
        UsageError: it is an alias.
        StaleError: another has it, and is not to be replaced.
    """
    if not has(client, name) and client.has_collection(name):
        raise UsageError(f"{name} is an alias", "Name a collection")
    if has(client, name) and not replace:
        what = f"there is a collection {name} already"
        raise StaleError(what, "Pass --replace to put the new one in its place, or name another --collection")


def has(client: MilvusClient, name: str) -> bool:
    """Tell whether there is a collection; an alias is none."""
    return name in client.list_collections()


def stands(client: MilvusClient, name: str, rows: int) -> bool:
    """Tell whether a collection is there, with all its rows."""
    return has(client, name) and int(client.get_collection_stats(name)["row_count"]) == rows


def take_name(client: MilvusClient, scratch: str, name: str) -> None:
    """Let a whole collection take a name; that which had it goes last.

    A kill leaves the former one whole, if need be as `<scratch>_old`; called again, this goes on.
    """
    former = f"{scratch}_old"
    if has(client, scratch):
        if has(client, name):
            client.rename_collection(name, former)
        client.rename_collection(scratch, name)
    client.load_collection(name)  # milvus-lite has released it
    drop_ours(client, former)


def settle(client: MilvusClient, scratch: str, name: str) -> None:
    """Tidy up what a killed run left: the former collection gets its name back, what was being built goes."""
    former = f"{scratch}_old"
    if has(client, former):
        if has(client, name):
            drop_ours(client, former)
        else:
            client.rename_collection(former, name)
    drop_ours(client, scratch)


def drop_ours(client: MilvusClient, name: str) -> None:
    """Drop a collection with a scratch name; none with another is ever dropped."""
    if not name.startswith(SCRATCH):
        raise ValueError(f"{name} is no scratch name")
    if has(client, name):
        client.drop_collection(name)
