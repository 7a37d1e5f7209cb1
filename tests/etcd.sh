#!/usr/bin/env bash
# The demo's faults with a real etcd in the witness's place, and an etcd of three members by TLS. Needs etcd (Debian:
# etcd-server) beside what the demo needs.
# Usage: tests/etcd.sh path/to/hawser [repeat]
set -euo pipefail
hawser=$(realpath "${1:?path to the hawser binary}")
etcd=${HAWSER_ETCD:-$(command -v etcd)} || { echo 'no etcd here: install etcd-server, or set HAWSER_ETCD' >&2; exit 1; }
cd "$(dirname "$0")/.."
told=$(mktemp)
trap 'rm -f "$told"' EXIT
"$hawser" demo --etcd "$etcd" --repeat "${2:-1}" --json \
    --fault worker-kill --fault freeze --fault both-kill --fault cable --fault split --fault witness-kill \
    --fault switchover >"$told" || late=1
grep -E '"fault":|"(outage_ms|double_ms)": [0-9]|"error":' "$told"
runs=$(grep -cE '"double_ms": [0-9]' "$told")
never=$(grep -cE '"double_ms": 0(\.0)?,?$' "$told")
if [ "$runs" -lt 7 ] || [ "$runs" != "$never" ]; then
    echo "$never of $runs runs without two answers, of 7 at least" >&2
    exit 1
fi
if grep -q '"error": "' "$told"; then exit 1; fi
echo "$runs runs with a real etcd, never two answers${late:+; some promise in milliseconds was not kept}"

HAWSER_ETCD=$etcd cargo test --locked --test e2e etcd:: -- --ignored --test-threads=1 | tee "$told"
# A filter that finds nothing passes, too.
grep -q '^test result: ok. 2 passed' "$told" || { echo 'the tests with three members by TLS did not run' >&2; exit 1; }
