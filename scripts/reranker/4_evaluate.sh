#!/usr/bin/env bash
# 4 of 4. Before, after, teacher and BM25, in and out of the domain: a table, report.json and report.html.
#   BEFORE=BAAI/bge-reranker-v2-m3 RUN_DIR=runs/stackoverflow bash scripts/reranker/4_evaluate.sh [flags]
# FIRST_STAGE=bm25 (or a model) also measures what the reranker adds to what it reorders.
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
PYTHON=${PYTHON:-$([[ -x $ROOT/.venv/bin/python ]] && echo "$ROOT/.venv/bin/python" || echo python3)}

RUN_DIR=${RUN_DIR:-runs/stackoverflow}
BEFORE=${BEFORE:-BAAI/bge-reranker-v2-m3}
MAX_LENGTH=${MAX_LENGTH:-4096}
IN_DOMAIN=${IN_DOMAIN:-test}
# Measured where it is there; prepare_data.sh makes it.
OUT_OF_DOMAIN=${OUT_OF_DOMAIN-$([[ -e $RUN_DIR/data/out_of_domain.jsonl ]] && echo out_of_domain || true)}
FIRST_STAGE=${FIRST_STAGE-}
# auto: the weight of the reranker that ranks the dev samples best.
MIX=${MIX-$([[ -e $RUN_DIR/data/dev.jsonl ]] && echo auto || true)}
printf '%s\n' "RUN_DIR=$RUN_DIR" "BEFORE=$BEFORE" "MAX_LENGTH=$MAX_LENGTH" "IN_DOMAIN=$IN_DOMAIN" \
  "OUT_OF_DOMAIN=$OUT_OF_DOMAIN" "FIRST_STAGE=$FIRST_STAGE" "MIX=$MIX" >&2

files=(--in_domain "$RUN_DIR/data/$IN_DOMAIN.jsonl")
scores=("$RUN_DIR/scores/${IN_DOMAIN}_logits.jsonl")
if [[ -n $OUT_OF_DOMAIN ]]; then
  files+=(--out_of_domain "$RUN_DIR/data/$OUT_OF_DOMAIN.jsonl")
  scores+=("$RUN_DIR/scores/${OUT_OF_DOMAIN}_logits.jsonl")
fi
mixing=()
if [[ -n $FIRST_STAGE ]]; then
  mixing+=(--first_stage "$FIRST_STAGE")
  [[ -z $MIX ]] || mixing+=(--mix "$MIX")
  [[ $MIX != auto ]] || mixing+=(--mix_dev "$RUN_DIR/data/dev.jsonl")
fi
"$PYTHON" -m reranker_distillation.evaluate \
  --before "$BEFORE" --after "$RUN_DIR/model" --teacher_scores "${scores[@]}" "${files[@]}" \
  --output_dir "$RUN_DIR/report" --max_length "$MAX_LENGTH" ${mixing[@]+"${mixing[@]}"} "$@"
