# shellcheck shell=bash disable=SC2034
# What the scripts share; to be sourced. It changes into the repository's root.

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

# The oldest versions that work. Rust's is the crate's own `rust-version`.
PYTHON_MIN_MINOR=11
VENV=.venv

say() { printf '%s\n' "$*"; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

# step "what it does" command ...: runs it and says how long it took.
step() {
    local what=$1 started=$SECONDS
    shift
    say "==> $what"
    "$@" || fail "$what: failed after $((SECONDS - started)) s"
    say "    done in $((SECONDS - started)) s"
}

# One hash over the contents and the names of the files given.
hash_of() { sha256sum "$@" | sha256sum | cut -d' ' -f1; }

is_root_on_debian() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; }

# Installs Debian packages as root, without starting any service that they bring.
apt_install() {
    local policy=/usr/sbin/policy-rc.d made_policy="" status=0
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod 755 "$policy" && made_policy=1
    fi
    local install=(env DEBIAN_FRONTEND=noninteractive apt-get -qq -y
        -o DPkg::Lock::Timeout=300 --no-install-recommends install "$@")
    # A fresh machine has no package lists, an old one stale lists.
    "${install[@]}" </dev/null >/dev/null 2>&1 ||
        { apt-get -qq update </dev/null && "${install[@]}" </dev/null >/dev/null; } || status=$?
    [ -z "$made_policy" ] || rm -f "$policy"
    return $status
}

# Prints a Python that is new enough and can make virtual environments. Prints nothing and
# returns 1 if there is none, 2 if one is new enough but lacks venv.
find_python() {
    local candidate lacks_venv=""
    # The lock is made on the oldest version, so the oldest is tried first.
    for candidate in ${PYTHON:-} python3.11 python3.12 python3.13 python3 python; do
        "$candidate" -c "import sys; sys.exit(sys.version_info < (3, $PYTHON_MIN_MINOR))" \
            >/dev/null 2>&1 || continue
        if "$candidate" -c 'import ensurepip, venv' >/dev/null 2>&1; then
            command -v "$candidate"
            return 0
        fi
        lacks_venv=1
    done
    [ -z "$lacks_venv" ] || return 2
    return 1
}

# rustup puts its programs where a shell that was started earlier does not look.
use_cargo_home() {
    command -v cargo >/dev/null || export PATH="$PATH:${CARGO_HOME:-${HOME:-}/.cargo}/bin"
}
