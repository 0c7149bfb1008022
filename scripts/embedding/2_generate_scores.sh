#!/usr/bin/env bash
# 2 of 4. One row per query, with all its candidates and the teacher's scores, in seconds. Labels are not used.
#   RUN_DIR=runs/scidocs bash scripts/embedding/2_generate_scores.sh [flags]
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
PYTHON=${PYTHON:-$([[ -x $ROOT/.venv/bin/python ]] && echo "$ROOT/.venv/bin/python" || echo python3)}

RUN_DIR=${RUN_DIR:-runs/scidocs}
printf '%s\n' "RUN_DIR=$RUN_DIR" >&2

"$PYTHON" -m embedding_distillation.generate_scores \
  --input_files "$RUN_DIR/scores/train_logits.jsonl" --output_dir "$RUN_DIR/soft_labels" "$@"
