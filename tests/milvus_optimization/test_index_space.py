"""Bounds of parameters, the default grid, and whether an index is the one that was asked for."""

import pytest

from milvus_optimization.backends.readback import built_as_asked, plain_setting
from milvus_optimization.backends.space import BACKEND_INDEXES, INDEXES, check_setting, default_grid
from rag_core.base.errors import UsageError

HNSW = {"M": 16, "efConstruction": 100}


def test_the_grid_of_faiss_has_13_builds_and_72_settings():
    grid = default_grid("faiss", 5_183, 384, 10)
    assert len(grid) == 13
    assert sum(len(setting.searches) for setting in grid) == 72
    assert (grid[0].index, grid[0].build, grid[0].searches) == ("FLAT", {}, ({},))
    assert {setting.index for setting in grid} == set(BACKEND_INDEXES["faiss"])


@pytest.mark.parametrize(("rows", "last"), [(5_183, "IVF_PQ"), (24_000, "HNSW_SQ")])
def test_dear_builds_come_last(rows, last):
    order = [setting.index for setting in default_grid("faiss", rows, 384, 10)]
    assert order[-1] == last
    assert order.index("IVF_RABITQ") < order.index("HNSW")


@pytest.mark.parametrize("backend", ["faiss", "lite", "server"])
@pytest.mark.parametrize(
    ("rows", "dimensions", "k"), [(5_183, 384, 10), (2_000_000, 1024, 100), (300, 7, 10), (10, 61, 10)]
)
def test_every_setting_of_the_grid_is_within_bounds_and_searches_ascend(backend, rows, dimensions, k):
    grid = default_grid(backend, rows, dimensions, k)
    assert grid[0].index == "FLAT"
    assert len({str(setting) for setting in grid}) == len(grid)
    for setting in grid:
        for search in setting.searches:
            check_setting(setting.index, setting.build, search, rows=rows, dimensions=dimensions, k=k)
        effort = [tuple(search.values()) for search in setting.searches]
        assert effort == sorted(set(effort))


def test_some_indexes_are_chosen_and_flat_is_always_there():
    grid = default_grid("lite", 5_183, 384, 10, ["HNSW"])
    assert [setting.index for setting in grid] == ["FLAT", "HNSW", "HNSW", "HNSW"]


def test_an_index_that_the_backend_does_not_have_is_named():
    with pytest.raises(UsageError) as error:
        default_grid("lite", 5_183, 384, 10, ["FLAT", "IVF_PQ"])
    assert str(error.value) == (
        "--indexes has 'IVF_PQ', which lite does not have. "
        "Choose some of: FLAT, AUTOINDEX, IVF_FLAT, IVF_SQ8, HNSW, HNSW_SQ."
    )


@pytest.mark.parametrize(
    ("index", "build", "search", "sentence"),
    [
        ("HNWS", HNSW, {"ef": 10}, f"there is no index 'HNWS'. Choose one of: {', '.join(INDEXES)}."),
        ("HNSW", HNSW | {"M": -3}, {"ef": 10}, "M of HNSW is -3. Pass a whole number from 2 to 128."),
        ("HNSW", HNSW | {"M": 16.0}, {"ef": 10}, "M of HNSW is 16.0. Pass a whole number from 2 to 128."),
        ("HNSW", HNSW | {"M": "16"}, {"ef": 10}, "M of HNSW is 16. Pass a whole number from 2 to 128."),
        (
            "IVF_FLAT",
            {"nlist": 16},
            {"nprobe": True},
            "nprobe of IVF_FLAT is True. Pass a whole number from 1 to 65536.",
        ),
        ("HNSW", {"M": 16}, {"ef": 10}, "HNSW lacks efConstruction. Give efConstruction."),
        ("HNSW", HNSW, {}, "HNSW lacks ef. Give ef."),
        (
            "HNSW",
            HNSW,
            {"ef": 10, "efSearch": 50},
            "HNSW has no parameter 'efSearch' here. Its parameters are: ef.",
        ),
        ("FLAT", {}, {"ef": 10}, "FLAT has no parameter 'ef' here. Its parameters are: none."),
        ("HNSW", HNSW, {"ef": 9}, "ef of HNSW is 9, and 10 results are asked for. Pass k or more."),
        ("HNSW", HNSW, {"ef": 10**6}, "ef of HNSW is 1000000. Pass a whole number from 1 to 32768."),
        (
            "IVF_FLAT",
            {"nlist": 1_001},
            {"nprobe": 8},
            "nlist of IVF_FLAT is 1001, and there are 1000 documents. Pass fewer lists.",
        ),
        (
            "IVF_FLAT",
            {"nlist": 16},
            {"nprobe": 17},
            "nprobe of IVF_FLAT is 17, and there are 16 lists. Pass nlist or less.",
        ),
        (
            "IVF_PQ",
            {"nlist": 16, "m": 7, "nbits": 8},
            {"nprobe": 8},
            "m of IVF_PQ is 7, and does not divide 64 dimensions. Pass a divisor.",
        ),
        (
            "HNSW_SQ",
            HNSW | {"sq_type": "NONSENSE"},
            {"ef": 10},
            "sq_type of HNSW_SQ is 'NONSENSE'. Choose one of: SQ4U, SQ6, SQ8, BF16, FP16.",
        ),
        (
            "IVF_RABITQ",
            {"nlist": 16},
            {"nprobe": 8, "refine_k": 2},
            "refine_k of IVF_RABITQ is 2, and nothing is refined. Give refine_type, too.",
        ),
        (
            "DISKANN",
            {},
            {"search_list": 5},
            "search_list of DISKANN is 5, and 10 results are asked for. Pass k or more.",
        ),
    ],
)
def test_what_is_out_of_bounds_is_refused(index, build, search, sentence):
    with pytest.raises(UsageError) as error:
        check_setting(index, build, search, rows=1_000, dimensions=64, k=10)
    assert str(error.value) == sentence


def test_more_results_than_documents_are_refused():
    with pytest.raises(UsageError, match=r"11 results of 10 documents are asked for\. Ask for 1 to 10\."):
        check_setting("FLAT", {}, {}, rows=10, dimensions=64, k=11)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.5])
def test_a_refine_k_may_be_a_fraction_but_not_any(value):
    build, rows = {"nlist": 16, "refine_type": "SQ8"}, {"rows": 1_000, "dimensions": 64, "k": 10}
    check_setting("IVF_RABITQ", build, {"nprobe": 8, "refine_k": 1.5}, **rows)
    with pytest.raises(UsageError, match="refine_k of IVF_RABITQ is"):
        check_setting("IVF_RABITQ", build, {"nprobe": 8, "refine_k": value}, **rows)


@pytest.mark.parametrize(
    ("asked", "seen", "reason"),
    [
        ({}, None, ""),
        (HNSW, HNSW | {"index_type": "HNSW"}, ""),
        (HNSW, plain_setting({"M": "16", "efConstruction": "100"}), ""),
        ({"sq_type": "SQ8"}, {"sq_type": "sq8"}, ""),
        (HNSW, HNSW | {"M": 32}, "M 16 was asked for, and 32 was built"),
        ({"nlist": 10}, {"M": 16}, "nlist 10 was asked for, and the backend does not know of it"),
        (
            HNSW,
            None,
            "M 16 was asked for, and the backend does not know of it; "
            "efConstruction 100 was asked for, and the backend does not know of it",
        ),
    ],
)
def test_what_was_built_is_held_against_what_was_asked(asked, seen, reason):
    assert built_as_asked(asked, seen) == reason
