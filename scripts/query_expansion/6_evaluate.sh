#!/usr/bin/env bash
# 6 of 6. Each model writes for the dev and test queries; then every way stands beside every other, and a verdict.
#   METHOD=dpo RERANKER=runs/mine/reranker RUN_DIR=runs/expansion bash scripts/query_expansion/6_evaluate.sh [flags]
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
PYTHON=${PYTHON:-$([[ -x $ROOT/.venv/bin/python ]] && echo "$ROOT/.venv/bin/python" || echo python3)}

RUN_DIR=${RUN_DIR:-runs/expansion}
METHOD=${METHOD:-dpo}
RERANKER=${RERANKER:-}    # behind every way
SECOND=${SECOND:-}        # another retriever that gets the same expansions: dense or hybrid
printf '%s\n' "RUN_DIR=$RUN_DIR" "METHOD=$METHOD" "RERANKER=$RERANKER" "SECOND=$SECOND" >&2

files=("$RUN_DIR/expansions/untrained.jsonl")
learned=(control "$METHOD") flags=(--control control)
if [[ $METHOD == select ]]; then  # which writes nothing
  learned=() flags=(--selections "$RUN_DIR/models/select")
fi
for name in "${learned[@]}"; do
  files+=("$RUN_DIR/expansions/$name.jsonl")
  "$PYTHON" -m query_expansion_rl.generate_expansions --baselines "$RUN_DIR/baselines" --model "$RUN_DIR/models/$name" \
    --split dev test --temperature 0 --method "$name" --output_file "$RUN_DIR/expansions/$name.jsonl"
done
[[ -z $RERANKER ]] || flags+=(--reranker "$RERANKER" --score_store "$RUN_DIR/scores")
[[ -z $SECOND ]] || flags+=(--second_retriever "$SECOND")
"$PYTHON" -m query_expansion_rl.evaluate --baselines "$RUN_DIR/baselines" --expansions "${files[@]}" \
  --output_dir "$RUN_DIR/report" "${flags[@]}" "$@"
