#!/usr/bin/env bash
# Formatting, lint, types and committed artefacts. Needs `make setup-dev setup-node`.
set -euo pipefail
cd "$(dirname "$0")/.."
.venv/bin/ruff format --check .
.venv/bin/ruff check .
.venv/bin/mypy
scripts/forge fmt --check
.venv/bin/python scripts/build_contracts.py --check
.venv/bin/python scripts/mutate_contracts.py --check
.venv/bin/python scripts/build_vectors.py --check
.venv/bin/python scripts/build_repvm_vectors.py --check
.venv/bin/python scripts/build_trial_vectors.py --check
.venv/bin/python scripts/build_function_listings.py --check
.venv/bin/python scripts/build_images.py --check
.venv/bin/python scripts/build_interface_page.py --check
.venv/bin/python scripts/build_operator_table.py --check
.venv/bin/python scripts/check_spec.py
