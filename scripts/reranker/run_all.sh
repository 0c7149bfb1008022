#!/usr/bin/env bash
# The four stages of reranker distillation in order. Started again, each goes on where it stopped.
#   RUN_DIR=runs/stackoverflow bash scripts/reranker/run_all.sh
# Settings are those of the stages' own scripts, as environment variables. FORCE=1 goes on with a teacher that ranks
# worse than the student.
set -euo pipefail
STAGES=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

export RUN_DIR=${RUN_DIR:-runs/stackoverflow} TEACHER=${TEACHER:-Qwen/Qwen3-Reranker-8B}
export BEFORE=${BEFORE:-BAAI/bge-reranker-v2-m3}
STUDENT=$BEFORE bash "$STAGES/../check_teacher.sh"
for stage in 1_generate_logits 2_create_triplets 3_train 4_evaluate; do
  echo "== $stage" >&2
  bash "$STAGES/$stage.sh"
done
