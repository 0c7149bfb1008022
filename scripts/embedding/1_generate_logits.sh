#!/usr/bin/env bash
# 1 of 4. The teacher embeds every text once and gives every candidate its cosine: resumable at any moment.
#   TEACHER=Qwen/Qwen3-Embedding-8B RUN_DIR=runs/scidocs bash scripts/embedding/1_generate_logits.sh [flags]
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
PYTHON=${PYTHON:-$([[ -x $ROOT/.venv/bin/python ]] && echo "$ROOT/.venv/bin/python" || echo python3)}

RUN_DIR=${RUN_DIR:-runs/scidocs}
TEACHER=${TEACHER:-Qwen/Qwen3-Embedding-8B}
MAX_LENGTH=${MAX_LENGTH:-4096}
# A cheap model that ranks the candidates of train.jsonl first: the teacher scores its best and a random few.
PRESCREEN=${PRESCREEN:-}
PRESCREEN_KEEP=${PRESCREEN_KEEP:-12}
PRESCREEN_RANDOM=${PRESCREEN_RANDOM:-4}
printf '%s\n' "RUN_DIR=$RUN_DIR" "TEACHER=$TEACHER" "MAX_LENGTH=$MAX_LENGTH" "PRESCREEN=$PRESCREEN" \
  "PRESCREEN_KEEP=$PRESCREEN_KEEP" "PRESCREEN_RANDOM=$PRESCREEN_RANDOM" >&2

score() {
  "$PYTHON" -m embedding_distillation.generate_logits \
    --teacher "$TEACHER" --output_dir "$RUN_DIR/scores" --max_length "$MAX_LENGTH" --input_files "$@"
}
# The files to be measured on are scored, too: they are the ceiling of the student. Files of one task share a run.
inside=() outside=() prescreened=()
for file in "$RUN_DIR"/data/*.jsonl; do
  [[ -e $file ]] || continue
  case ${PRESCREEN:+prescreened:}${file##*/} in
    prescreened:train.jsonl) prescreened+=("$file") ;;
    out_of_domain* | prescreened:out_of_domain*) outside+=("$file") ;;
    *) inside+=("$file") ;;
  esac
done
if ((${#inside[@]} + ${#outside[@]} + ${#prescreened[@]} == 0)); then
  echo "Error: $RUN_DIR/data has no .jsonl file. Prepare the data first (scripts/embedding/0_prepare_data.sh)." >&2
  exit 1
fi
if ((${#prescreened[@]})); then
  score "${prescreened[@]}" --prescreen "$PRESCREEN" --prescreen_keep "$PRESCREEN_KEEP" \
    --prescreen_random "$PRESCREEN_RANDOM" "$@"
fi
if ((${#inside[@]})); then
  score "${inside[@]}" "$@"
fi
if ((${#outside[@]})); then
  score "${outside[@]}" "$@"
fi
