"""The forms of vectors, reckoned by hand."""

import numpy as np
import pytest

from milvus_optimization.vectors.variants import check_variant, default_variants, make_variant
from rag_core.base.errors import UsageError


def rows(*values):
    return np.array(values, dtype=np.float32)


def unit(count, dimensions, seed=0):
    vectors = np.random.default_rng(seed).standard_normal((count, dimensions)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_int8_has_one_scale_for_documents_and_queries():
    variant = make_variant("int8", rows([0.5, -0.26], [0.1, 1.27]))  # a hundredth is one step
    np.testing.assert_array_equal(variant.documents, rows([50, -26], [10, 127]))
    np.testing.assert_array_equal(variant.queries(rows([0.304, -2])), rows([30, -127]))


def test_sq4_has_16_values_between_the_ends_of_each_dimension():
    variant = make_variant("sq4", rows([0, -3], [1.5, 12], [0.26, 4.4]))  # steps of 0.1 and of 1
    np.testing.assert_allclose(variant.documents, rows([0, -3], [1.5, 12], [0.3, 4]), atol=1e-6)
    np.testing.assert_array_equal(variant.queries(rows([0.26, 4.4])), rows([0.26, 4.4]))


def test_sq8_has_256_values_and_a_constant_dimension_stays():
    variant = make_variant("sq8", rows([0, 7], [255, 7], [3.4, 7]))
    np.testing.assert_array_equal(variant.documents, rows([0, 7], [255, 7], [3, 7]))


def test_float16_rounds_both_sides():
    variant = make_variant("float16", rows([1 + 2**-12, 0.5]))
    np.testing.assert_array_equal(variant.documents, rows([1, 0.5]))
    np.testing.assert_array_equal(variant.queries(rows([1 + 2**-12, 2])), rows([1, 2]))


def test_binary_orders_by_the_hamming_distance_of_packed_bits():
    variant = make_variant("binary", rows([0.3, 0], [-0.1, 0.2]))
    np.testing.assert_array_equal(variant.documents, rows([1, -1], [-1, 1]))  # 0 is not above 0
    documents, queries = unit(40, 24), unit(5, 24, seed=1)
    variant = make_variant("binary", documents)
    packed, asked = np.packbits(documents > 0, axis=1), np.packbits(queries > 0, axis=1)
    hamming = np.bitwise_count(asked[:, None] ^ packed[None]).sum(axis=2)
    np.testing.assert_array_equal(variant.queries(queries) @ variant.documents.T, 24 - 2.0 * hamming)


def test_the_first_dimensions_are_made_length_1_again():
    variant = make_variant("first2", rows([0.3, 0.4, 0.866], [0, 0, 1]))
    np.testing.assert_allclose(variant.documents, rows([0.6, 0.8], [0, 0]), atol=1e-6)
    np.testing.assert_allclose(variant.queries(rows([0, 0.5, 9])), rows([0, 1]))


def test_pca_finds_the_directions_in_which_documents_differ():
    generator = np.random.default_rng(2)
    plane = np.linalg.qr(generator.standard_normal((5, 5)))[0].astype(np.float32)
    flat = generator.standard_normal((30, 2)).astype(np.float32) @ plane[:2]
    documents = flat + 3 * plane[4]  # far from the origin, in a direction in which they do not differ
    queries = generator.standard_normal((4, 5)).astype(np.float32)
    variant = make_variant("pca2", documents)
    lost = queries @ documents.T - variant.queries(queries) @ variant.documents.T
    np.testing.assert_allclose(lost, lost[:, :1].repeat(30, axis=1), atol=1e-4)  # the same for all documents


def test_pca_is_that_of_a_singular_value_decomposition():
    documents, queries = unit(60, 12), unit(3, 12, seed=1)
    directions = np.linalg.svd(documents - documents.mean(axis=0))[2][:4]
    expected = queries @ directions.T @ directions @ documents.T
    variant = make_variant("pca4", documents)
    np.testing.assert_allclose(variant.queries(queries) @ variant.documents.T, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "dimensions", "size"),
    [
        ("float32", 384, 1536),
        ("float16", 384, 768),
        ("int8", 384, 384),
        ("sq8", 384, 384),
        ("sq4", 384, 192),
        ("binary", 384, 48),
        ("first256", 256, 1024),
        ("pca64", 64, 256),
    ],
)
def test_sizes(name, dimensions, size):
    variant = make_variant(name, unit(400, 384))
    assert (variant.dimensions, variant.bytes_per_vector) == (dimensions, size)
    assert variant.documents.shape == (400, dimensions)
    assert variant.documents.dtype == variant.queries(unit(2, 384)).dtype == np.float32


def test_odd_dimensions_are_rounded_up_to_bytes():
    assert make_variant("binary", unit(3, 9)).bytes_per_vector == 2
    assert make_variant("sq4", unit(3, 9)).bytes_per_vector == 5


@pytest.mark.parametrize("name", ["fp32", "first0", "pca", "first", "pca256x", "Binary", ""])
def test_an_unknown_name_is_refused(name):
    with pytest.raises(UsageError, match="Pass some of: float32, float16, int8, sq8, sq4, binary, first<n>, pca<n>"):
        check_variant(name, 384)


def test_as_many_dimensions_as_there_are_is_no_variant():
    check_variant("pca383", 384)
    with pytest.raises(UsageError, match="--variants has pca384, and the vectors have 384 dimensions"):
        check_variant("pca384", 384)


def test_the_default_is_what_the_dimensions_allow():
    assert default_variants(384)[-4:] == ["pca192", "pca128", "first192", "first128"]
    for dimensions in (1, 2, 3, 768):
        for name in default_variants(dimensions):
            check_variant(name, dimensions)
