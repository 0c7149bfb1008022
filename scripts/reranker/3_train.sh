#!/usr/bin/env bash
# 3 of 4. The student learns the margins. Every training argument of sentence-transformers is a flag here.
#   STUDENT=BAAI/bge-reranker-v2-m3 RUN_DIR=runs/stackoverflow bash scripts/reranker/3_train.sh [flags]
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
PYTHON=${PYTHON:-$([[ -x $ROOT/.venv/bin/python ]] && echo "$ROOT/.venv/bin/python" || echo python3)}

RUN_DIR=${RUN_DIR:-runs/stackoverflow}
STUDENT=${STUDENT:-BAAI/bge-reranker-v2-m3}
MAX_LENGTH=${MAX_LENGTH:-4096}
LEARNING_RATE=${LEARNING_RATE:-2e-5}
EPOCHS=${EPOCHS:-1}
# Queries, not triplets, per step: 2 x 8 queries of 32 triplets each make the public recipe's 512.
BATCH_SIZE=${BATCH_SIZE:-2}
ACCUMULATION=${ACCUMULATION:-8}
printf '%s\n' "RUN_DIR=$RUN_DIR" "STUDENT=$STUDENT" "MAX_LENGTH=$MAX_LENGTH" "LEARNING_RATE=$LEARNING_RATE" \
  "EPOCHS=$EPOCHS" "BATCH_SIZE=$BATCH_SIZE" "ACCUMULATION=$ACCUMULATION" >&2

"$PYTHON" -m reranker_distillation.train \
  --student "$STUDENT" --train_file "$RUN_DIR/triplets/train_logits_triplets.jsonl" --output_dir "$RUN_DIR/model" \
  --max_length "$MAX_LENGTH" --learning_rate "$LEARNING_RATE" --num_train_epochs "$EPOCHS" \
  --per_device_train_batch_size "$BATCH_SIZE" --gradient_accumulation_steps "$ACCUMULATION" "$@"
