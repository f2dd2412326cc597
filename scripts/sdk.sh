#!/usr/bin/env bash
# Builds the browser package into wasm_stub/dist, with its kernel.
#
#     scripts/sdk.sh            build
#     scripts/sdk.sh test       types, the tests in Node, the size, and the package as others see it
#
# Needs Node with npm; `make demo` and the services do not.
set -euo pipefail
. "$(dirname "$0")/common.sh"

PACKAGE=wasm_stub
NODE_MIN_MAJOR=20

node_is_new_enough() {
    local version
    command -v npm >/dev/null && version=$(node --version 2>/dev/null) || return 1
    version=${version#v}
    [ "${version%%.*}" -ge $NODE_MIN_MAJOR ]
}

require_node() {
    node_is_new_enough && return
    if is_root_on_debian; then
        step "Installing Debian's nodejs and npm" apt_install nodejs npm
    fi
    node_is_new_enough || fail "Node $NODE_MIN_MAJOR or newer with npm is needed for the browser" \
        "package and was not found. See the Node project's download page, or your system's packages."
}

# The exact versions and hashes of package-lock.json; no package runs code of its own to install.
install_packages() { (cd "$PACKAGE" && npm ci --silent --no-progress); }

build() { (cd "$PACKAGE" && node build.mjs); }

require_node
packages="$(hash_of "$PACKAGE/package-lock.json" "$PACKAGE/.npmrc") $(node --version)"
installed=$PACKAGE/node_modules/.dandelion
if [ "$(cat "$installed" 2>/dev/null)" != "$packages" ]; then
    step "Installing the packages of $PACKAGE/package-lock.json" install_packages
    printf '%s\n' "$packages" >"$installed"
fi
scripts/wasm.sh

case ${1:-} in
    "")
        mapfile -t sources < <(find "$PACKAGE/src" "$PACKAGE"/*.json "$PACKAGE/build.mjs" \
            "$PACKAGE/build/kernel.wasm" -type f | LC_ALL=C sort)
        made_from="$(hash_of "${sources[@]}") $packages"
        if [ "$(cat "$PACKAGE/dist/.stamp" 2>/dev/null)" != "$made_from" ]; then
            step "Building the browser package" build
            printf '%s\n' "$made_from" >"$PACKAGE/dist/.stamp"
        fi
        say "Built: $PACKAGE/dist"
        ;;
    # What was built is judged as it is: tests in a browser may be using it.
    test) cd "$PACKAGE" && npm test --silent && npm run --silent size && npm run --silent package ;;
    *) fail "no '$1'; there is: test" ;;
esac
