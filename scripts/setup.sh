#!/usr/bin/env bash
# Makes .venv with everything in requirements.lock and the compiled kernel, and so leaves
# .venv/bin/dandelion. Quick when nothing changed: each step leaves a stamp of what it was made
# from. Set PYTHON to choose an interpreter.
set -euo pipefail
# Two at once would trample on each other's environment: the second waits, then finds it made.
# `--close` keeps the lock from outliving this script in something that it started.
if [ -z "${DANDELION_SETUP_LOCKED:-}" ] && command -v flock >/dev/null; then
    exec env DANDELION_SETUP_LOCKED=1 \
        flock --close "$(dirname "$0")/../.setup.lock" bash "$0" "$@"
fi
. "$(dirname "$0")/common.sh"

KERNEL=dandelion/kernel
STAMPS=$VENV/stamps
# Under a name of its own, since `pip` on the path may be another environment's.
PIP=("$VENV/bin/python" -m pip --no-input --disable-pip-version-check)

up_to_date() { [ "$(cat "$STAMPS/$1" 2>/dev/null)" = "$2" ]; }
stamp() { mkdir -p "$STAMPS" && printf '%s\n' "$2" >"$STAMPS/$1"; }

# The right Python, or a word on what to do.
require_python() {
    local status=0
    python=$(find_python) || status=$?
    if [ $status -ne 0 ] && is_root_on_debian && [ -z "${PYTHON:-}" ]; then
        step "Installing Debian's python3-venv" apt_install python3 python3-venv
        status=0
        python=$(find_python) || status=$?
    fi
    case $status in
        0) ;;
        2) fail "Python is new enough but cannot make environments (venv, ensurepip)." \
            "On Debian or Ubuntu, as root: apt-get install python3-venv" ;;
        *) fail "Python 3.$PYTHON_MIN_MINOR or newer is needed and was not found" \
            "(tried \$PYTHON, python3.11 to python3.13, python3, python)." ;;
    esac
}

# Rust as the crate wants it, and the linker that it calls.
require_rust() {
    local wanted found
    use_cargo_home
    command -v cargo >/dev/null && command -v rustc >/dev/null ||
        fail "cargo and rustc are needed to build the kernel and were not found; see" \
            "the Rust project's install page (rustup), or your system's packages."
    wanted=$(sed -n 's/^rust-version *= *"\(.*\)".*/\1/p' "$KERNEL/Cargo.toml")
    found=$(rustc --version | cut -d' ' -f2)
    printf '%s\n%s\n' "${wanted:-0}" "${found%%-*}" | sort --version-sort --check 2>/dev/null ||
        fail "Rust $wanted or newer is needed and rustc is $found; with rustup: rustup update"
    command -v cc >/dev/null ||
        fail "a C linker (cc) is needed to build the kernel." \
            "On Debian or Ubuntu, as root: apt-get install gcc libc6-dev"
}

make_venv() {
    rm -rf "$VENV"
    "$python" -m venv "$VENV"
}

# pip and what builds source packages come first: with them in place no package needs an isolated
# build environment, which would be filled without looking at the hashes.
install_builders() {
    local pins=$VENV/builders.txt
    awk '/^[a-z]/ { keep = /^(pip|setuptools)==/ } keep' requirements.lock >"$pins"
    "${PIP[@]}" install --quiet --require-hashes -r "$pins"
}

install_packages() {
    "${PIP[@]}" install --quiet --require-hashes --no-build-isolation -r requirements.lock
}

# An editable install: the Python files are used from where they are. What they depend on is there
# already, with its hashes checked, so pip is to fetch nothing here.
build_kernel() {
    # maturin writes over the old module; a process that has it mapped would die of that, so the
    # name moves to a copy first.
    local old
    old=$(echo dandelion/_kernel*.so)
    [ ! -e "$old" ] || { cp "$old" "$old.tmp" && mv "$old.tmp" "$old"; }
    PIP_NO_DEPS=1 PIP_QUIET=1 VIRTUAL_ENV=$PWD/$VENV PATH=$PWD/$VENV/bin:$PATH \
        "$VENV/bin/maturin" develop --release --locked
}

began=$SECONDS
did=

lock=$(hash_of requirements.lock)
mapfile -t sources < <(find "$KERNEL/src" "$KERNEL"/Cargo.* "$KERNEL"/build.rs pyproject.toml \
    -type f 2>/dev/null | LC_ALL=C sort)
kernel=$lock-$(hash_of "${sources[@]}")
built=("$VENV/bin/dandelion" dandelion/_kernel*.so)
kernel_up_to_date() {
    up_to_date kernel "$kernel" && [ -x "${built[0]}" ] && [ -e "${built[1]}" ]
}

# What is missing is said before anything is fetched.
kernel_up_to_date || require_rust

# The path is part of it: an environment that was moved or copied does not work.
made_at="$PWD $(cat "$VENV/pyvenv.cfg" 2>/dev/null || true)"
if ! up_to_date venv "$made_at" || ! "$VENV/bin/python" -c '' 2>/dev/null; then
    require_python
    step "Making $VENV with $("$python" --version)" make_venv
    stamp venv "$PWD $(cat "$VENV/pyvenv.cfg")"
    did=1
fi

if ! up_to_date packages "$lock"; then
    step "Installing pip and setuptools" install_builders
    step "Installing the $(grep -c '==' requirements.lock) packages of requirements.lock" \
        install_packages
    stamp packages "$lock"
    did=1
fi

if ! kernel_up_to_date; then
    step "Building the kernel (Rust, optimised)" build_kernel
    stamp kernel "$kernel"
    did=1
fi

if [ -n "$did" ]; then
    say "Set up in $((SECONDS - began)) s: $VENV/bin/dandelion"
else
    say "Set up already: $VENV/bin/dandelion"
fi
