#!/usr/bin/env bash
# A Debian package of what `make install` installs, as $BUILD/vae_VERSION_ARCH.deb: `make deb` runs it.
# Wants dpkg-dev and gzip; lintian looks at the result where it is installed, and its errors are ours.
#   BUILD VERSION SOVERSION MAKE
#   DEBFULLNAME, DEBEMAIL   its maintainer [the author of the last commit]
set -euo pipefail
cd "$(dirname "$0")/.."
arch=$(dpkg --print-architecture)
triple=$(dpkg-architecture -qDEB_HOST_MULTIARCH) # where libraries of that architecture go
file=$BUILD/vae_${VERSION}_$arch.deb
name=${DEBFULLNAME:-$(git log -1 --format=%an 2>/dev/null || echo vae)}
who="$name <${DEBEMAIL:-$(git log -1 --format=%ae 2>/dev/null || echo vae@example.org)}>"
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
root=$stage/vae
umask 022
"$MAKE" --no-print-directory install DESTDIR="$root" PREFIX=/usr LIBDIR="/usr/lib/$triple" \
    PYTHONDIR=/usr/lib/python3/dist-packages BUILD="$BUILD" >/dev/null
gzip -9n "$root"/usr/share/man/man1/*.1
sed -i 's| -L[^ ]*/cuda[^ ]*||g' "$root/usr/lib/$triple/pkgconfig/libvae.pc" # where a toolkit is, differs
strip --strip-unneeded --remove-section=.comment --remove-section=.note "$root/usr/bin/vae" \
    "$root/usr/lib/$triple/libvae.so.$VERSION"
strip --strip-debug "$root/usr/lib/$triple/libvae.a"
chmod 644 "$root/usr/lib/$triple/libvae.so.$VERSION"

doc=$root/usr/share/doc/vae overrides=$root/usr/share/lintian/overrides
mkdir -p "$doc" "$overrides" "$root/DEBIAN" "$stage/debian"
cat >"$overrides/vae" <<'EOF'
# program, library and headers are one package: they are of one version, always
vae: link-to-shared-library-in-wrong-package
vae: package-name-doesnt-match-sonames
EOF
{
    echo "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/"
    printf '\nFiles: *\nCopyright: %s\nLicense: Expat\n' "$(sed -n 's/^Copyright (c) //p' LICENSE)"
    sed -e '1,/^Copyright/d' -e '/./,$!d' -e 's/^$/./' -e 's/^/ /' LICENSE
} >"$doc/copyright"
{
    printf 'vae (%s) unstable; urgency=medium\n\n  * Built from commit %s.\n\n' "$VERSION" \
        "$(git describe --always --dirty 2>/dev/null || echo unknown)"
    printf ' -- %s  %s\n' "$who" "$(git log -1 --format=%aD 2>/dev/null || date -R)"
} | gzip -9n >"$doc/changelog.gz"

# what the program and the library are linked with, as packages
printf 'Source: vae\n\nPackage: vae\nArchitecture: %s\n' "$arch" >"$stage/debian/control"
depends=$(cd "$stage" && dpkg-shlibdeps -O --ignore-missing-info "vae/usr/bin/vae" \
    "vae/usr/lib/$triple/libvae.so.$VERSION" 2>/dev/null | sed -n 's/^shlibs:Depends=//p')
cat >"$root/DEBIAN/control" <<EOF
Package: vae
Version: $VERSION
Architecture: $arch
Maintainer: $who
Installed-Size: $(du -sk --exclude=DEBIAN "$root" | cut -f1)
Depends: $depends, python3:any
Recommends: python3-numpy
Section: science
Priority: optional
Description: trains variational autoencoders
 A trainer of variational autoencoders on NVIDIA GPUs and CPUs: the program
 vae, the library libvae for C and the module vae for Python. Trained models
 generate, reconstruct, score and classify, and go to PyTorch, NumPy and ONNX.
EOF
echo "libvae $SOVERSION vae (>= $VERSION)" >"$root/DEBIAN/shlibs"
echo "activate-noawait ldconfig" >"$root/DEBIAN/triggers"
(cd "$root" && find usr -type f -print0 | sort -z | xargs -0 md5sum) >"$root/DEBIAN/md5sums"
chmod -R u+rwX,go+rX,go-w "$root"
dpkg-deb --root-owner-group --build "$root" "$file" >/dev/null
if command -v lintian >/dev/null; then
    lintian --fail-on error "$file"
fi
echo "  DEB   $file"
