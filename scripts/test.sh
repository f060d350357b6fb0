#!/bin/bash
# Installs what the tests need, builds, and runs every test through ctest, in a plain tree and in
# one with AddressSanitizer and UBSan. Ends with ctest's own summary; leaves with its status.
set -euo pipefail
umask 022
export PATH="$PATH:/usr/sbin:/sbin"
repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/deps.sh
. "$repo/scripts/deps.sh"

usage() {
    cat <<'END'
usage: scripts/test.sh [--no-install] [--plain] [--build DIR] [CTEST OPTION...]
  --no-install  do not install packages; name what is missing and stop
  --plain       only the plain tree: no second compiler, no sanitizers
  --build DIR   build below DIR (default: ./build)
  Everything else goes to ctest: -R e2e, -L unit, --rerun-failed, ...
SALLYPORT_TEST_JOBS says how many tests run at a time (default: one a processor).
END
}

install=yes
trees=(plain sanitize)
build=$repo/build
while [ $# -gt 0 ]; do
    case $1 in
    --no-install) install=no ;;
    --plain) trees=(plain) ;;
    --build)
        [ $# -ge 2 ] || { usage >&2; exit 2; }
        build=$2
        shift
        ;;
    -h | --help) usage; exit 0 ;;
    *) break ;;
    esac
    shift
done
jobs=${SALLYPORT_TEST_JOBS:-$(nproc)}

deps_install "$install" "${DEPS_BUILD[@]}" "${DEPS_TEST[@]}"
mkdir -p "$build"
build=$(cd "$build" && pwd)

# Warnings are errors with the compilers that we know; a newer one may have new ideas.
werror=OFF
if grep -qsE '^VERSION_ID="1[23]"' /etc/os-release; then werror=ON; fi
launcher=()
if command -v ccache >/dev/null; then launcher=(-DCMAKE_C_COMPILER_LAUNCHER=ccache); fi

# make_tree NAME CMAKE OPTION...: configures and builds $build/test-NAME.
make_tree() {
    local name=$1 tree=$build/test-$1
    shift
    echo "== building $name in $tree"
    cmake -S "$repo" -B "$tree" -G Ninja "${launcher[@]}" -DSALLYPORT_WERROR=$werror "$@" \
        >"$tree.log" 2>&1 || { cat "$tree.log" >&2; exit 1; }
    cmake --build "$tree" || exit 1
}

# The tests of all trees are one run, so that there is one summary. A test of the second tree has
# the same name as in the first; its output names the tree.
for name in "${trees[@]}"; do
    case $name in
    plain) make_tree plain -DSALLYPORT_TESTS=ON ;;
    sanitize) make_tree sanitize -DSALLYPORT_TESTS=ON -DSALLYPORT_SANITIZE=ON ;;
    esac
done
if [ ${#trees[@]} -gt 1 ] && command -v clang >/dev/null; then
    make_tree clang -DSALLYPORT_TESTS=OFF -DCMAKE_C_COMPILER=clang
fi

mkdir -p "$build/test"
for name in "${trees[@]}"; do
    echo "subdirs(\"$build/test-$name\")"
done >"$build/test/CTestTestfile.cmake"
cd "$build/test"
exec ctest --output-on-failure --parallel "$jobs" "$@"
