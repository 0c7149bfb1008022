#!/usr/bin/env bash
# Queries in, what to search for out: the query is always kept, and the gate leaves out what does not help.
#   QUERIES=queries.jsonl METHOD=dpo RUN_DIR=runs/expansion bash scripts/query_expansion/expand.sh [flags]
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
PYTHON=${PYTHON:-$([[ -x $ROOT/.venv/bin/python ]] && echo "$ROOT/.venv/bin/python" || echo python3)}

RUN_DIR=${RUN_DIR:-runs/expansion}
QUERIES=${QUERIES:?a JSONL file of queries}
METHOD=${METHOD:-dpo}
printf '%s\n' "RUN_DIR=$RUN_DIR" "QUERIES=$QUERIES" "METHOD=$METHOD" >&2

"$PYTHON" -m query_expansion_rl.expand --baselines "$RUN_DIR/baselines" --model "$RUN_DIR/models/$METHOD" \
  --input_file "$QUERIES" --output_file "$RUN_DIR/served.jsonl" "$@"
