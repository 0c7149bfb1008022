#!/usr/bin/env bash
# Reranker distillation on WikiQA, several seeds: all-mpnet-base-v2 teaches a cross-encoder grown from all-MiniLM-L6-v2.
#   DATA_DIR=path/to/wikiqa bash benchmarks/wikiqa.sh
# DATA_DIR holds train.jsonl.gz and test.jsonl.gz, RankingSample records of the original splits.
# The reports go to benchmarks/results/, from which benchmarks/readme_tables.py makes README's table.
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
PYTHON=${PYTHON:-$([[ -x $ROOT/.venv/bin/python ]] && echo "$ROOT/.venv/bin/python" || echo python3)}

DATA_DIR=${DATA_DIR:?a folder with train.jsonl.gz and test.jsonl.gz}
RUN_DIR=${RUN_DIR:-runs/wikiqa}
SEEDS=${SEEDS:-1 2 3}
printf '%s\n' "DATA_DIR=$DATA_DIR" "RUN_DIR=$RUN_DIR" "SEEDS=$SEEDS" >&2
export HF_HUB_OFFLINE=${HF_HUB_OFFLINE:-1}

"$PYTHON" -m rag_core.demo_models --output_dir "$RUN_DIR/models"
"$PYTHON" -m reranker_distillation.generate_logits --teacher "$RUN_DIR/models/all-mpnet-base-v2" --max_length 128 \
  --input_files "$DATA_DIR/train.jsonl.gz" "$DATA_DIR/test.jsonl.gz" --output_dir "$RUN_DIR/scores"
"$PYTHON" -m reranker_distillation.create_triplets --num_negatives all \
  --input_files "$RUN_DIR/scores/train_logits.jsonl" --output_dir "$RUN_DIR/triplets"
for seed in $SEEDS; do
  "$PYTHON" -m reranker_distillation.train --seed "$seed" --student "$RUN_DIR/models/all-MiniLM-L6-v2" \
    --train_file "$RUN_DIR/triplets/train_logits_triplets.jsonl" --output_dir "$RUN_DIR/model-$seed" --max_length 128 \
    --dropout 0 --learning_rate 1.5e-4 --per_device_train_batch_size 8 --num_train_epochs 4
  "$PYTHON" -m reranker_distillation.evaluate --seed "$seed" --before "$RUN_DIR/models/all-MiniLM-L6-v2" \
    --after "$RUN_DIR/model-$seed" --in_domain "$DATA_DIR/test.jsonl.gz" --dtype auto --max_length 128 \
    --teacher_scores "$RUN_DIR/scores/test_logits.jsonl" --output_dir "$RUN_DIR/report-$seed"
  "$PYTHON" "$ROOT/benchmarks/readme_tables.py" --store "wikiqa-$seed" "$RUN_DIR/report-$seed/report.json"
done
