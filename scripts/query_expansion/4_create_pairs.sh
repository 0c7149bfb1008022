#!/usr/bin/env bash
# 4 of 6. What is learned from: the best and the worst samples, and random ones for the control.
#   RUN_DIR=runs/expansion bash scripts/query_expansion/4_create_pairs.sh [--min_margin 0.05]
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
PYTHON=${PYTHON:-$([[ -x $ROOT/.venv/bin/python ]] && echo "$ROOT/.venv/bin/python" || echo python3)}

RUN_DIR=${RUN_DIR:-runs/expansion}
printf '%s\n' "RUN_DIR=$RUN_DIR" >&2

for choice in best random; do
  "$PYTHON" -m query_expansion_rl.create_pairs --baselines "$RUN_DIR/baselines" --input_file "$RUN_DIR/rewarded.jsonl" \
    --choose "$choice" --output_dir "$RUN_DIR/pairs/$choice" "$@"
done
