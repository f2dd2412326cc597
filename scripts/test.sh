#!/usr/bin/env bash
# Everything that must hold, from a bare machine: sets up, runs each stage even if an earlier one
# failed, then prints how each ended. Arguments choose stages by name and order:
#
#     scripts/test.sh                  all of them, as CI does
#     scripts/test.sh ruff types       only these
#     scripts/test.sh python -- -k seal -x    what follows `--` goes to pytest
set -euo pipefail
. "$(dirname "$0")/common.sh"

STAGES=(ruff types imports clippy rust vectors python)
REDIS_MIN_MAJOR=7
BIN=$VENV/bin
MANIFEST=dandelion/kernel/Cargo.toml

# The stages. Each is a command whose exit code says whether it holds.

stage_ruff() {
    "$BIN/ruff" check --quiet --output-format=concise . && "$BIN/ruff" format --check --quiet . ||
        { say "\`make format\` mends what can be mended without thought"; return 1; }
}

stage_types() { "$BIN/mypy" --no-error-summary; }

stage_imports() { "$BIN/lint-imports" --no-cache --no-logo; }

# Without Python first: that is the crate that the browser gets.
stage_clippy() {
    cargo fmt --version >/dev/null 2>&1 && cargo clippy --version >/dev/null 2>&1 || {
        say "rustfmt and clippy are needed; with rustup: rustup component add rustfmt clippy"
        return 1
    }
    cargo fmt --manifest-path "$MANIFEST" --check &&
        cargo_quiet clippy --all-targets -- --deny warnings &&
        cargo_quiet clippy --all-targets --features python -- --deny warnings
}

# The extension module leaves Python's symbols to the interpreter that loads it, so no test binary
# could be linked with it; its tests are Python's.
stage_rust() { cargo_quiet test --features parallel; }

# The committed vectors are what the code writes today.
stage_vectors() { "$BIN/python" -m dandelion.vectors --check; }

stage_python() {
    "$BIN/python" -m pytest -q --cov --cov-report=term --durations=5 "${pytest_args[@]}"
}

cargo_quiet() {
    local verb=$1
    shift
    PYO3_PYTHON=$PWD/$BIN/python cargo "$verb" --quiet --locked --manifest-path "$MANIFEST" "$@"
}

# A real Redis for the tests that ask for one. The service itself is never started: each test
# starts its own, on a socket of its own.
redis_is_new_enough() {
    local major
    major=$(redis-server --version 2>/dev/null | sed -n 's/.* v=\([0-9]*\)\..*/\1/p')
    [ -n "$major" ] && [ "$major" -ge "$REDIS_MIN_MAJOR" ]
}

require_redis() {
    redis_is_new_enough && return
    if is_root_on_debian; then
        step "Installing Debian's redis-server (not started)" apt_install redis-server
    fi
    redis_is_new_enough || fail "redis-server $REDIS_MIN_MAJOR or newer is needed for the tests" \
        "and was not found. On Debian or Ubuntu, as root: apt-get install redis-server"
}

# Runs one stage and notes its line of the table.
run_stage() {
    local name=$1 began=$SECONDS verdict=passed
    say "==> $name"
    "stage_$name" </dev/null || { verdict=FAILED; failed+=("$name"); }
    table+=("$(printf '%-8s  %-6s  %4d s' "$name" "$verdict" $((SECONDS - began)))")
    say "    $verdict in $((SECONDS - began)) s"
}

stages=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do
    declare -F "stage_$1" >/dev/null || fail "no stage '$1'; there are: ${STAGES[*]}"
    stages+=("$1")
    shift
done
pytest_args=("${@:2}")
[ ${#stages[@]} -gt 0 ] || stages=("${STAGES[@]}")

began=$SECONDS
scripts/setup.sh </dev/null
use_cargo_home
case " ${stages[*]} " in *" python "*) require_redis ;; esac

table=() failed=()
for name in "${stages[@]}"; do run_stage "$name"; done

say
printf '%s\n' "${table[@]}"
if [ ${#failed[@]} -gt 0 ]; then
    say "FAILED after $((SECONDS - began)) s: ${failed[*]}"
    exit 1
fi
say "All stages passed in $((SECONDS - began)) s."
