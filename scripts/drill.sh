#!/usr/bin/env bash
# A dispute for every operator of the demo's program, each down to the instruction that the chain executes. Minutes. Needs `make setup-dev`.
set -euo pipefail
cd "$(dirname "$0")/.."
REPOPS_DRILL=all "${PYTHON:-.venv/bin/python}" -m pytest -q -n 0 tests/e2e/test_drill.py -k any_operator "$@"
