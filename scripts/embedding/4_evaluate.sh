#!/usr/bin/env bash
# 4 of 4. Before, after, teacher and BM25, in and out of the domain: a table, report.json, report.md and report.html.
#   STUDENT=BAAI/bge-m3 RUN_DIR=runs/scidocs bash scripts/embedding/4_evaluate.sh [flags]
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
PYTHON=${PYTHON:-$([[ -x $ROOT/.venv/bin/python ]] && echo "$ROOT/.venv/bin/python" || echo python3)}

RUN_DIR=${RUN_DIR:-runs/scidocs}
STUDENT=${STUDENT:-BAAI/bge-m3}
MAX_LENGTH=${MAX_LENGTH:-512}
IN_DOMAIN=${IN_DOMAIN:-test}
# Measured where it is there; 0_prepare_data.sh makes it.
OUT_OF_DOMAIN=${OUT_OF_DOMAIN-$([[ -e $RUN_DIR/data/out_of_domain.jsonl ]] && echo out_of_domain || true)}
printf '%s\n' "RUN_DIR=$RUN_DIR" "STUDENT=$STUDENT" "MAX_LENGTH=$MAX_LENGTH" "IN_DOMAIN=$IN_DOMAIN" \
  "OUT_OF_DOMAIN=$OUT_OF_DOMAIN" >&2

files=(--in_domain "$RUN_DIR/data/$IN_DOMAIN.jsonl")
scores=("$RUN_DIR/scores/${IN_DOMAIN}_logits.jsonl")
if [[ -n $OUT_OF_DOMAIN ]]; then
  files+=(--out_of_domain "$RUN_DIR/data/$OUT_OF_DOMAIN.jsonl")
  scores+=("$RUN_DIR/scores/${OUT_OF_DOMAIN}_logits.jsonl")
fi
"$PYTHON" -m embedding_distillation.evaluate \
  --before "$STUDENT" --after "$RUN_DIR/embedder" --teacher_scores "${scores[@]}" "${files[@]}" \
  --output_dir "$RUN_DIR/embedder_report" --max_length "$MAX_LENGTH" "$@"
