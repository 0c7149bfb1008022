#!/usr/bin/env bash
# Go or no-go, before the GPU hours: 200 queries tell whether the teacher ranks better than the student here.
#   TEACHER=... STUDENT=... RUN_DIR=runs/scidocs bash scripts/check_teacher.sh [flags]
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
PYTHON=${PYTHON:-$([[ -x $ROOT/.venv/bin/python ]] && echo "$ROOT/.venv/bin/python" || echo python3)}

QUERIES=${QUERIES:-200}
ENGINE=${ENGINE:-auto}  # of the teacher
MAX_LENGTH=${MAX_LENGTH:-4096}
FORCE=${FORCE:-0}
RUN_DIR=${RUN_DIR:?}
# Better not on the queries of the final measurement, where there are others.
DATASET=${DATASET:-$([[ -e $RUN_DIR/data/dev.jsonl ]] && echo "$RUN_DIR/data/dev.jsonl" || echo "$RUN_DIR/data/test.jsonl")}
printf '%s\n' "TEACHER=${TEACHER:?}" "STUDENT=${STUDENT:?}" "DATASET=$DATASET" "QUERIES=$QUERIES" "ENGINE=$ENGINE" \
  "FORCE=$FORCE" >&2

if [[ ! -e $DATASET ]]; then
  echo "No labelled file to check the teacher on: going on." >&2
  exit 0
fi
further=()
if [[ $FORCE != 0 ]]; then further+=(--force); fi
if [[ -n ${SCORE_STORE:-} ]]; then further+=(--score_store "$SCORE_STORE"); fi  # what it computes is not computed again
"$PYTHON" -m rag_core.check_teacher --teacher "$TEACHER" --student "$STUDENT" --dataset "$DATASET" \
  --queries "$QUERIES" --engine "$ENGINE" --output_dir "$RUN_DIR/check" --max_length "$MAX_LENGTH" ${further[@]+"${further[@]}"} "$@"
