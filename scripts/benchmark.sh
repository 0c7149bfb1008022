#!/usr/bin/env bash
# What each technique is worth, on real sets: the runs of benchmarks/quality.py that are not done yet, and the tables.
#   DATA_DIR=path/to/data bash scripts/benchmark.sh [--runs NAME ...] [--seeds N] [--list]
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
PYTHON=${PYTHON:-$([[ -x $ROOT/.venv/bin/python ]] && echo "$ROOT/.venv/bin/python" || echo python3)}

"$PYTHON" "$ROOT/benchmarks/quality.py" "$@"
"$PYTHON" "$ROOT/benchmarks/tables.py"
