#!/usr/bin/env bash
# The six stages of Milvus optimisation in order. Started again, each goes on where it stopped.
#   CORPUS=data/scifact MODEL=BAAI/bge-m3 RUN_DIR=runs/milvus bash scripts/milvus/run_all.sh
# Settings are those of the stages' own scripts, as environment variables.
set -euo pipefail
STAGES=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

export RUN_DIR=${RUN_DIR:-runs/milvus} MODEL=${MODEL:-BAAI/bge-m3}
for stage in 1_embed_corpus 2_compare_vectors 3_sweep_indexes 4_tune_retrieval 5_recommend 6_apply; do
  echo "== $stage" >&2
  bash "$STAGES/$stage.sh"
done
