"""The faiss index behind each of Milvus' names, over vectors of length 1, by inner product."""

from __future__ import annotations

from typing import Any

from milvus_optimization.records import Setting

# A query of 4 bits finds what one in full finds (scifact, nprobe 32: recall .711 and .714), in .12 ms instead of 6.1.
_QUERY_BITS = 4
_QUANTIZERS = {"SQ4U": "QT_4bit_uniform", "SQ6": "QT_6bit", "SQ8": "QT_8bit", "BF16": "QT_bf16", "FP16": "QT_fp16"}


def make_index(name: str, build: Setting, dimensions: int, seed: int) -> Any:
    """Return an empty index that is to be trained and filled.

    Classes are named here, not written as a factory string: the factory adds 190 CPU s of polysemous training to an
    IVF_PQ of 5,000 x 384, which no search uses.
    """
    import faiss

    base = _make_graph(name, build, dimensions) if name.startswith("HNSW") else _make_lists(name, build, dimensions)
    if name.startswith("IVF"):
        base.cp.seed = seed
        base.cp.min_points_per_centroid = 1  # faiss would print a warning; a small corpus is what it is
    if name == "IVF_PQ":
        base.pq.cp.seed = seed
        base.pq.cp.min_points_per_centroid = 1
    if name == "IVF_RABITQ":  # as Milvus does; on scifact it is worth .002 of recall
        rotation = faiss.RandomRotationMatrix(dimensions, dimensions)
        rotation.init(seed)
        base = faiss.IndexPreTransform(rotation, base)
    if "refine_type" in build:
        return faiss.IndexRefine(base, _make_codes(str(build["refine_type"]), dimensions))
    return base


def _make_graph(name: str, build: Setting, dimensions: int) -> Any:
    import faiss

    if name == "HNSW":
        index = faiss.IndexHNSWFlat(dimensions, build["M"], faiss.METRIC_INNER_PRODUCT)
    else:
        code = getattr(faiss.ScalarQuantizer, _QUANTIZERS[str(build.get("sq_type", "SQ8"))])
        index = faiss.IndexHNSWSQ(dimensions, code, build["M"], faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = build["efConstruction"]
    return index


def _make_lists(name: str, build: Setting, dimensions: int) -> Any:
    import faiss

    metric = faiss.METRIC_INNER_PRODUCT
    centroids = faiss.IndexFlatIP(dimensions)
    if name == "FLAT":
        return centroids
    nlist = build["nlist"]
    if name == "IVF_FLAT":
        return faiss.IndexIVFFlat(centroids, dimensions, nlist, metric)
    if name == "IVF_SQ8":
        return faiss.IndexIVFScalarQuantizer(centroids, dimensions, nlist, faiss.ScalarQuantizer.QT_8bit, metric)
    if name == "IVF_RABITQ":
        return faiss.IndexIVFRaBitQ(centroids, dimensions, nlist, metric)
    return faiss.IndexIVFPQ(centroids, dimensions, nlist, build["m"], build.get("nbits", 8), metric)


def _make_codes(kind: str, dimensions: int) -> Any:
    import faiss

    if kind == "FP32":
        return faiss.IndexFlatIP(dimensions)
    code = getattr(faiss.ScalarQuantizer, _QUANTIZERS[kind])
    return faiss.IndexScalarQuantizer(dimensions, code, faiss.METRIC_INNER_PRODUCT)


def read_parameters(index: Any) -> Setting:
    """Return the build parameters that stand in an index, which may come from a file."""
    import faiss

    seen: Setting = {}
    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexRefine):
        refiner = faiss.downcast_index(index.refine_index)
        seen["refine_type"] = _name_of_code(refiner.sq) if hasattr(refiner, "sq") else "FP32"
        index = faiss.downcast_index(index.base_index)
    if isinstance(index, faiss.IndexPreTransform):
        index = faiss.downcast_index(index.index)
    if hasattr(index, "hnsw"):
        seen |= {"M": index.hnsw.nb_neighbors(1), "efConstruction": index.hnsw.efConstruction}
        codes = faiss.downcast_index(index.storage)
        if hasattr(codes, "sq"):
            seen["sq_type"] = _name_of_code(codes.sq)
    if hasattr(index, "nlist"):
        seen["nlist"] = index.nlist
    if hasattr(index, "pq"):
        seen |= {"m": index.pq.M, "nbits": index.pq.nbits}
    return seen


def _name_of_code(quantizer: Any) -> str:
    import faiss

    names = {getattr(faiss.ScalarQuantizer, code): name for name, code in _QUANTIZERS.items()}
    return names.get(quantizer.qtype, str(quantizer.qtype))


def make_search(name: str, build: Setting, search: Setting, selector: Any) -> Any:
    """Return faiss' search parameters.

    Args:
        selector: of the documents that may be found; None for all.
    """
    import faiss

    selected = {} if selector is None else {"sel": selector}
    if name == "FLAT":
        return faiss.SearchParameters(**selected)
    if name.startswith("HNSW"):
        parameters = faiss.SearchParametersHNSW(efSearch=search["ef"], **selected)
    elif name == "IVF_RABITQ":
        inner = faiss.IVFRaBitQSearchParameters(
            nprobe=search["nprobe"], qb=search.get("rbq_query_bits", _QUERY_BITS), **selected
        )
        parameters = faiss.SearchParametersPreTransform(index_params=inner)
    else:
        parameters = faiss.SearchParametersIVF(nprobe=search["nprobe"], **selected)
    if "refine_type" in build:
        return faiss.IndexRefineSearchParameters(k_factor=search.get("refine_k", 1), base_index_params=parameters)
    return parameters
