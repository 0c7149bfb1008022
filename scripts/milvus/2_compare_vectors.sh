#!/usr/bin/env bash
# 2 of 6. What fewer bits and fewer dimensions lose, with exact search.
#   RUN_DIR=runs/milvus bash scripts/milvus/2_compare_vectors.sh [flags]
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
PYTHON=${PYTHON:-$([[ -x $ROOT/.venv/bin/python ]] && echo "$ROOT/.venv/bin/python" || echo python3)}

RUN_DIR=${RUN_DIR:-runs/milvus}
printf '%s\n' "RUN_DIR=$RUN_DIR" >&2

"$PYTHON" -m milvus_optimization.compare_vectors \
  --vectors "$RUN_DIR/vectors" --output_file "$RUN_DIR/variants.jsonl" "$@"
