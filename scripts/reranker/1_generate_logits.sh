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
# A cheap model that ranks the candidates of train.jsonl first: the teacher scores its best and a random few.
PRESCREEN=${PRESCREEN:-}
PRESCREEN_KEEP=${PRESCREEN_KEEP:-12}
PRESCREEN_RANDOM=${PRESCREEN_RANDOM:-4}
# The files to be measured on are scored, too: their figures are the ceiling of the student.
files=("$RUN_DIR"/data/*.jsonl)
# shellcheck disable=SC2206  # a list of files, or patterns, without spaces in their names
[[ -z ${INPUT_FILES:-} ]] || files=($INPUT_FILES)
printf '%s\n' "RUN_DIR=$RUN_DIR" "TEACHER=$TEACHER" "ENGINE=$ENGINE" "MAX_LENGTH=$MAX_LENGTH" \
  "INPUT_FILES=${files[*]}" "PRESCREEN=$PRESCREEN" "PRESCREEN_KEEP=$PRESCREEN_KEEP" \
  "PRESCREEN_RANDOM=$PRESCREEN_RANDOM" >&2
if [[ ! -e ${files[0]} ]]; then
  echo "Error: ${files[0]}: no such file. Prepare the data first (scripts/prepare_data.sh)." >&2
  exit 1
fi

score() {
  "$PYTHON" -m reranker_distillation.generate_logits \
    --teacher "$TEACHER" --engine "$ENGINE" --output_dir "$RUN_DIR/scores" --max_length "$MAX_LENGTH" \
    --input_files "$@"
}
whole=()
for file in "${files[@]}"; do
  if [[ -n $PRESCREEN && ${file##*/} == train.jsonl ]]; then
    score "$file" --prescreen "$PRESCREEN" --prescreen_keep "$PRESCREEN_KEEP" --prescreen_random "$PRESCREEN_RANDOM" "$@"
  else
    whole+=("$file")  # who is measured on them needs every score
  fi
done
if ((${#whole[@]})); then
  score "${whole[@]}" "$@"
fi
