"""Which indexes there are, the bounds of their parameters, and the settings that a sweep tries by default.

Names are Milvus'; the faiss backend builds what they stand for. Everything is checked here before a backend sees it:
milvus-lite takes any value, and an M of -3 had it ask for 21 GB.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

from milvus_optimization.records import BackendName, Setting
from rag_core.base.errors import UsageError
from rag_core.base.outside_text import quoted

CODES = ("SQ4U", "SQ6", "SQ8", "BF16", "FP16")  # how HNSW_SQ keeps a vector
REFINERS = ("SQ6", "SQ8", "BF16", "FP16", "FP32")  # with what candidates are scored again

_Bounds = tuple[int, int] | tuple[str, ...]  # least and most of a number, or the words there are


@dataclasses.dataclass(frozen=True)
class BuildSetting:
    """One build of an index, and the search settings that are tried on it, in ascending order."""

    index: str
    build: Setting
    searches: tuple[Setting, ...]


@dataclasses.dataclass(frozen=True)
class _Index:
    """The parameters of an index type; those in `optional` may be left out."""

    build: Mapping[str, _Bounds]
    search: Mapping[str, _Bounds]
    optional: frozenset[str] = frozenset()


_GRAPH: dict[str, _Bounds] = {"M": (2, 128), "efConstruction": (1, 4096)}
_LISTS: dict[str, _Bounds] = {"nlist": (1, 65_536)}
_PRODUCT: dict[str, _Bounds] = {"m": (1, 65_536), "nbits": (4, 8)}
_REFINE: dict[str, _Bounds] = {"refine_type": REFINERS}
_EF: dict[str, _Bounds] = {"ef": (1, 32_768)}
_NPROBE: dict[str, _Bounds] = {"nprobe": (1, 65_536)}
_REFINE_K: dict[str, _Bounds] = {"refine_k": (1, 100)}
_REFINED = frozenset({"sq_type", "nbits", "refine_type", "refine_k"})

INDEXES = {
    "FLAT": _Index({}, {}),
    "AUTOINDEX": _Index({}, _EF, frozenset({"ef"})),
    "IVF_FLAT": _Index(_LISTS, _NPROBE),
    "IVF_SQ8": _Index(_LISTS, _NPROBE),
    "IVF_RABITQ": _Index(
        _LISTS | _REFINE, _NPROBE | _REFINE_K | {"rbq_query_bits": (0, 8)}, _REFINED | {"rbq_query_bits"}
    ),
    "SCANN": _Index(_LISTS, _NPROBE | {"reorder_k": (1, 16_384)}, frozenset({"reorder_k"})),
    "HNSW": _Index(_GRAPH, _EF),
    "HNSW_SQ": _Index(_GRAPH | {"sq_type": CODES} | _REFINE, _EF | _REFINE_K, _REFINED),
    "HNSW_PQ": _Index(_GRAPH | _PRODUCT | _REFINE, _EF | _REFINE_K, _REFINED),
    "IVF_PQ": _Index(_LISTS | _PRODUCT, _NPROBE, _REFINED),
    "DISKANN": _Index({}, {"search_list": (1, 65_535)}),
}

# A server has what its version has: it is asked, and an index that it refuses is unsupported there.
BACKEND_INDEXES: dict[BackendName, tuple[str, ...]] = {
    "faiss": ("FLAT", "IVF_FLAT", "IVF_SQ8", "IVF_RABITQ", "HNSW", "HNSW_SQ", "IVF_PQ"),
    "lite": ("FLAT", "AUTOINDEX", "IVF_FLAT", "IVF_SQ8", "HNSW", "HNSW_SQ"),
    "server": tuple(INDEXES),
}

# A search for more results than one of these: a server refuses it, milvus-lite answers with fewer results.
WIDTHS = ("ef", "search_list", "reorder_k")

_DIMENSIONS_OF_A_CODE = 8  # of a product quantiser: m 48 of 384 dimensions
_PRODUCT_IS_DEARER_BELOW = 20_000  # rows: 7.1 CPU s against 0.8 of HNSW 16/100 at 5,183, 5.1 against 5.3 at 24,000


def check_setting(index: str, build: Setting, search: Setting, *, rows: int, dimensions: int, k: int) -> None:
    """Check the parameters of a build and of a search in it.

    Args:
        rows, dimensions: of the vectors.
        k: how many results are asked for.

    Raises:
        UsageError: there is no such index or parameter, one is missing or out of bounds, or they do not go together.
    """
    check_build(index, build, rows=rows, dimensions=dimensions)
    if not 1 <= k <= rows:
        raise UsageError(f"{k} results of {rows} documents are asked for", f"Ask for 1 to {rows}")
    _check_values(index, search, INDEXES[index].search)
    number = _numbers(build | search)
    for name in WIDTHS:
        if number.get(name, k) < k:
            raise UsageError(f"{name} of {index} is {number[name]}, and {k} results are asked for", "Pass k or more")
    if number.get("nprobe", 1) > number.get("nlist", 1):
        raise UsageError(
            f"nprobe of {index} is {number['nprobe']}, and there are {number['nlist']} lists", "Pass nlist or less"
        )
    if "refine_k" in number and "refine_type" not in build:
        raise UsageError(
            f"refine_k of {index} is {number['refine_k']}, and nothing is refined", "Give refine_type, too"
        )


def check_build(index: str, build: Setting, *, rows: int, dimensions: int) -> None:
    """Check the parameters of a build alone; see `check_setting`."""
    if index not in INDEXES:
        raise UsageError(f"there is no index {quoted(index)!r}", f"Choose one of: {', '.join(INDEXES)}")
    _check_values(index, build, INDEXES[index].build)
    number = _numbers(build)
    if number.get("nlist", 1) > rows:
        raise UsageError(f"nlist of {index} is {number['nlist']}, and there are {rows} documents", "Pass fewer lists")
    if "m" in number and dimensions % number["m"]:
        raise UsageError(
            f"m of {index} is {number['m']}, and does not divide {dimensions} dimensions", "Pass a divisor"
        )
    if "m" in number and rows < 2 ** number.get("nbits", 8):
        raise UsageError(
            f"{index} needs {2 ** number.get('nbits', 8):g} documents, and there are {rows}", "Leave it out"
        )


def milvus_build(build: Setting) -> dict[str, int | float | str | bool]:
    """Return build parameters as Milvus takes them: it refines only where `refine` says so beside the type."""
    return {**build, "refine": True} if "refine_type" in build else dict(build)


def wide_enough(search: Setting, results: int) -> Setting:
    """Return search parameters with which so many results can be asked for."""
    widened = {name: max(int(search[name]), results) for name in WIDTHS if name in search}
    return search | widened


def _numbers(setting: Setting) -> dict[str, int | float]:
    return {name: value for name, value in setting.items() if not isinstance(value, str)}


def _check_values(index: str, given: Setting, allowed: Mapping[str, _Bounds]) -> None:
    missing = [name for name in allowed if name not in given and name not in INDEXES[index].optional]
    if missing:
        raise UsageError(f"{index} lacks {missing[0]}", f"Give {missing[0]}")
    for name, value in given.items():
        _check_value(index, name, value, allowed)


def _check_value(index: str, name: str, value: object, allowed: Mapping[str, _Bounds]) -> None:
    if name not in allowed:
        names = ", ".join(allowed) or "none"
        raise UsageError(f"{index} has no parameter {quoted(name)!r} here", f"Its parameters are: {names}")
    bounds = allowed[name]
    if isinstance(bounds[0], str):
        if value not in bounds:
            raise UsageError(
                f"{name} of {index} is {quoted(str(value))!r}", f"Choose one of: {', '.join(map(str, bounds))}"
            )
        return
    number = isinstance(value, int | float if name == "refine_k" else int) and not isinstance(value, bool)
    if not number or not bounds[0] <= value <= bounds[1]:  # type: ignore[operator]
        raise UsageError(
            f"{name} of {index} is {quoted(str(value))}", f"Pass a whole number from {bounds[0]} to {bounds[1]}"
        )


def default_grid(
    backend: BackendName, rows: int, dimensions: int, k: int, indexes: Sequence[str] | None = None
) -> list[BuildSetting]:
    """Return the settings to try: FLAT first, since the others are held against it, then cheap builds before dear ones.

    faiss gets 13 builds and about 70 settings.

    Args:
        rows, dimensions: of the vectors.
        indexes: index types to try; None for all that the backend may have.

    Raises:
        UsageError: the backend has no index of such a name.
    """
    for name in indexes or ():
        if name not in BACKEND_INDEXES[backend]:
            raise UsageError(
                f"--indexes has {quoted(name)!r}, which {backend} does not have",
                f"Choose some of: {', '.join(BACKEND_INDEXES[backend])}",
            )
    wanted = {"FLAT", *(BACKEND_INDEXES[backend] if indexes is None else indexes)}
    return [setting for setting in _all_settings(rows, dimensions, k) if setting.index in wanted]


def _all_settings(rows: int, dimensions: int, k: int) -> list[BuildSetting]:
    few = max(1, round(math.sqrt(rows)))
    many = min(4 * few, rows)
    small: Setting = {"M": 16, "efConstruction": 100}
    large: Setting = {"M": 32, "efConstruction": 200}
    eight: Setting = {"sq_type": "SQ8"}
    efs = _efs(k, 6)
    flat = [BuildSetting("FLAT", {}, ({},))]
    lists = [
        BuildSetting("IVF_FLAT", {"nlist": few}, _nprobes(few, 1)),
        BuildSetting("IVF_SQ8", {"nlist": few}, _nprobes(few, 4)),
        BuildSetting("IVF_RABITQ", {"nlist": few}, _nprobes(few, 8)),
        BuildSetting(
            "IVF_RABITQ",
            {"nlist": few, "refine_type": "SQ8"},
            tuple(probes | {"refine_k": times} for probes in _nprobes(few, 16) for times in (1, 2, 4, 10)),
        ),
        BuildSetting(
            "SCANN",
            {"nlist": few},
            tuple(probes | {"reorder_k": times * k} for probes in _nprobes(few, 8) for times in (4, 20)),
        ),
    ]
    # Each family stands once before another build of it does: on scifact, 99 % of the hypervolume of all settings then
    # takes about 40 of them, where it took 46.
    more_lists = [
        BuildSetting("IVF_FLAT", {"nlist": many}, _nprobes(many, 4)),
        BuildSetting("IVF_SQ8", {"nlist": many}, _nprobes(many, 8)),
    ]
    graphs = [
        BuildSetting("HNSW", small, efs),
        BuildSetting("HNSW_SQ", small | eight, efs),
        *more_lists,
        BuildSetting("AUTOINDEX", {}, ({},)),
        BuildSetting("HNSW", {"M": 16, "efConstruction": 200}, efs),
        BuildSetting("HNSW", large, efs),
        BuildSetting("HNSW_SQ", large | eight, efs),
    ]
    disk = [BuildSetting("DISKANN", {}, tuple({"search_list": setting["ef"]} for setting in _efs(k, 4)))]
    codes = next((m for m in range(dimensions // _DIMENSIONS_OF_A_CODE, 0, -1) if dimensions % m == 0), 0)
    if not codes or rows < 256:
        return flat + lists + graphs + disk
    product: Setting = {"m": codes, "nbits": 8}
    dearer = [BuildSetting("IVF_PQ", {"nlist": few, **product}, _nprobes(few, 8))]
    graphs.append(
        BuildSetting(
            "HNSW_PQ",
            {**small, **product, "refine_type": "SQ8"},
            tuple(setting | {"refine_k": times} for setting in _efs(k, 3) for times in (1, 4)),
        )
    )
    if rows < _PRODUCT_IS_DEARER_BELOW:
        return flat + lists + graphs + dearer + disk
    return flat + lists + dearer + graphs + disk


def _efs(k: int, most: int) -> tuple[Setting, ...]:
    return tuple({"ef": ef} for ef in [k, *(step for step in (16, 32, 64, 128, 256, 512, 1024) if step > k)][:most])


def _nprobes(nlist: int, least: int) -> tuple[Setting, ...]:
    steps = [step for step in (1, 2, 4, 8, 16, 32, 64) if least <= step <= nlist] or [nlist]
    return tuple({"nprobe": step} for step in steps)
