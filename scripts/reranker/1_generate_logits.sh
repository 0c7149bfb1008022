#!/usr/bin/env bash
# 1 of 4. The teacher scores every candidate of every query: hours on a GPU, resumable at any moment.
#   TEACHER=Qwen/Qwen3-Reranker-8B RUN_DIR=runs/stackoverflow bash scripts/reranker/1_generate_logits.sh [flags]
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
PYTHON=${PYTHON:-$([[ -x $ROOT/.venv/bin/python ]] && echo "$ROOT/.venv/bin/python" || echo python3)}

RUN_DIR=${RUN_DIR:-runs/stackoverflow}
TEACHER=${TEACHER:-Qwen/Qwen3-Reranker-8B}
ENGINE=${ENGINE:-auto}  # of the teacher: vllm where there is a GPU
MAX_LENGTH=${MAX_LENGTH:-4096}
# The files to be measured on are scored, too: their figures are the ceiling of the student.
files=("$RUN_DIR"/data/*.jsonl)
# shellcheck disable=SC2206  # a list of files, or patterns, without spaces in their names
[[ -z ${INPUT_FILES:-} ]] || files=($INPUT_FILES)
printf '%s\n' "RUN_DIR=$RUN_DIR" "TEACHER=$TEACHER" "ENGINE=$ENGINE" "MAX_LENGTH=$MAX_LENGTH" \
  "INPUT_FILES=${files[*]}" >&2
if [[ ! -e ${files[0]} ]]; then
  echo "Error: ${files[0]}: no such file. Prepare the data first (scripts/prepare_data.sh)." >&2
  exit 1
fi

"$PYTHON" -m reranker_distillation.generate_logits \
  --teacher "$TEACHER" --engine "$ENGINE" --input_files "${files[@]}" --output_dir "$RUN_DIR/scores" \
  --max_length "$MAX_LENGTH" "$@"
