#!/usr/bin/env bash
# What a cross-encoder adds to the embedder of the quickstart, from the same scores of the same teacher, on a CPU.
#   bash scripts/quickstart.sh && bash scripts/reranker/demo.sh
# It is grown from the student, and reorders what the distilled embedder found; the report says whether it is worth it.
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
VENV=${VENV:-$ROOT/.venv}
export RUN_DIR=${RUN_DIR:-$ROOT/runs/quickstart}
printf '%s\n' "VENV=$VENV" "RUN_DIR=$RUN_DIR" >&2

if [[ ! -e $RUN_DIR/embedder || ! -e $RUN_DIR/scores/train_logits.jsonl ]]; then
  echo "Error: $RUN_DIR has no embedder and no scores yet. Run scripts/quickstart.sh first." >&2
  exit 1
fi
export PYTHON=$VENV/bin/python
export HF_HUB_OFFLINE=${HF_HUB_OFFLINE:-1}  # everything is there
export STUDENT=${STUDENT:-$RUN_DIR/models/all-MiniLM-L6-v2}
export BEFORE=${BEFORE:-$STUDENT}  # an untrained head would be no fair "before": the student's encoder is
export FIRST_STAGE=${FIRST_STAGE:-$RUN_DIR/embedder}
export NUM_NEGATIVES=${NUM_NEGATIVES:-all} MAX_LENGTH=${MAX_LENGTH:-96}

bash "$ROOT/scripts/reranker/2_create_triplets.sh"
LEARNING_RATE=${LEARNING_RATE:-2e-4} EPOCHS=${EPOCHS:-1} BATCH_SIZE=${BATCH_SIZE:-4} ACCUMULATION=1 \
  bash "$ROOT/scripts/reranker/3_train.sh" --dropout 0
bash "$ROOT/scripts/reranker/4_evaluate.sh" --dtype auto
echo "Finished in $SECONDS seconds. Open $RUN_DIR/report/report.html" >&2
