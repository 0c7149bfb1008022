#!/usr/bin/env bash
# 5 of 6. The control imitates random samples: it learns the form. METHOD learns from the reward, starting at the control.
#   METHOD=grpo MODEL=Qwen/Qwen3-0.6B RUN_DIR=runs/expansion bash scripts/query_expansion/5_train.sh [flags of METHOD]
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
PYTHON=${PYTHON:-$([[ -x $ROOT/.venv/bin/python ]] && echo "$ROOT/.venv/bin/python" || echo python3)}

RUN_DIR=${RUN_DIR:-runs/expansion}
MODEL=${MODEL:-Qwen/Qwen3-0.6B}
METHOD=${METHOD:-dpo}  # dpo or grpo; rft imitates the best samples, and starts at MODEL as the control does
MAX_NEW_TOKENS=${MAX_NEW_TOKENS:-}
printf '%s\n' "RUN_DIR=$RUN_DIR" "MODEL=$MODEL" "METHOD=$METHOD" "MAX_NEW_TOKENS=$MAX_NEW_TOKENS" >&2

flags=()
[[ -z $MAX_NEW_TOKENS ]] || flags+=(--max_new_tokens "$MAX_NEW_TOKENS")
learn() {
  "$PYTHON" -m query_expansion_rl.train --baselines "$RUN_DIR/baselines" "${flags[@]}" "$@"
}
if [[ $METHOD == select ]]; then  # no language model: a choice among the ways without training
  "$PYTHON" -m query_expansion_rl.train --baselines "$RUN_DIR/baselines" --method select \
    --output_dir "$RUN_DIR/models/select" "$@"
  exit
fi
learn --method rft --keep last --model "$MODEL" --train_file "$RUN_DIR/pairs/random/demonstrations.jsonl" \
  --output_dir "$RUN_DIR/models/control"
case $METHOD in
  rft) from=(--model "$MODEL" --train_file "$RUN_DIR/pairs/best/demonstrations.jsonl") ;;
  dpo) from=(--model "$RUN_DIR/models/control" --train_file "$RUN_DIR/pairs/best/preferences.jsonl") ;;
  *) from=(--model "$RUN_DIR/models/control") ;;
esac
learn --method "$METHOD" "${from[@]}" --output_dir "$RUN_DIR/models/$METHOD" "$@"
