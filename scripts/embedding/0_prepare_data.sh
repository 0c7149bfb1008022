#!/usr/bin/env bash
# 0 of 4. The public sets of the GPU recipe: SciDocs to train and measure on, StackOverflow duplicates out of domain.
#   RUN_DIR=runs/scidocs bash scripts/embedding/0_prepare_data.sh
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
PYTHON=${PYTHON:-$([[ -x $ROOT/.venv/bin/python ]] && echo "$ROOT/.venv/bin/python" || echo python3)}

RUN_DIR=${RUN_DIR:-runs/scidocs}
NAME=${NAME:-mteb/scidocs-reranking}
OUT_OF_DOMAIN_NAME=${OUT_OF_DOMAIN_NAME:-mteb/stackoverflowdupquestions-reranking}
printf '%s\n' "RUN_DIR=$RUN_DIR" "NAME=$NAME" "OUT_OF_DOMAIN_NAME=$OUT_OF_DOMAIN_NAME" >&2

prepare() { "$PYTHON" -m rag_core.prepare "$@"; }
prepare --source mteb --name "$NAME" --output_dir "$RUN_DIR/raw"
prepare --source mteb --name "$OUT_OF_DOMAIN_NAME" --output_dir "$RUN_DIR/raw_out_of_domain"
# The set has no train split: its validation queries are trained on, a tenth of them kept to choose on.
prepare --source jsonl --input "$RUN_DIR/raw/validation.jsonl" --splits train=0.9 dev=0.1 --output_dir "$RUN_DIR/data"
prepare --source jsonl --input "$RUN_DIR/raw/test.jsonl" --splits test=1 --output_dir "$RUN_DIR/data"
prepare --source jsonl --input "$RUN_DIR/raw_out_of_domain/test.jsonl" --limit out_of_domain_dev=300 \
  --splits out_of_domain=0.8 out_of_domain_dev=0.2 --output_dir "$RUN_DIR/data"
