#!/usr/bin/env bash
# 1 of 6. Each model embeds the corpus and the queries once: resumable at any moment.
#   CORPUS=data/scifact MODEL=runs/mine/embedder BEFORE=BAAI/bge-m3 bash scripts/milvus/1_embed_corpus.sh [flags]
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
PYTHON=${PYTHON:-$([[ -x $ROOT/.venv/bin/python ]] && echo "$ROOT/.venv/bin/python" || echo python3)}

RUN_DIR=${RUN_DIR:-runs/milvus}
CORPUS=${CORPUS:?a folder in the BEIR layout, or a file of RankingSample}
MODEL=${MODEL:-BAAI/bge-m3}
BEFORE=${BEFORE:-}    # the same before training
TEACHER=${TEACHER:-}  # the one it learned from
MAX_LENGTH=${MAX_LENGTH:-512}
printf '%s\n' "RUN_DIR=$RUN_DIR" "CORPUS=$CORPUS" "MODEL=$MODEL" "BEFORE=$BEFORE" "TEACHER=$TEACHER" \
  "MAX_LENGTH=$MAX_LENGTH" >&2

models=("$MODEL")
[[ -z $BEFORE ]] || models+=("$BEFORE")
[[ -z $TEACHER ]] || models+=("$TEACHER")
"$PYTHON" -m milvus_optimization.embed_corpus \
  --input "$CORPUS" --model "${models[@]}" --max_length "$MAX_LENGTH" --output_dir "$RUN_DIR/vectors" "$@"
