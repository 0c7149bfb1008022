#!/usr/bin/env bash
# 6 of 6. Make the collection in a real Milvus, and measure there what was promised.
#   URI=http://localhost:19530 COLLECTION=passages RUN_DIR=runs/milvus bash scripts/milvus/6_apply.sh [--replace]
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
PYTHON=${PYTHON:-$([[ -x $ROOT/.venv/bin/python ]] && echo "$ROOT/.venv/bin/python" || echo python3)}

RUN_DIR=${RUN_DIR:-runs/milvus}
URI=${URI:-$RUN_DIR/milvus.db}  # a path is milvus-lite's
COLLECTION=${COLLECTION:-passages}
printf '%s\n' "RUN_DIR=$RUN_DIR" "URI=$URI" "COLLECTION=$COLLECTION" >&2

"$PYTHON" -m milvus_optimization.apply --recommendation "$RUN_DIR/recommendation/recommendation.json" \
  --vectors "$RUN_DIR/vectors" --uri "$URI" --collection "$COLLECTION" --output_file "$RUN_DIR/applied.json" "$@"
