"""Fixtures that tests of several subjects share."""

from tests.milvus_optimization.served import served  # noqa: F401
from tests.milvus_optimization.swept import swept, swept_vectors  # noqa: F401
