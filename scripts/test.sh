#!/usr/bin/env bash
# All tests: lint and artefacts, contracts, Python. Needs `make setup-dev setup-node`; `make test` does that.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/lint.sh
FORGE_SNAPSHOT_CHECK=true npx --no-install forge test  # gas too: tests/contracts/snapshots
.venv/bin/python scripts/check_float32.py
.venv/bin/python -m pytest -n auto "$@"
