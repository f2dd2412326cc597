#!/usr/bin/env bash
# Compiles the kernel of a page (dandelion/kernel/src/wasm.rs) into wasm_stub/build/kernel.wasm.
# Quick when nothing changed.
#
#     scripts/wasm.sh                  build
#     scripts/wasm.sh reproducible     build twice more, from other directories; the bytes are equal
#     scripts/wasm.sh again            the same, with one compilation of Rust's own library
#
# The toolchain is rustup's where it has the target wasm32-unknown-unknown or the component rust-src,
# else Debian's packages, which have the source of Rust's own library.
set -euo pipefail
if [ -z "${DANDELION_WASM_LOCKED:-}" ] && command -v flock >/dev/null; then
    exec env DANDELION_WASM_LOCKED=1 flock --close "$(dirname "$0")/../.wasm.lock" bash "$0" "$@"
fi
. "$(dirname "$0")/common.sh"
use_cargo_home

TARGET=wasm32-unknown-unknown
KERNEL=dandelion/kernel
OUT=wasm_stub/build
WORK=$KERNEL/target/wasm
DEBIAN_PACKAGES=(rustc-web cargo-web rust-web-src lld)
# For size; this level is the fastest, too. A page erases all memory after each use of a secret, so
# there must be no data in it; and it starts with as little as holds what a leaving page can send.
FLAGS=(-Copt-level=s -Cpanic=abort -Ccodegen-units=1 -Ctarget-feature=-reference-types,-multivalue
    -Clink-arg=-zstack-size=16384 -Clink-arg=--initial-memory=131072)

# choose CARGO RUSTC: sets cargo, rustc, linker, build_std if these two can do it.
choose() {
    local root
    cargo=$1 rustc=$2 linker="" build_std=""
    command -v "$cargo" >/dev/null && root=$("$rustc" --print sysroot 2>/dev/null) || return 1
    local library=$root/lib/rustlib
    if [ ! -d "$library/$TARGET/lib" ]; then
        [ -f "$library/src/rust/library/core/Cargo.toml" ] || return 1
        build_std=1
    fi
    local host
    host=$("$rustc" -vV | sed -n 's/^host: //p')
    for linker in "$library/$host/bin/rust-lld" wasm-ld wasm-ld-14; do
        ! command -v "$linker" >/dev/null || return 0
    done
    return 1
}

choose_any() { choose cargo rustc || choose /usr/bin/cargo /usr/bin/rustc; }

require_toolchain() {
    choose_any && return
    if is_root_on_debian; then
        step "Installing Debian's ${DEBIAN_PACKAGES[*]}" apt_install "${DEBIAN_PACKAGES[@]}"
    fi
    choose_any || fail "a Rust that compiles for $TARGET is needed and was not found." \
        "With rustup: rustup target add $TARGET." \
        "On Debian or Ubuntu, as root: apt-get install ${DEBIAN_PACKAGES[*]}"
}

# compile CRATE TARGET_DIR OUTPUT. No path is in the result: it holds neither names nor texts.
compile() {
    local crate=$1 target_dir=$2 output=$3 flags=("${FLAGS[@]}") arguments=()
    if [ -n "$build_std" ]; then
        arguments+=(-Zbuild-std=core)
        # Without the text of what a panic would say.
        flags+=(-Zunstable-options -Cpanic=immediate-abort)
    fi
    env -u RUSTFLAGS -u CARGO_BUILD_TARGET RUSTC="$rustc" RUSTC_BOOTSTRAP=1 \
        CARGO_ENCODED_RUSTFLAGS="$(IFS=$'\x1f'; printf '%s' "${flags[*]}")" \
        CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER="$linker" CARGO_PROFILE_RELEASE_STRIP=symbols \
        "$cargo" build --quiet --locked --release --lib --target "$TARGET" \
        --manifest-path "$crate/Cargo.toml" --target-dir "$target_dir" "${arguments[@]}"
    "${python:-python3}" scripts/wasm_sections.py \
        "$target_dir/$TARGET/release/dandelion_kernel.wasm" "$output"
}

build() {
    mkdir -p "$OUT" "$WORK"
    compile "$KERNEL" "$WORK" "$OUT/kernel.wasm"
}

# The same sources, compiled in a directory of another name and depth.
build_elsewhere() {
    local place=$1 target_dir=$2
    mkdir -p "$place"
    cp -r "$KERNEL/Cargo.toml" "$KERNEL/Cargo.lock" "$KERNEL/src" "$place"
    compile "$place" "$target_dir" "$place/kernel.wasm"
    cmp "$OUT/kernel.wasm" "$place/kernel.wasm"
}

require_toolchain
mapfile -t sources < <(find "$KERNEL/src" "$KERNEL"/Cargo.* scripts/wasm.sh scripts/wasm_sections.py \
    -type f | LC_ALL=C sort)
made_from="$(hash_of "${sources[@]}") $("$rustc" --version) ${build_std:-prebuilt}"
if [ "$(cat "$OUT/kernel.stamp" 2>/dev/null)" != "$made_from" ] || [ ! -e "$OUT/kernel.wasm" ]; then
    step "Compiling the kernel for pages with $("$rustc" --version)" build
    printf '%s\n' "$made_from" >"$OUT/kernel.stamp"
fi
say "$OUT/kernel.wasm: $(wc -c <"$OUT/kernel.wasm") bytes, $(gzip -9c "$OUT/kernel.wasm" | wc -c) gzip -9"

elsewhere=$(mktemp -d)
trap 'rm -rf "$elsewhere"' EXIT
case ${1:-} in
    reproducible)
        step "Compiling it in another directory" build_elsewhere "$elsewhere/a" "$elsewhere/target-a"
        step "And in a third" build_elsewhere "$elsewhere/some/deeper/b" "$elsewhere/b"
        say "All three are $(sha256sum <"$OUT/kernel.wasm" | cut -c1-64)."
        ;;
    again)
        step "Compiling it in another directory" build_elsewhere "$elsewhere/some/deeper" "$WORK"
        ;;
esac
