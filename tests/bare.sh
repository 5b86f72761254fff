#!/usr/bin/env bash
# The README's two commands on bare Debian machines: debootstraps each release with git and make and
# nothing else (and sudo, for the user who needs it), clones HEAD into a folder with a space in its name,
# runs the commands there, and prints what passed, the seconds and what was installed. To be run before
# each release, as root, on any Debian machine that has debootstrap; it changes nothing outside a
# temporary folder and build/bare.
#
# usage: tests/bare.sh [OPTIONS] [COMMAND...]      commands: 'make run' 'make test', one after the other
#   --release 12|13|NAME   Debian release; may be repeated [12 and 13]
#   --user root|sudo       who runs them: root, or a user with sudo; may be repeated [both]
#   --mirror URL           of Debian's archive [the one that apt uses here]
#   --keep                 leave the systems where they are
# TMPDIR is where the systems go: 4 GB each, one at a time. Logs: build/bare/RELEASE-USER-*.log.
#
# Mirror, proxies, local certificates and pip's settings are those of this machine. The systems live in
# namespaces of their own: what is mounted in them and what runs in them is gone when the command ends.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
logs=$here/build/bare
place="a folder/vae" # below the home folder
pass=(http_proxy https_proxy ftp_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY)
certificates=(PIP_CERT SSL_CERT_FILE REQUESTS_CA_BUNDLE CURL_CA_BUNDLE) # variables that name a file

die() {
    echo "bare: $*" >&2
    exit 2
}

releases=() users=() commands=() mirror='' keep=0
while [ $# -gt 0 ]; do
    case "$1" in
    --release) releases+=("${2:?}"); shift ;;
    --user) users+=("${2:?}"); shift ;;
    --mirror) mirror=${2:?}; shift ;;
    --keep) keep=1 ;;
    -h | --help) sed -n '2,/^set/s/^# \{0,1\}//p' "$0"; exit 0 ;;
    -*) die "$1: unknown (--help lists the options)" ;;
    *) commands+=("$1") ;;
    esac
    shift
done
[ "${#releases[@]}" -gt 0 ] || releases=(12 13)
[ "${#users[@]}" -gt 0 ] || users=(root sudo)
[ "${#commands[@]}" -gt 0 ] || commands=("make run" "make test")
for user in "${users[@]}"; do
    case "$user" in root | sudo) ;; *) die "--user $user: expected root or sudo" ;; esac
done
[ "$(id -u)" -eq 0 ] || die "debootstrap and mounts need root"
command -v debootstrap >/dev/null || die "debootstrap is not installed"

# ---- this machine's mirrors: what apt knows of its package lists ----
lists() { # LABEL: "URI CODENAME KEYRING" of the lists that Debian's archive of that label has here
    # shellcheck disable=SC2016 # apt's variables
    apt-get indextargets --format '$(LABEL)|$(REPO_URI) $(CODENAME) $(SIGNED_BY)' 'Created-By: Packages' \
        2>/dev/null | sed -n "s/^$1|//p"
}
read -r found _ keyring < <(lists Debian) || found='' keyring=''
read -r security _ < <(lists Debian-Security) || security=''
mirror=${mirror:-$found}
[ -n "$mirror" ] || die "apt knows no mirror of Debian here: run apt-get update, or name one with --mirror"
[ -f "$keyring" ] || keyring=''

# ---- one system ----
base='' child=''
leave() { # ends what runs, removes the system; never across a mount
    [ -z "$child" ] || { kill -KILL "$child" && wait "$child"; } 2>/dev/null || true # unshare ignores TERM
    if [ -n "$base" ] && [ "$keep" -eq 0 ]; then
        if grep -qF " $base" /proc/self/mountinfo; then
            echo "bare: something is mounted below $base: left there" >&2
        else
            rm -rf --one-file-system "$base"
        fi
    fi
    base=''
}
trap leave EXIT
trap 'leave; exit 130' INT TERM HUP

waited() { # COMMAND...: runs it so that a signal to this script is answered at once
    local rc=0
    "$@" &
    child=$!
    wait "$child" || rc=$?
    child=''
    return "$rc"
}
same_file() { # FILE: into the system, by the same name, unless it has one
    [ ! -f "$1" ] || [ -e "$root$1" ] || install -D -m 644 "$1" "$root$1"
}
bootstrap() { # CODENAME PACKAGES
    waited unshare --mount --propagation private \
        debootstrap --variant=minbase --include="$2" ${keyring:+--keyring="$keyring"} "$1" "$root" "$mirror"
}
prepare() { # CODENAME: this machine's settings for apt, pip and certificates; the user; the commit
    local by=${keyring:+"[signed-by=$keyring] "} file name
    {
        echo "deb $by$mirror $1 main"
        [ -z "$found" ] || ! lists Debian | grep -q -- '-updates ' || echo "deb $by$mirror $1-updates main"
        [ -z "$security" ] || echo "deb $by$security $1-security main"
    } >"$root/etc/apt/sources.list"
    [ -z "$keyring" ] || same_file "$keyring"
    apt-config dump | grep -E '^Acquire::(https?|ftp|Retries|Check-|ForceIP)' |
        grep -viE 'auto-?detect' >"$root/etc/apt/apt.conf.d/00host" || true
    for file in /usr/local/share/ca-certificates/*.crt; do
        [ ! -e "$file" ] || { same_file "$file"; same_file /etc/ssl/certs/ca-certificates.crt; }
    done
    case "$mirror" in https:*) same_file /etc/ssl/certs/ca-certificates.crt ;; esac
    settings=()
    for name in "${pass[@]}" $(compgen -v PIP_) "${certificates[@]}"; do
        [ -z "${!name:-}" ] || settings+=("$name=${!name}")
    done
    for name in "${certificates[@]}"; do
        same_file "${!name:-}"
    done
    cat /etc/hosts >"$root/etc/hosts"
    printf '127.0.0.1 localhost %s\n' "$(hostname)" >>"$root/etc/hosts"
    if [ "$user" = sudo ]; then
        home=/home/tester
        chroot "$root" useradd --create-home --shell /bin/bash tester
        printf 'tester ALL=(ALL) NOPASSWD: ALL\nDefaults env_keep += "%s"\n' "${pass[*]}" \
            >"$root/etc/sudoers.d/tester"
    else
        home=/root
    fi
    same_file /etc/pip.conf
    for file in .pip/pip.conf .config/pip/pip.conf; do
        [ ! -f "$HOME/$file" ] || install -D -m 644 "$HOME/$file" "$root$home/$file"
    done
    git -c safe.directory='*' -C "$here" bundle create -q "$root$home/head.bundle" HEAD
    [ "$user" = root ] || chroot "$root" chown -R tester: "$home"
}

enter() { # ROOT COMMAND...: PID 1 of new namespaces; its devices are the harmless ones alone
    local root=$1 name
    shift
    mount --bind "$root" "$root"
    cd "$root"
    mount -t proc proc proc
    mount -t sysfs -o ro sysfs sys
    mount -t tmpfs -o mode=755 tmpfs dev
    for name in null zero full random urandom tty; do
        : >"dev/$name"
        mount --bind "/dev/$name" "dev/$name"
    done
    mkdir dev/pts dev/shm
    mount -t devpts -o newinstance,ptmxmode=666,mode=620 devpts dev/pts
    mount -t tmpfs -o mode=1777 tmpfs dev/shm
    ln -s pts/ptmx dev/ptmx
    ln -s /proc/self/fd dev/fd
    ln -s fd/0 dev/stdin
    ln -s fd/1 dev/stdout
    ln -s fd/2 dev/stderr
    # not chroot: in a chroot, Chromium may not make the namespaces of its sandbox
    pivot_root . mnt
    cd /
    umount -l /mnt
    "$@" # not exec: a change of user would part it from the parent whose end ends it
}
inside() { # WHO SCRIPT ARGUMENT...: a shell script in the system, as root or as the user with sudo
    local as=(env) name=root
    [ "$1" = root ] || { as=(setpriv --reuid tester --regid tester --init-groups) name=tester; }
    waited unshare --mount --pid --fork --kill-child --propagation private \
        bash -euc "$(declare -f enter)"'; enter "$@"' enter "$root" \
        "${as[@]}" env -i "${settings[@]}" HOME="$home" USER=$name LOGNAME=$name TERM=dumb \
        PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin bash -ec "${@:2}" </dev/null
}
packages() { # "number kilobytes" of the packages that the system has
    # shellcheck disable=SC2016 # dpkg's variable
    dpkg-query --admindir="$root/var/lib/dpkg" -W -f '${Installed-Size}\n' | awk '{n++; kb += $1} END {print n, kb}'
}

# ---- the table ----
mkdir -p "$logs"
commit=$(git -c safe.directory='*' -C "$here" describe --always --dirty)
case "$commit" in *-dirty) echo "note: what is not committed is not tested" ;; esac
echo "commit ${commit%-dirty}, $(nproc) cores ($(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -n 1))"
row='%-9s %-5s %-26s %-7s %6s  %-22s %s\n'
# shellcheck disable=SC2059 # the format is the line above
say() { printf "$row" "$@"; }
say release user command result secs "packages" "closing line"
bad=0 footnotes=()
try() { # RELEASE CODENAME: one user's commands
    local command n=0 rc=0 begin before after warned log pip
    rm -f "$logs/$1-$user-"*.log
    base=$(mktemp -d "${TMPDIR:-/tmp}/vae-bare.XXXXXX")
    chmod 755 "$base"
    root=$base/root
    log=$logs/$1-$user-bootstrap.log
    begin=$SECONDS
    bootstrap "$2" "git,make$([ "$user" = root ] || echo ,sudo)" >"$log" 2>&1 || rc=$?
    if [ "$rc" -ne 0 ]; then
        say "$1" "$user" "(debootstrap)" FAILED $((SECONDS - begin)) "" "$(tail -n 1 "$log")"
        bad=$((bad + 1))
        leave
        return
    fi
    prepare "$2"
    # shellcheck disable=SC2016 # for the shell inside
    inside "$user" 'mkdir -p "$HOME/${1%/*}" && git clone -q "$HOME/head.bundle" "$HOME/$1"' clone "$place" >>"$log" 2>&1
    say "$1" "$user" "(debootstrap)" "" $((SECONDS - begin)) "$(packages | awk '{printf "%d, %d MB", $1, $2 / 1024}')" ""
    for command in "${commands[@]}"; do
        n=$((n + 1)) rc=0 begin=$SECONDS before=$(packages)
        log=$logs/$1-$user-$n-${command//[^A-Za-z0-9_-]/_}.log
        # shellcheck disable=SC2016 # for the shell inside
        inside "$user" 'cd "$HOME/$1" && eval "$2"' run "$place" "$command" >"$log" 2>&1 || rc=$?
        after=$(packages) warned=$(grep -cE '(: |^)warning: ' "$log") || true
        [ "$rc" -eq 0 ] || bad=$((bad + 1))
        say "$1" "$user" "$command" "$([ "$rc" -eq 0 ] && echo passed || echo "FAILED")" $((SECONDS - begin)) \
            "$(echo "$before $after" | awk '{printf "+%d, +%d MB", $3 - $1, ($4 - $2) / 1024}')" \
            "$([ "$rc" -eq 0 ] || echo "exit $rc: ")$(grep -v '^ *$' "$log" | tail -n 1 | cut -c1-70)$([ "$warned" -eq 0 ] || echo " ($warned warnings)")"
    done
    footnotes+=("$1, $user, by name: $(sed -n 's/^installing: *//p' "$logs/$1-$user-"[0-9]*.log | tr -s '\n ' ' ')")
    # shellcheck disable=SC2016 # for the shell inside
    pip=$(inside "$user" '"$1" -m pip list --format=freeze' list "$home/$place/build/venv/bin/python" 2>/dev/null) || pip=''
    footnotes+=("$1, $user, by pip: ${pip//$'\n'/ }; the source folder takes $(du -sm "$root$home/$place" | cut -f1) MB")
    if [ "$keep" -eq 1 ]; then
        footnotes+=("$1, $user: kept in $root")
    fi
    leave
}
for release in "${releases[@]}"; do
    case "$release" in
    11) codename=bullseye ;;
    12) codename=bookworm ;;
    13) codename=trixie ;;
    14) codename=forky ;;
    *) codename=$release ;;
    esac
    for user in "${users[@]}"; do
        try "$release" "$codename"
    done
done
[ "${#footnotes[@]}" -eq 0 ] || printf '%s\n' "${footnotes[@]}"
echo "logs: $logs"
if [ "$bad" -eq 0 ]; then
    echo "all passed"
else
    echo "$bad failed"
    exit 1
fi
