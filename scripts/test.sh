#!/usr/bin/env bash
# All tests: lint and artefacts, contracts, Python. Needs `make setup-dev setup-node`; `make test` does that.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/lint.sh

# Gas too: forge writes tests/contracts/snapshots anew (its own check of them exits with 0, and skips what would follow).
contracts() {
  local before
  before=$(mktemp -d)
  cp tests/contracts/snapshots/*.json "$before"
  scripts/forge test
  diff -r "$before" tests/contracts/snapshots || {
    echo "gas has changed: look at the differences, then commit tests/contracts/snapshots" >&2
    return 1
  }
  rm -r "$before"
  .venv/bin/python scripts/check_float32.py
}

# The compiler of the contracts uses one core for minutes, so the Python tests run beside it.
log=$(mktemp)
(set -e; contracts) >"$log" 2>&1 &
forge=$!
failed=0
.venv/bin/python -m pytest -n auto "$@" || failed=1
wait "$forge" || failed=1
cat "$log"
rm "$log"
exit "$failed"
