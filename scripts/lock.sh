#!/usr/bin/env bash
# Writes requirements.lock: every package that the project, its demonstration and its checks
# need, at one version and with all its hashes. Extra arguments go to pip-compile, for example
# `--upgrade` or `--upgrade-package aiohttp`.
set -euo pipefail
. "$(dirname "$0")/common.sh"

PIP_TOOLS=pip-tools==7.6.2

# A lock made on the oldest Python holds for the newer ones; the reverse need not be true.
python=$(PYTHON="" find_python) || fail "Python 3.$PYTHON_MIN_MINOR with venv is needed"
"$python" -c "import sys; sys.exit(sys.version_info[:2] != (3, $PYTHON_MIN_MINOR))" ||
    fail "the lock must be made with Python 3.$PYTHON_MIN_MINOR, the oldest that is supported"

tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT
step "Making a throw-away environment for $PIP_TOOLS" "$python" -m venv "$tools/venv"
step "Installing $PIP_TOOLS" "$tools/venv/bin/python" -m pip install --quiet "$PIP_TOOLS"
# Where packages come from is the machine's business: no address goes into the file.
step "Resolving" env CUSTOM_COMPILE_COMMAND="make lock" \
    "$tools/venv/bin/pip-compile" --quiet --extra demo --extra dev \
    --generate-hashes --strip-extras --allow-unsafe --no-emit-options --no-emit-find-links \
    --no-emit-index-url --no-emit-trusted-host --output-file requirements.lock "$@" pyproject.toml
if grep -nE '://|--(index|extra-index|find|trusted)' requirements.lock; then
    fail "requirements.lock names a place on the network"
fi
say "requirements.lock holds $(grep -c '==' requirements.lock) packages"
