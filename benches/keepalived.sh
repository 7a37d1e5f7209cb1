#!/usr/bin/env bash
# hawser beside keepalived from the distribution: for each fault, how long the address is dark and how long both nodes
# answer for it. Root, for keepalived must be; eleven minutes; everything happens in network namespaces.
#
#   benches/keepalived.sh [--repeat N] [--fault NAME]...
set -euo pipefail
cd "$(dirname "$0")/.."
if [ "$(id -u)" != 0 ]; then
    echo 'keepalived needs root: run this as root' >&2
    exit 1
fi
if ! command -v keepalived >/dev/null; then
    echo 'keepalived is missing here: install the package keepalived (Debian: apt-get install keepalived)' >&2
    exit 1
fi
keepalived --version 2>&1 | sed -n 1p
echo "$(nproc) processors, $(uname -sr)"
exec cargo bench --locked --quiet --bench keepalived -- --keepalived "$(command -v keepalived)" "$@"
