#!/bin/bash
# FreeRDP 3 beside the FreeRDP 2 of Debian 12, without installing anything: the client, the shadow
# server and the proxy from Debian's backports, unpacked into DIR/root by apt's own configuration
# (its mirror, its keys). Where the release has FreeRDP 3 already, its packages are taken.
#   scripts/freerdp3.sh DIR     prints DIR/root; run its programs with LD_LIBRARY_PATH=
#                               DIR/root/usr/lib/TRIPLET. Ends with 1 when they cannot be had.
# The second call finds what the first one fetched. Tests and the benchmark call it.
set -euo pipefail

PACKAGES=(freerdp3-x11 freerdp3-shadow-x11 freerdp3-proxy freerdp3-proxy-modules winpr3-utils)

fail() {
    echo "freerdp3: $*" >&2
    exit 1
}

[ $# -eq 1 ] || { echo "usage: scripts/freerdp3.sh DIR" >&2; exit 2; }
mkdir -p "$1"
dir=$(cd "$1" && pwd)
exec 9>"$dir/lock"
flock 9
if [ -e "$dir/done" ]; then
    echo "$dir/root"
    exit 0
fi
if ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null; then fail "no apt here"; fi
# shellcheck source=/dev/null
. /etc/os-release
codename=${VERSION_CODENAME-}
suite=$codename
if [ "${VERSION_ID-}" = 12 ]; then suite=$codename-backports; fi
# shellcheck disable=SC2016 # apt fills it in
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' "Codename: $codename" \
    'Origin: Debian' | head -n 1)
[ -n "$mirror" ] || fail "apt knows no archive of Debian $codename"

mkdir -p "$dir/lists/partial" "$dir/archives/partial"
printf 'deb %s %s main\n' "$mirror" "$codename" "$mirror" "$suite" >"$dir/sources.list"
apt=(-q -o "Dir::Etc::SourceList=$dir/sources.list" -o Dir::Etc::SourceParts=/dev/null
    -o "Dir::State::Lists=$dir/lists" -o "Dir::Cache::Archives=$dir/archives"
    -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= -o Debug::NoLocking=true
    -o APT::Install-Recommends=false -o APT::Sandbox::User= -o Acquire::Languages=none
    -o Acquire::Retries=1 -o Acquire::http::Timeout=20)
apt-get "${apt[@]}" update >"$dir/log" 2>&1 || fail "the lists cannot be had; see $dir/log"
apt-get "${apt[@]}" install -y --download-only --reinstall -t "$suite" \
    "${PACKAGES[@]}" >>"$dir/log" 2>&1 || fail "the packages cannot be had; see $dir/log"
for package in "$dir"/archives/*.deb; do
    dpkg-deb -x "$package" "$dir/root"
done
rm -rf "$dir/lists" "$dir/archives"
touch "$dir/done"
echo "$dir/root"
