#!/usr/bin/env bash
# How much processor an idle cluster costs: the demo's, all of it on this machine. Needs a release build.
#
#   cargo build --release && benches/idle-cpu.sh [SECONDS]
#
# Prints the share of one core of each process (the scheduler's counters, in per cent), and of each of its threads.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-20}
host=$(rustc -vV | sed -n 's/^host: //p')
hawser=target/$host/release/hawser
work=$(mktemp -d)
"$hawser" demo --stay >"$work/demo" 2>&1 &
demo=$!
trap 'kill -INT $demo 2>/dev/null; wait $demo || true; rm -r "$work"' EXIT
for _ in $(seq 100); do
    grep -qs "The cluster stays" "$work/demo" && break
    sleep 0.2
done
sleep 3

tree() {
    echo "$1"
    for child in $(cat /proc/"$1"/task/*/children 2>/dev/null); do tree "$child"; done
}
sample() {
    for pid in $(tree $demo | tail -n +2); do
        words=$(tr '\0' ' ' <"/proc/$pid/cmdline")
        what=$(echo "$words" | sed -E 's/.* (run|worker|witness) .*\/([^/]+)\/[^/]+\.toml.*/\2:\1/')
        case $what in *:*) ;; *) continue ;; esac
        for task in /proc/"$pid"/task/*; do
            echo "$what/$(tr ' ' '_' <"$task/comm")/$(basename "$task") $(cut -d' ' -f1 "$task/schedstat")"
        done
    done | sort
}
sample >"$work/before"
sleep "$seconds"
sample >"$work/after"
join "$work/before" "$work/after" | awk -v s="$seconds" '
    { split($1, part, "/"); share = ($3 - $2) / s / 1e7; sum[part[1]] += share
      if (share >= 0.01) printf "    %-12s %-12s %6.3f %%\n", part[1], part[2], share }
    END { for (p in sum) printf "%-16s              %6.3f %%\n", p, sum[p] }' | sort
