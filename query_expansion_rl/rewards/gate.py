"""Whether an expansion is let through: only where the teacher likes the ranking with it better."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from query_expansion_rl.rewards.ndcg import Gains, ndcg
from rag_core.metrics.ranking import Places


def passes(alone: Places, expanded: Places, gains: Sequence[Gains]) -> npt.NDArray[np.bool_]:
    """Return for each query whether nDCG@10 by the teacher's gains is higher with the expansion; shape (queries,).

    Where the teacher has no gain at all, or finds both rankings equal, the query stays as it was.

    Args:
        alone, expanded: places, best first, -1 where nothing was found; shape (queries, results) each.
        gains: of each query.
    """
    before, after = (np.nan_to_num(ndcg(places, gains)) for places in (alone, expanded))
    return np.asarray(after > before)
