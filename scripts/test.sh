#!/usr/bin/env bash
# Everything that must hold, from a bare machine: sets up, runs each stage even if an earlier one
# failed, then prints how each ended. Arguments choose stages by name and order:
#
#     scripts/test.sh                  all of them, as CI does
#     scripts/test.sh ruff types       only these
#     scripts/test.sh python -- -k seal -x    what follows `--` goes to pytest; -n0 for one process
#
# Python's tests wait about as long as they compute, so the other stages run beside them, one after
# the other.
set -euo pipefail
. "$(dirname "$0")/common.sh"

STAGES=(ruff types imports clippy rust vectors wasm sdk python)
BESIDE_THE_OTHERS=python
# Each starts servers of its own, so that more of them gain little and cost memory.
PYTEST_WORKERS=2
REDIS_MIN_MAJOR=7
BIN=$VENV/bin
MANIFEST=dandelion/kernel/Cargo.toml

# The stages: each a function, named above, whose exit code says whether it holds.

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

# The kernel for pages, compiled in another directory, has the same bytes.
stage_wasm() { scripts/wasm.sh again; }

stage_sdk() { scripts/sdk.sh test; }

# A file's tests stay in one worker, and so share what is set up for them. The folder has a short
# name, since the path of a socket may have a hundred characters; after a failure it stays.
stage_python() {
    local folder
    folder=$(mktemp -d)
    "$BIN/python" -m pytest -q --numprocesses=$PYTEST_WORKERS --dist=loadfile --durations=5 \
        --basetemp="$folder" "${pytest_args[@]}" || { say "the tests' files: $folder"; return 1; }
    rm -rf "$folder"
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
    "stage_$name" </dev/null || verdict=FAILED
    printf '%-8s  %-6s  %4d s\n' "$name" "$verdict" $((SECONDS - began)) >"$notes/$name"
    say "    $verdict in $((SECONDS - began)) s"
}

# Runs stages one after the other; each line says which lane it came from.
run_lane() {
    local lane=$1 name
    shift
    {
        # Upon an interruption the stage at work ends in its own way, and none follows.
        trap 'exit 130' INT
        for name in "$@"; do run_stage "$name"; done
    } 2>&1 | (
        trap '' INT
        exec sed -u "s/^/$lane | /"
    )
}

# Job control gives each lane a process group of its own, which an interruption can reach as one.
run_beside() {
    local others=("$@") lanes
    set -m
    run_lane "$BESIDE_THE_OTHERS" "$BESIDE_THE_OTHERS" &
    lanes=(-$!)
    run_lane checks "${others[@]}" &
    lanes+=(-$!)
    set +m
    trap 'kill -INT -- "${lanes[@]}" 2>/dev/null; wait; exit 130' INT TERM
    wait
    trap - INT TERM
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
case " ${stages[*]} " in *" python "*) require_redis; scripts/browsers.sh ;; esac
case " ${stages[*]} " in *" python "* | *" sdk "*) scripts/sdk.sh ;; esac

notes=$(mktemp -d)
trap 'rm -rf "$notes"' EXIT
others=()
for name in "${stages[@]}"; do [ "$name" = "$BESIDE_THE_OTHERS" ] || others+=("$name"); done
if [ ${#others[@]} -gt 0 ] && [ ${#others[@]} -lt ${#stages[@]} ]; then
    run_beside "${others[@]}"
else
    for name in "${stages[@]}"; do run_stage "$name"; done
fi

# A stage that left no note has not ended.
failed=()
say
for name in "${stages[@]}"; do
    cat "$notes/$name" 2>/dev/null || say "$name did not end"
    grep -qs passed "$notes/$name" || failed+=("$name")
done
if [ ${#failed[@]} -gt 0 ]; then
    say "FAILED after $((SECONDS - began)) s: ${failed[*]}"
    exit 1
fi
say "All stages passed in $((SECONDS - began)) s."
