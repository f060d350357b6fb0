#!/usr/bin/env bash
# The benchmark: builds optimised, then measures against haproxy, ssh -J, a plain TLS relay,
# freerdp3-proxy and a direct connection in one run (tests/bench/bench.py). Ends with 1 when a figure
# misses its limit.
#   scripts/bench.sh [--quick] [NAME ...]     names: bulk jumps recorded echo logins storms silent idle
#                                             rdp rdp-first-pixel rdp-memory rdp-input rdp-logins
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/deps.sh bench
build=${SALLYPORT_BENCH_BUILD:-build-bench}
cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo -DSALLYPORT_TESTS=OFF >/dev/null
cmake --build "$build" >/dev/null
SALLYPORT_BUILD=$build exec /usr/bin/python3 tests/bench/bench.py "$@"
