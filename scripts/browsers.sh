#!/usr/bin/env bash
# Sees to it that a browser is there for the tests that drive one; as root on Debian it installs it.
# None is ever downloaded by the tools that drive it.
#
#     scripts/browsers.sh              Chromium, as `make test` needs
#     scripts/browsers.sh firefox      Firefox, for `make leave ARGS=--firefox`
set -euo pipefail
. "$(dirname "$0")/common.sh"

# need NAME PACKAGE COMMAND ...: any of the commands will do.
need() {
    local name=$1 package=$2
    shift 2
    found "$@" && return
    if is_root_on_debian; then step "Installing Debian's $package" apt_install "$package"; fi
    found "$@" || fail "$name is needed and was not found (tried: $*)." \
        "On Debian, as root: apt-get install $package"
}

found() {
    local command
    for command in "$@"; do
        if command -v "$command" >/dev/null; then return 0; fi
    done
    return 1
}

case ${1:-chromium} in
    chromium) need Chromium chromium chromium chromium-browser ;;
    firefox) need Firefox firefox-esr firefox-esr firefox ;;
    *) fail "no browser '$1'; there are: chromium firefox" ;;
esac
