#!/usr/bin/env bash
# Embedding distillation on WikiQA and SciFact: all-mpnet-base-v2 teaches all-MiniLM-L6-v2; what it gains there, and
# what it loses elsewhere. The rows of README's table, seed by seed.
#   DATA_DIR=path/to/data bash benchmarks/embedding.sh [run ...]
# DATA_DIR holds wikiqa/, semeval_cqa_b/ and scifact/ (RankingSample files of the original splits; scifact also in the
# layout of BEIR). Runs are wikiqa-1 wikiqa-2 wikiqa-3 wikiqa_no_anchors-1 wikiqa_original-1 scifact-1 scifact-2
# scifact-3 (all of them by default), and wikiqa_reranker-1, whose teacher is the cross-encoder RERANKER (of
# benchmarks/wikiqa.sh). The reports go to benchmarks/results/embedding-<run>.json; that of wikiqa_no_anchors-1 draws
# the merge curve of wikiqa-1 beside its own.
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
PYTHON=${PYTHON:-$([[ -x $ROOT/.venv/bin/python ]] && echo "$ROOT/.venv/bin/python" || echo python3)}

DATA_DIR=${DATA_DIR:?a folder with wikiqa, semeval_cqa_b and scifact}
RUN_DIR=${RUN_DIR:-runs/embedding_benchmark}
printf '%s\n' "DATA_DIR=$DATA_DIR" "RUN_DIR=$RUN_DIR" >&2
export HF_HUB_OFFLINE=${HF_HUB_OFFLINE:-1}
TEACHER=$RUN_DIR/models/all-mpnet-base-v2 STUDENT=$RUN_DIR/models/all-MiniLM-L6-v2
DATA=$RUN_DIR/data SCORES=$RUN_DIR/scores

stage() { "$PYTHON" -m "$@"; }
score() { # max_length, files
  stage embedding_distillation.generate_logits --teacher "$TEACHER" --output_dir "$SCORES" --max_length "$1" \
    --input_files "${@:2}"
}
soft_labels() { # files
  stage embedding_distillation.generate_scores --output_dir "$RUN_DIR/soft_labels" --input_files "$@"
}

stage rag_core.demo_models --output_dir "$RUN_DIR/models"
mkdir -p "$DATA"
for split in train dev test; do cp -f "$DATA_DIR/wikiqa/$split.jsonl.gz" "$DATA/wikiqa_$split.jsonl.gz"; done
for split in dev test; do cp -f "$DATA_DIR/semeval_cqa_b/$split.jsonl.gz" "$DATA/semeval_$split.jsonl.gz"; done
cp -f "$DATA_DIR/scifact/test.jsonl.gz" "$DATA/scifact_test.jsonl.gz"
# The training lists of scifact are short: they are made again, from its corpus.
stage rag_core.prepare --source beir --input "$DATA_DIR/scifact" --num_candidates 8 --drop_leaks \
  --output_dir "$RUN_DIR/scifact"
stage rag_core.prepare --source jsonl --input "$RUN_DIR/scifact/train.jsonl" \
  --splits scifact_train=0.85 scifact_dev=0.15 --output_dir "$DATA"
# The anchors are of neither domain: docs of the installed packages.
stage rag_core.prepare --source apidocs --num_candidates 8 --splits train=1 --limit train=500 \
  --output_dir "$RUN_DIR/apidocs"
score 128 "$DATA"/wikiqa_{train,dev,test}.jsonl.gz
score 256 "$DATA"/semeval_{dev,test}.jsonl.gz
score 256 "$DATA/scifact_test.jsonl.gz" "$DATA"/scifact_{train,dev}.jsonl
soft_labels "$SCORES"/{wikiqa,scifact}_train_logits.jsonl
"$PYTHON" "$ROOT/benchmarks/original_pairs.py" "$SCORES/wikiqa_train_logits.jsonl" \
  "$RUN_DIR/soft_labels/wikiqa_pairs.jsonl"

run() {
  local name=$1 seed=${1##*-} in=${1%%[-_]*} other=scifact
  [[ $in == wikiqa ]] || other=wikiqa
  local flags=(--student "$STUDENT" --output_dir "$RUN_DIR/$name" --seed "$seed" --max_length 128)
  local recipe=(--train_file "$RUN_DIR/soft_labels/${in}_train_logits_scores.jsonl" --dropout 0
    --learning_rate 4e-5 --num_train_epochs 2 --dev_files "$SCORES/${in}_dev_logits.jsonl"
    --out_of_domain_dev_files "$SCORES"/{semeval,"$other"}_dev_logits.jsonl)
  local anchors=(--anchor_files "$RUN_DIR/apidocs/train.jsonl") trade_off=()
  case $name in
    # The public original: pairs of one positive and one negative (so labels are used), 512 a step, temperature 1.
    wikiqa_original-*) recipe=(--train_file "$RUN_DIR/soft_labels/wikiqa_pairs.jsonl" --temperature 1 --merge off
      --learning_rate 6e-5 --per_device_train_batch_size 512) anchors=() ;;
    wikiqa_no_anchors-*)
      anchors=()
      [[ ! -d $RUN_DIR/wikiqa-$seed ]] || trade_off=(--trade_off "$RUN_DIR/wikiqa-$seed") ;;
    wikiqa_reranker-*)
      stage reranker_distillation.generate_logits --teacher "${RERANKER:?a cross-encoder}" --output_dir "$SCORES" \
        --max_length 128 --output_suffix _reranker --input_files "$DATA/wikiqa_train.jsonl.gz"
      soft_labels "$SCORES/wikiqa_train_reranker.jsonl"
      recipe[1]=$RUN_DIR/soft_labels/wikiqa_train_reranker_scores.jsonl ;;
  esac
  stage embedding_distillation.train "${flags[@]}" "${recipe[@]}" "${anchors[@]}"
  # What the student was before is the same in every report.
  mkdir -p "$RUN_DIR/reports/$name/scores"
  cp -n "$RUN_DIR"/reports/*/scores/*_before.jsonl* "$RUN_DIR/reports/$name/scores" 2> /dev/null || true
  stage embedding_distillation.evaluate --before "$STUDENT" --after "$RUN_DIR/$name" --dtype auto --max_length 256 \
    --in_domain "$DATA/${in}_test.jsonl.gz" --out_of_domain "$DATA"/{semeval,"$other"}_test.jsonl.gz \
    --teacher_scores "$SCORES"/{"$in",semeval,"$other"}_test_logits.jsonl --output_dir "$RUN_DIR/reports/$name" \
    "${trade_off[@]}"
  "$PYTHON" "$ROOT/benchmarks/readme_tables.py" --store "embedding-$name" "$RUN_DIR/reports/$name/report.json"
}
runs=("$@")
((${#runs[@]})) || runs=(wikiqa-{1,2,3} wikiqa_no_anchors-1 wikiqa_original-1 scifact-{1,2,3})
for name in "${runs[@]}"; do
  echo "== $name" >&2
  run "$name"
done
