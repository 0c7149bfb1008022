#!/usr/bin/env bash
# Stage 0. The public set of the GPU recipe, StackOverflow duplicate questions: about 590,000 pairs to score.
#   RUN_DIR=runs/stackoverflow bash scripts/prepare_data.sh [flags]
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
PYTHON=${PYTHON:-$([[ -x $ROOT/.venv/bin/python ]] && echo "$ROOT/.venv/bin/python" || echo python3)}

RUN_DIR=${RUN_DIR:-runs/stackoverflow}
NAME=${NAME:-mteb/stackoverflowdupquestions-reranking}
printf '%s\n' "RUN_DIR=$RUN_DIR" "NAME=$NAME" >&2

# Train queries that duplicate a test query would make the test look better than it is.
"$PYTHON" -m rag_core.prepare --source mteb --name "$NAME" --output_dir "$RUN_DIR/data" --drop_leaks "$@"
