#!/usr/bin/env bash
# 1 of 6. What ranks better without any training, the splits, and the label-free gains: resumable at any moment.
#   CORPUS=data/scifact DENSE_MODEL=BAAI/bge-m3 bash scripts/query_expansion/1_rank_baselines.sh [flags]
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
PYTHON=${PYTHON:-$([[ -x $ROOT/.venv/bin/python ]] && echo "$ROOT/.venv/bin/python" || echo python3)}

RUN_DIR=${RUN_DIR:-runs/expansion}
CORPUS=${CORPUS:?a folder in the BEIR layout, or a file of RankingSample}
RETRIEVER=${RETRIEVER:-bm25}  # the one that is to rank better: bm25, dense or hybrid
DENSE_MODEL=${DENSE_MODEL:-BAAI/bge-m3}
TEACHER=${TEACHER:-hybrid}    # who judges: hybrid, or a model that ranks better
STEMMER=${STEMMER:-english}   # empty for none
MAX_LENGTH=${MAX_LENGTH:-512}
FRACTIONS=${FRACTIONS:-train=0.5 dev=0.1 test=0.4}  # of the queries, where the corpus has no split of its own
printf '%s\n' "RUN_DIR=$RUN_DIR" "CORPUS=$CORPUS" "RETRIEVER=$RETRIEVER" "DENSE_MODEL=$DENSE_MODEL" \
  "TEACHER=$TEACHER" "STEMMER=$STEMMER" "MAX_LENGTH=$MAX_LENGTH" "FRACTIONS=$FRACTIONS" >&2

flags=()
[[ -z $STEMMER ]] || flags+=(--bm25_stemmer "$STEMMER" --bm25_stop_words "$STEMMER")
"$PYTHON" -m query_expansion_rl.rank_baselines --input "$CORPUS" --retriever "$RETRIEVER" --dense_model "$DENSE_MODEL" \
  --teacher "$TEACHER" --max_length "$MAX_LENGTH" --output_dir "$RUN_DIR/baselines" --fractions $FRACTIONS \
  "${flags[@]}" "$@"
