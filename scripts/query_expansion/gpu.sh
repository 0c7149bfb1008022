#!/usr/bin/env bash
# The recipe for one GPU: Qwen3-0.6B writes passages; SFT for the form, then GRPO with adapters. NOT RUN ON A GPU YET.
#   CORPUS=data/scifact MODEL=Qwen/Qwen3-1.7B RUN_DIR=runs/expansion bash scripts/query_expansion/gpu.sh [flags of GRPO]
# docs/QUERY_EXPANSION.md says why these numbers, and when to stop.
set -euo pipefail
STAGES=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

export RUN_DIR=${RUN_DIR:-runs/expansion} MODEL=${MODEL:-Qwen/Qwen3-0.6B} METHOD=grpo PROMPT=document
export NUM_SAMPLES=${NUM_SAMPLES:-8} MAX_NEW_TOKENS=${MAX_NEW_TOKENS:-96}
VLLM=${VLLM:-no}  # colocate: vLLM writes the samples on the same GPU; try --max_steps 2 first
printf '%s\n' "RUN_DIR=$RUN_DIR" "MODEL=$MODEL" "NUM_SAMPLES=$NUM_SAMPLES" \
  "MAX_NEW_TOKENS=$MAX_NEW_TOKENS" "VLLM=$VLLM" >&2

for stage in 1_rank_baselines 2_generate_expansions 3_score_expansions 4_create_pairs; do
  echo "== $stage" >&2
  bash "$STAGES/$stage.sh"
done
echo "== 5_train" >&2
# 8 prompts x 8 samples a step. beta above 0: without a KL term, and with a higher rate, small models collapse.
bash "$STAGES/5_train.sh" --num_generations 8 --per_device_train_batch_size 64 \
  --learning_rate 1e-5 --beta 0.005 --lora_rank 32 --max_steps 300 --dev_every 20 --use_vllm "$VLLM" "$@"
echo "== 6_evaluate" >&2
bash "$STAGES/6_evaluate.sh"
