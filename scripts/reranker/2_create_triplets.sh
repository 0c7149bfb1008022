#!/usr/bin/env bash
# 2 of 4. Triplets with score margins from the teacher's ranking, in seconds.
#   TOP_K=8 NUM_NEGATIVES=4 RUN_DIR=runs/stackoverflow bash scripts/reranker/2_create_triplets.sh [flags]
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
PYTHON=${PYTHON:-$([[ -x $ROOT/.venv/bin/python ]] && echo "$ROOT/.venv/bin/python" || echo python3)}

RUN_DIR=${RUN_DIR:-runs/stackoverflow}
TOP_K=${TOP_K:-8}
NUM_NEGATIVES=${NUM_NEGATIVES:-4}  # or "all": every pair of candidates, at no further cost in training
printf '%s\n' "RUN_DIR=$RUN_DIR" "TOP_K=$TOP_K" "NUM_NEGATIVES=$NUM_NEGATIVES" >&2

"$PYTHON" -m reranker_distillation.create_triplets \
  --input_files "$RUN_DIR/scores/train_logits.jsonl" --output_dir "$RUN_DIR/triplets" \
  --top_k "$TOP_K" --num_negatives "$NUM_NEGATIVES" "$@"
