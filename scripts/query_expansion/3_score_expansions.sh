#!/usr/bin/env bash
# 3 of 6. What each sample is worth to the teacher; with another reward, run it again without new samples.
#   RUN_DIR=runs/expansion bash scripts/query_expansion/3_score_expansions.sh [--rank_shaping 0.1]
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
PYTHON=${PYTHON:-$([[ -x $ROOT/.venv/bin/python ]] && echo "$ROOT/.venv/bin/python" || echo python3)}

RUN_DIR=${RUN_DIR:-runs/expansion}
printf '%s\n' "RUN_DIR=$RUN_DIR" >&2

"$PYTHON" -m query_expansion_rl.score_expansions --baselines "$RUN_DIR/baselines" \
  --input_file "$RUN_DIR/samples.jsonl" --output_file "$RUN_DIR/rewarded.jsonl" "$@"
