#!/usr/bin/env bash
# 5 of 6. The choice under your constraints, the report, and code that makes the collection.
#   TARGET=server RUN_DIR=runs/milvus bash scripts/milvus/5_recommend.sh --max_ms 5 --max_mb 500
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
PYTHON=${PYTHON:-$([[ -x $ROOT/.venv/bin/python ]] && echo "$ROOT/.venv/bin/python" || echo python3)}

RUN_DIR=${RUN_DIR:-runs/milvus}
TARGET=${TARGET:-lite}
MODEL=${MODEL:-}  # of those that are embedded; needed where there are several
printf '%s\n' "RUN_DIR=$RUN_DIR" "TARGET=$TARGET" "MODEL=$MODEL" >&2

flags=()
[[ -z $MODEL ]] || flags+=(--model "${MODEL##*/}")
"$PYTHON" -m milvus_optimization.recommend --vectors "$RUN_DIR/vectors" --variants "$RUN_DIR/variants.jsonl" \
  --index_trials "$RUN_DIR/index_trials.jsonl" --retrieval_trials "$RUN_DIR/retrieval_trials.jsonl" \
  --target "$TARGET" --output_dir "$RUN_DIR/recommendation" "${flags[@]}" "$@"
