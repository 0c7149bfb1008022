#!/usr/bin/env bash
# 3 of 6. What each index loses, and what it costs: one build per build setting, cheap ones first; resumable.
#   MODEL=BAAI/bge-m3 BACKEND=faiss RUN_DIR=runs/milvus bash scripts/milvus/3_sweep_indexes.sh [flags]
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
PYTHON=${PYTHON:-$([[ -x $ROOT/.venv/bin/python ]] && echo "$ROOT/.venv/bin/python" || echo python3)}

RUN_DIR=${RUN_DIR:-runs/milvus}
MODEL=${MODEL:-}  # of those that are embedded; needed where there are several
BACKEND=${BACKEND:-faiss}
URI=${URI:-}          # BACKEND=server: http://host:19530, its token in RAG_MILVUS_TOKEN
QUERIES=${QUERIES:-1000}  # that are timed; quality is of all judged ones
printf '%s\n' "RUN_DIR=$RUN_DIR" "MODEL=$MODEL" "BACKEND=$BACKEND" "URI=$URI" "QUERIES=$QUERIES" >&2

flags=()
[[ -z $MODEL ]] || flags+=(--model "${MODEL##*/}")
[[ -z $URI ]] || flags+=(--uri "$URI")
"$PYTHON" -m milvus_optimization.sweep_indexes --vectors "$RUN_DIR/vectors" --backend "$BACKEND" \
  --queries "$QUERIES" --output_file "$RUN_DIR/index_trials.jsonl" "${flags[@]}" "$@"
