#!/usr/bin/env bash
# All tests: lint and artefacts, contracts, Python. Needs `make setup-dev setup-node`; `make test` does that.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/lint.sh
npx --no-install forge test
.venv/bin/python -m pytest -n auto "$@"
