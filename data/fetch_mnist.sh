#!/bin/sh
# Fetches MNIST (LeCun, Cortes, Burges) into data/mnist/, or into the folder given as argument.
#
# usage: data/fetch_mnist.sh [FOLDER]
#
# VAE_MNIST_MIRROR=URL asks this place only, instead of the mirrors below. file:///path works too,
# where curl is there.
#
# Exit status: 0 all four files are there and right; 1 they are not, and it says what to do.
set -eu

mirrors='https://ossci-datasets.s3.amazonaws.com/mnist
https://storage.googleapis.com/cvdf-datasets/mnist'

# SHA-256 of what each file unpacks to, not of the .gz: mirrors and archives pack the same data
# differently, and what is trained on is the unpacked data.
files='train-images-idx3-ubyte ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db
train-labels-idx1-ubyte 65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5
t10k-images-idx3-ubyte 0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7
t10k-labels-idx1-ubyte ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2'

case ${1-} in
-h | --help)
    sed -n '2,9s/^# \{0,1\}//p' "$0"
    exit 0
    ;;
esac

folder=${1:-$(dirname -- "$0")/mnist}

say() {
    printf '%s\n' "fetch_mnist: $*" >&2
}

# SHA-256 of stdin
digest() {
    if command -v sha256sum >/dev/null 2>&1; then
        sha256sum | cut -d ' ' -f 1
    else
        shasum -a 256 | cut -d ' ' -f 1
    fi
}

# is_right FILE SHA256: FILE is there, unpacks without complaint, to the data expected. gzip -t
# first, as a pipe hides gzip's exit status.
is_right() {
    [ -f "$1" ] && gzip -t <"$1" 2>/dev/null && [ "$(gzip -dc <"$1" | digest)" = "$2" ]
}

# download URL FILE
download() {
    if command -v curl >/dev/null 2>&1; then
        curl -fsSL --connect-timeout 15 --retry 2 -o "$2" "$1"
    elif command -v wget >/dev/null 2>&1; then
        wget -q -T 30 -t 3 -O "$2" "$1"
    else
        say 'neither curl nor wget is there'
        return 1
    fi
}

# fetch NAME SHA256: tries each mirror in turn; the file appears only once it is checked.
fetch() {
    for mirror in ${VAE_MNIST_MIRROR:-$mirrors}; do
        if download "${mirror%/}/$1.gz" "$part"; then
            if is_right "$part" "$2"; then
                chmod 644 "$part"
                mv -f "$part" "$folder/$1.gz"
                return 0
            fi
            say "$1.gz: what $mirror sent has another SHA-256 than MNIST's; dropped"
        fi
    done
    return 1
}

explain() {
    say "$1.gz: could not be had. Without a network:"
    cat >&2 <<END
  1. On a machine that has one, download these four files
       train-images-idx3-ubyte.gz  train-labels-idx1-ubyte.gz
       t10k-images-idx3-ubyte.gz   t10k-labels-idx1-ubyte.gz
     from one of
$(printf '%s\n' "$mirrors" | sed 's/^/       /')
  2. Put them into
       $(cd -- "$folder" && pwd)
     and run this script again: it checks them and fetches nothing.
  Or, where MNIST is already somewhere (torchvision's folder will do): vae train --data DIR
  Or train on the built-in set, which needs no files: vae train --data digits
END
}

for tool in gzip mktemp; do
    command -v "$tool" >/dev/null 2>&1 || {
        say "$tool is not there; install it and run this again"
        exit 1
    }
done

mkdir -p -- "$folder"
part=$(mktemp "$folder/.fetch.XXXXXX")
trap 'rm -f -- "$part"' EXIT
trap 'exit 1' HUP INT TERM

while read -r name sum; do
    if is_right "$folder/$name.gz" "$sum"; then
        say "$name.gz: is there"
    elif fetch "$name" "$sum"; then
        say "$name.gz: fetched, SHA-256 is right"
    else
        explain "$name"
        exit 1
    fi
done <<END
$files
END
