#!/usr/bin/env bash
# `make install` into an empty folder with a space in its name, then what a stranger does with it:
# compile the example against the shared and the static library by pkg-config alone, include the header
# from C++, use the Python module. Nothing of this repository but the installed files is seen.
#   BUILD   build folder [build]
# The last line is `N passed, N failed, N skipped`.
set -u
cd "$(dirname "$0")/../.." || exit 1
repository=$PWD
build=${BUILD:-build}
as_given=$build # another spelling of it would build all anew
mkdir -p "$build"
stage=$(mktemp -d "$(cd "$build" && pwd)/a stage.XXXXXX")
trap 'rm -rf "$stage"' EXIT
passed=0 failed=0 skipped=0 flags=()
export PKG_CONFIG_PATH=$stage/lib/pkgconfig OMP_NUM_THREADS=1
cc=${CC:-gcc}

check() { # WHAT COMMAND...
    local what=$1 log
    shift
    if log=$("$@" 2>&1); then
        passed=$((passed + 1))
        echo "$what: passed"
    else
        failed=$((failed + 1))
        printf 'FAILED: %s\n%s\n' "$what" "$log"
    fi
}
words() { # pkg-config's answer, in which a space of a path is escaped as for a shell, into `flags`
    eval "flags=($(pkg-config "$@" libvae))"
}
staged() { # DESTDIR goes before PREFIX, and not into the pkg-config file
    "${MAKE:-make}" --no-print-directory install DESTDIR="$stage/dest dir" PREFIX="/opt/a b" BUILD="$build" &&
        cmp include/vae.h "$stage/dest dir/opt/a b/include/vae.h" &&
        grep -qx 'prefix=/opt/a b' "$stage/dest dir/opt/a b/lib/pkgconfig/libvae.pc" &&
        rm -r "$stage/dest dir" && [ ! -e "$stage/dest" ]
}
uninstalled() { # nothing stays but folders and what this script put there; of Python's either
    env -u PYTHONDONTWRITEBYTECODE -u PYTHONPYCACHEPREFIX \
        python3 -m py_compile "$(find "$stage" -name vae.py)" || return
    [ -n "$(find "$stage" -name 'vae.*.pyc')" ] || return
    "${MAKE:-make}" --no-print-directory -C "$repository" uninstall PREFIX="$stage" BUILD="$as_given" || return
    find "$stage/bin" "$stage/include" "$stage/lib" "$stage/share" ! -type d | grep . && return 1 || return 0
}
names() { # the functions that vae.h declares, whichever way it is laid out
    printf '#include "%s"' "$stage/include/vae.h" | "$cc" -E -P -xc - | tr '\n;' ' \n' |
        grep -v typedef | grep -oE '\bvae_[a-z_]+ *\(' | tr -d ' (' | sort
}
same_names() { # NM_OPTIONS... FILE: it exports those and no others
    diff <(names) <(nm --defined-only "$@" | awk 'NF == 3 && $2 != "A" {sub("@.*", "", $3); print $3}' | sort)
}

tests/roundtrip/readers.sh >/dev/null # for the Python example
check "make install" "${MAKE:-make}" --no-print-directory install PREFIX="$stage" BUILD="$build"
if [ "$failed" -ne 0 ]; then
    echo "0 passed, 1 failed, 0 skipped"
    exit 1
fi
check "make install DESTDIR" staged
cp tests/roundtrip/example_c/example.* "$stage/" && cd "$stage" || exit 1
check "vae.h's functions are exported, and no others" same_names -D "$stage/lib/libvae.so"
check "the static library hides the rest" same_names -g "$stage/lib/libvae.a"
words --cflags --libs
check "example, shared: compile" "$cc" -std=c11 -Wall -Wextra -Wpedantic -Werror example.c -o shared \
    "${flags[@]}" -lm "-Wl,-rpath,$stage/lib"
check "example, shared: run" ./shared model.safetensors
words --cflags
cflags=("${flags[@]}")
words --static --libs
static=() # the archive itself in the place of -lvae, or the linker takes the shared one
for flag in "${flags[@]}"; do
    [ "$flag" = -lvae ] && flag=$stage/lib/libvae.a
    static+=("$flag")
done
check "example, static: compile" "$cc" -std=c11 example.c -o static "${cflags[@]}" "${static[@]}"
check "example, static: run" ./static model.npz
check "example, static: needs no libvae.so" bash -c '! ldd ./static | grep libvae'
printf '#include <vae.h>\nint main() { vae_free(vae_new()); }\n' >header.cpp
words --cflags --libs
check "header in C++: compile" "${CXX:-g++}" -std=c++11 -Wall -Wextra -Wpedantic -Werror header.cpp -o cpp \
    "${flags[@]}" "-Wl,-rpath,$stage/lib"
check "header in C++: run" ./cpp
check "the program: run" bin/vae --version
complete_to() { # WORDS... EXPECTED: what bash offers for the last of the words
    local offered
    offered=$(bash -c '. "$1/share/bash-completion/completions/vae" && COMP_WORDS=("${@:2}") &&
        COMP_CWORD=$((${#COMP_WORDS[@]} - 1)) && _vae && echo "${COMPREPLY[*]}"' - "$stage" "${@:1:$#-1}")
    [ "$offered" = "${!#}" ] || {
        echo "offered: $offered"
        return 1
    }
}
touch "a model.npz"
check "completion: a command" complete_to vae tra "train traverse"
check "completion: an option" complete_to vae sample r --tem --temperature
check "completion: a choice" complete_to vae train --likelihood gaussian-l gaussian-learned
check "completion: a choice behind =" complete_to vae train --objective = "" "elbo iwae dreg stl"
check "completion: a choice or a file" complete_to vae complete --mask a "a model.npz"
check "completion: a file" complete_to vae info "a m" "a model.npz"
pages() { # every command has a page, which man reads without a complaint
    local page
    [ "$(find share/man/man1 -name '*.1' | wc -l)" -eq "$(($(bin/vae help | grep -c '^  [a-z]* .*[.]$') ))" ] ||
        return
    for page in share/man/man1/*.1; do
        [ -z "$(man --warnings -l "$page" 2>&1 >/dev/null)" ] || return
    done
    man -l share/man/man1/vae-train.1 | grep -q -- '--likelihood'
}
if command -v man >/dev/null; then
    check "man pages" pages
else
    skipped=$((skipped + 1))
    echo "SKIPPED: man pages: no man here (Debian: man-db)"
fi
case "$build" in /*) ;; *) build=$repository/$build ;; esac
python=$build/venv/bin/python
[ -x "$python" ] || python=python3
if "$python" -c 'import numpy' 2>/dev/null; then
    module=$(find "$stage" -name vae.py -printf '%h')
    log=$("$python" "$repository/tests/roundtrip/check_python.py" "$module" 2>&1)
    printf '%s\n' "$log" | sed '$d'
    last=$(printf '%s\n' "$log" | tail -n 1)
    if [[ $last =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed,\ ([0-9]+)\ skipped$ ]]; then
        passed=$((passed + BASH_REMATCH[1])) failed=$((failed + BASH_REMATCH[2]))
        skipped=$((skipped + BASH_REMATCH[3]))
    else
        failed=$((failed + 1))
        printf 'FAILED: the Python module: no last line\n%s\n' "$last"
    fi
else
    skipped=$((skipped + 1))
    echo "SKIPPED: the Python module: numpy is not installed (tests/roundtrip/readers.sh installs it)"
fi
check "make uninstall" uninstalled
package() { # dpkg takes it in and away again, in a root of its own
    local root=$stage/root deb
    (cd "$repository" && "${MAKE:-make}" --no-print-directory deb BUILD="$as_given") || return
    deb=$(ls "$build"/vae_*.deb) || return
    mkdir -p "$root/var/lib/dpkg/info" "$root/var/lib/dpkg/updates" && : >"$root/var/lib/dpkg/status"
    dpkg --root="$root" --force-not-root --force-depends --log=/dev/null -i "$deb" || return
    [ -x "$root/usr/bin/vae" ] && "$root/usr/bin/vae" --version &&
        zgrep -q 'likelihood' "$root/usr/share/man/man1/vae-train.1.gz" &&
        grep -q '^Depends:.*libc6.*libjansson4' <(dpkg-deb -f "$deb") || return
    dpkg --root="$root" --force-not-root --log=/dev/null -P vae || return
    find "$root" ! -type d ! -path '*/var/lib/dpkg/*' | grep . && return 1 || return 0
}
if command -v dpkg-shlibdeps >/dev/null; then
    check "make deb" package
else
    skipped=$((skipped + 1))
    echo "SKIPPED: make deb: no dpkg-shlibdeps here (Debian: dpkg-dev)"
fi
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
