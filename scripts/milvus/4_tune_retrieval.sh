#!/usr/bin/env bash
# 4 of 6. What BM25, fusion and a reranker bring: chosen on one half of the queries, reported on the other.
#   RERANKER=runs/mine/reranker RUN_DIR=runs/milvus bash scripts/milvus/4_tune_retrieval.sh [flags]
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
PYTHON=${PYTHON:-$([[ -x $ROOT/.venv/bin/python ]] && echo "$ROOT/.venv/bin/python" || echo python3)}

RUN_DIR=${RUN_DIR:-runs/milvus}
RERANKER=${RERANKER:-}
printf '%s\n' "RUN_DIR=$RUN_DIR" "RERANKER=$RERANKER" >&2

flags=()
[[ -z $RERANKER ]] || flags+=(--reranker "$RERANKER")
"$PYTHON" -m milvus_optimization.tune_retrieval \
  --vectors "$RUN_DIR/vectors" --output_file "$RUN_DIR/retrieval_trials.jsonl" "${flags[@]}" "$@"
