#!/usr/bin/env bash
# Installs what vae needs to build (and, with "test", to be tested), where it is missing; WEBP=0 and
# TIFF=0 leave those libraries out. Debian and
# its kin only; elsewhere it names what is missing and stops. Asks sudo where not root.
set -euo pipefail

build=(gcc:gcc g++:g++ pkg-config:pkg-config)
build_libs=(jansson:libjansson-dev libpng:libpng-dev libjpeg:libjpeg62-turbo-dev libzip:libzip-dev zlib:zlib1g-dev libcrypto:libssl-dev)
build_headers=(gif_lib.h:libgif-dev) # libraries that pkg-config does not know
build_wanted=(libwebpdemux:libwebp-dev libtiff-4:libtiff-dev) # of pictures that are not read without
test=(shellcheck:shellcheck strace:strace python3:python3 clang:clang mpicc:libopenmpi-dev mpirun:openmpi-bin)
test_libs=(cmocka:libcmocka-dev)
browser=(chromium:chromium chromedriver:chromium-driver) # of tests/report, which are skipped without
lint=(clang-format:clang-format cppcheck:cppcheck)
fuzz=(clang:clang)
bench=(xz:xz-utils) # packs the bundle for a GPU node
bench_libs=(openblas:libopenblas-openmp-dev) # what the products are compared with

missing=() wanted=() # wanted: what can be done without
need_commands() {
    for pair in "$@"; do
        command -v "${pair%%:*}" >/dev/null || missing+=("${pair#*:}")
    done
}
need_libraries() {
    for pair in "$@"; do
        pkg-config --exists "${pair%%:*}" 2>/dev/null || missing+=("${pair#*:}")
    done
}
need_headers() {
    for pair in "$@"; do
        echo "#include <${pair%%:*}>" | gcc -fsyntax-only -x c - 2>/dev/null || missing+=("${pair#*:}")
    done
}
# What clang needs of its own version are packages named by it: @ stands for the number until the
# package lists are there.
need_clang_parts() {
    echo 'int main(void){return 0;}' | clang -fsanitize=thread -x c -o /dev/null - 2>/dev/null ||
        missing+=(libclang-rt-@-dev)
}
clang_version() { # of the one that is there, or of the one that the distribution will install
    clang -dumpversion 2>/dev/null | sed 's/\..*//' | grep . ||
        apt-cache depends clang | sed -n 's/.*Depends: clang-\([0-9]*\)$/\1/p' | head -n 1
}

look() { # WHAT...: fills missing and wanted
    missing=() wanted=()
    for what in "$@"; do
        case "$what" in
        build)
            need_commands "${build[@]}"
            need_libraries "${build_libs[@]}"
            need_headers "${build_headers[@]}"
            for pair in "${build_wanted[@]}"; do
                case "${WEBP:-1}${TIFF:-1} $pair" in 0?*webp* | ?0*tiff*) continue ;; esac
                pkg-config --exists "${pair%%:*}" 2>/dev/null || wanted+=("${pair#*:}")
            done
            ;;
        test)
            need_commands "${test[@]}"
            need_libraries "${test_libs[@]}"
            need_clang_parts
            python3 -c 'import ensurepip' 2>/dev/null || missing+=(python3-venv)
            for pair in "${browser[@]}"; do
                command -v "${pair%%:*}" >/dev/null || wanted+=("${pair#*:}")
            done
            ;;
        lint) need_commands "${lint[@]}" ;;
        bench) need_commands "${bench[@]}"; need_libraries "${bench_libs[@]}" ;;
        fuzz) need_commands "${fuzz[@]}"; need_clang_parts ;;
        *) echo "usage: $0 build|test|lint|fuzz|bench ..." >&2; exit 2 ;;
        esac
    done
}
look "$@"
if [ "${#missing[@]}" -eq 0 ] && [ "${#wanted[@]}" -eq 0 ]; then
    exit 0
fi
do_without() {
    for package in "${wanted[@]}"; do
        case "$package" in
        chromium*) without="the tests of reports in a browser will be SKIPPED" ;;
        *) without="pictures of that format will not be read" ;;
        esac
        echo "note: $package cannot be installed here: $without" >&2
    done
    exit 0
}
can_install() {
    command -v apt-get >/dev/null && { [ "$(id -u)" -eq 0 ] || command -v sudo >/dev/null; }
}
if [ "${#missing[@]}" -eq 0 ] && ! can_install; then
    do_without
fi

if ! command -v apt-get >/dev/null; then
    echo "missing (Debian's names): ${missing[*]}; install them with this system's package manager" >&2
    exit 1
fi
as_root=()
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || { echo "missing: ${missing[*]}; neither root nor sudo here: apt-get install them first" >&2; exit 1; }
    as_root=(sudo)
fi
"${as_root[@]}" apt-get update -qq || [ "${#missing[@]}" -eq 0 ] || exit 1
clang=$(clang_version || true)
missing=("${missing[@]//@/$clang}")
echo "installing: ${missing[*]} ${wanted[*]}"
install_packages() {
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}
if [ "${#missing[@]}" -gt 0 ]; then
    install_packages "${missing[@]}"
    installed=${missing[*]}
    look "$@"
    [ "${#missing[@]}" -eq 0 ] || {
        echo "installed $installed, and still missing (@: clang's version): ${missing[*]}" >&2
        exit 1
    }
fi
[ "${#wanted[@]}" -eq 0 ] || install_packages "${wanted[@]}" || do_without
