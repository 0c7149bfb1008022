#!/usr/bin/env bash
# Documents in, distilled embedder and report out: no labels, and no queries either.
#   PASSAGES=my_passages.jsonl RUN_DIR=runs/mine bash scripts/embedding/from_documents.sh
# PASSAGES has one {"text": ..., "title": ...} per line (title optional), QUERIES (optional) a log of {"query": ...} lines; without
# it queries are cut out of the passages. TEST (optional) is a labelled RankingSample file for the report.
set -euo pipefail
STAGES=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(cd "$STAGES/../.." && pwd)
PYTHON=${PYTHON:-$([[ -x $ROOT/.venv/bin/python ]] && echo "$ROOT/.venv/bin/python" || echo python3)}

PASSAGES=${PASSAGES:?a JSONL file of passages}
QUERIES=${QUERIES:-}
TEST=${TEST:-}
NUM_QUERIES=${NUM_QUERIES:-10000}
NUM_CANDIDATES=${NUM_CANDIDATES:-20}
export RUN_DIR=${RUN_DIR:-runs/documents} TEACHER=${TEACHER:-Qwen/Qwen3-Embedding-8B} STUDENT=${STUDENT:-BAAI/bge-m3}
printf '%s\n' "PASSAGES=$PASSAGES" "QUERIES=$QUERIES" "TEST=$TEST" "NUM_QUERIES=$NUM_QUERIES" \
  "NUM_CANDIDATES=$NUM_CANDIDATES" "RUN_DIR=$RUN_DIR" "TEACHER=$TEACHER" "STUDENT=$STUDENT" >&2

from=(--num_queries "$NUM_QUERIES")
[[ -z $QUERIES ]] || from=(--queries "$QUERIES")
"$PYTHON" -m rag_core.prepare --source corpus --input "$PASSAGES" "${from[@]}" --num_candidates "$NUM_CANDIDATES" \
  --dense_model "$STUDENT" --output_dir "$RUN_DIR/data"
[[ -z $TEST ]] ||
  "$PYTHON" -m rag_core.prepare --source jsonl --input "$TEST" --splits test=1 --output_dir "$RUN_DIR/data"
for stage in 1_generate_logits 2_generate_scores 3_train 4_evaluate; do
  [[ $stage != 4_evaluate || -n $TEST ]] || continue
  echo "== $stage" >&2
  bash "$STAGES/$stage.sh"
done
