#!/usr/bin/env bash
# The six stages of query expansion in order. Started again, each goes on where it stopped.
#   CORPUS=data/scifact DENSE_MODEL=BAAI/bge-m3 MODEL=Qwen/Qwen3-0.6B RUN_DIR=runs/expansion \
#     bash scripts/query_expansion/run_all.sh
# Settings are those of the stages' own scripts, as environment variables. Read the first table before you go on: where
# a way without training is good enough, stop there.
set -euo pipefail
STAGES=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

export RUN_DIR=${RUN_DIR:-runs/expansion} MODEL=${MODEL:-Qwen/Qwen3-0.6B} METHOD=${METHOD:-dpo}
for stage in 1_rank_baselines 2_generate_expansions 3_score_expansions 4_create_pairs 5_train 6_evaluate; do
  echo "== $stage" >&2
  bash "$STAGES/$stage.sh"
done
