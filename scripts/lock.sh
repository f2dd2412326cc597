#!/usr/bin/env bash
# Writes requirements.lock: every package that the project, its demonstration and its checks
# need, at one version and with all its hashes. Extra arguments go to `uv pip compile`, for example
# `--upgrade` or `--upgrade-package aiohttp`.
set -euo pipefail
. "$(dirname "$0")/common.sh"

# uv and not pip-tools: pip-tools locks for the interpreter that runs it, and so leaves out what
# only another patch release of Python needs (redis wants async-timeout before 3.11.3, which is
# Debian 12's). A universal lock has such packages, each with its condition.
UV=uv==0.13.9

python=$(find_python) || fail "Python 3.$PYTHON_MIN_MINOR or newer with venv is needed"
tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT
install_uv() {
    "$python" -m venv "$tools/venv" && "$tools/venv/bin/python" -m pip install --quiet "$UV"
}
step "Installing $UV in a throw-away environment" install_uv
# Where packages come from is the machine's business: no address goes into the file.
step "Resolving" "$tools/venv/bin/uv" pip compile --quiet --universal \
    --python-version "3.$PYTHON_MIN_MINOR" --extra demo --extra dev --generate-hashes \
    --custom-compile-command "make lock" --output-file requirements.lock "$@" pyproject.toml
if grep -nE '://|--(index|extra-index|find|trusted)' requirements.lock; then
    fail "requirements.lock names a place on the network"
fi
say "requirements.lock holds $(grep -c '==' requirements.lock) packages"
