#!/usr/bin/env bash
# 2 of 6. The untrained model writes: samples of the train queries to learn from, one text of the others to compare.
#   MODEL=Qwen/Qwen3-0.6B RUN_DIR=runs/expansion bash scripts/query_expansion/2_generate_expansions.sh [flags]
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
PYTHON=${PYTHON:-$([[ -x $ROOT/.venv/bin/python ]] && echo "$ROOT/.venv/bin/python" || echo python3)}

RUN_DIR=${RUN_DIR:-runs/expansion}
MODEL=${MODEL:-Qwen/Qwen3-0.6B}
PROMPT=${PROMPT:-keywords}   # or document
NUM_SAMPLES=${NUM_SAMPLES:-8}
LIMIT=${LIMIT:-}             # train queries that are drawn; all where it is empty
MAX_NEW_TOKENS=${MAX_NEW_TOKENS:-}  # of an expansion; 24 for keywords and 64 for a document where it is empty
printf '%s\n' "RUN_DIR=$RUN_DIR" "MODEL=$MODEL" "PROMPT=$PROMPT" "NUM_SAMPLES=$NUM_SAMPLES" "LIMIT=$LIMIT" \
  "MAX_NEW_TOKENS=$MAX_NEW_TOKENS" >&2

flags=()
[[ -z $MAX_NEW_TOKENS ]] || flags+=(--max_new_tokens "$MAX_NEW_TOKENS")
drawn=()
[[ -z $LIMIT ]] || drawn+=(--limit "$LIMIT")
write() {
  "$PYTHON" -m query_expansion_rl.generate_expansions --baselines "$RUN_DIR/baselines" --model "$MODEL" \
    --prompt "$PROMPT" "$@"
}
write --split train --num_samples "$NUM_SAMPLES" --output_file "$RUN_DIR/samples.jsonl" "${drawn[@]}" "${flags[@]}" "$@"
write --split dev test --temperature 0 --method untrained --output_file "$RUN_DIR/expansions/untrained.jsonl" \
  "${flags[@]}" "$@"
