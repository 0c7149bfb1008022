#!/usr/bin/env bash
# 3 of 4. The student learns the teacher's distribution, and keeps what it knew. Every training argument of
# sentence-transformers is a flag here.
#   STUDENT=BAAI/bge-m3 RUN_DIR=runs/scidocs bash scripts/embedding/3_train.sh [flags]
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
PYTHON=${PYTHON:-$([[ -x $ROOT/.venv/bin/python ]] && echo "$ROOT/.venv/bin/python" || echo python3)}

RUN_DIR=${RUN_DIR:-runs/scidocs}
STUDENT=${STUDENT:-BAAI/bge-m3}
MAX_LENGTH=${MAX_LENGTH:-512}
LEARNING_RATE=${LEARNING_RATE:-2e-5}
EPOCHS=${EPOCHS:-1}
# Queries, not pairs, per step: 4 x 4 queries of some 30 candidates make the public recipe's batch of 512 pairs.
BATCH_SIZE=${BATCH_SIZE:-4}
ACCUMULATION=${ACCUMULATION:-4}
printf '%s\n' "RUN_DIR=$RUN_DIR" "STUDENT=$STUDENT" "MAX_LENGTH=$MAX_LENGTH" "LEARNING_RATE=$LEARNING_RATE" \
  "EPOCHS=$EPOCHS" "BATCH_SIZE=$BATCH_SIZE" "ACCUMULATION=$ACCUMULATION" >&2

# How much of the training is kept is chosen on these, where they are.
dev=()  # where it stays empty, older versions of bash take it for unset
[[ ! -e $RUN_DIR/scores/dev_logits.jsonl ]] || dev+=(--dev_files "$RUN_DIR/scores/dev_logits.jsonl")
[[ ! -e $RUN_DIR/scores/out_of_domain_dev_logits.jsonl ]] ||
  dev+=(--out_of_domain_dev_files "$RUN_DIR/scores/out_of_domain_dev_logits.jsonl")
"$PYTHON" -m embedding_distillation.train --student "$STUDENT" \
  --train_file "$RUN_DIR/soft_labels/train_logits_scores.jsonl" --output_dir "$RUN_DIR/embedder" \
  --max_length "$MAX_LENGTH" --learning_rate "$LEARNING_RATE" --num_train_epochs "$EPOCHS" \
  --per_device_train_batch_size "$BATCH_SIZE" --gradient_accumulation_steps "$ACCUMULATION" ${dev[@]+"${dev[@]}"} "$@"
