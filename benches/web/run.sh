#!/usr/bin/env bash
# hawser beside nginx and Apache of the distribution: the same files, the same machine, the same run.
#
#   cargo build --release && benches/web/run.sh [static] ...
#   ROUNDS=5 SECONDS_EACH=4 benches/web/run.sh static
#
# The server has one core, the load generator (wrk) another. In each round every server is measured for each row, one after
# the other, so that what disturbs the machine disturbs all; told are medians over the rounds. "cpu ms" is the CPU time of the
# server's processes for 1,000 requests, by the scheduler's own nanosecond counters: it hardly depends on what else runs.
# Ratios are hawser against the best of the others: above 1 hawser is ahead. Everything is on loopback and ends with the script.
#
# Rows: `rows_KIND` prints lines of "name path connections"; `start_SERVER PORT` starts a server of the folder $site and leaves
# its first process in $pid. A further kind (proxy, TLS) is one more of the former and, if need be, of the latter.
set -euo pipefail
cd "$(dirname "$0")/../.."
rounds=${ROUNDS:-3}
seconds=${SECONDS_EACH:-3}
server_core=${SERVER_CORE:-1}
load_core=${LOAD_CORE:-0}
servers=${SERVERS:-hawser nginx nginx-cached apache}
hawser=${HAWSER:-target/$(rustc -vV | sed -n 's/^host: //p')/release/hawser}
modules=/usr/lib/apache2/modules

missing=
for program in wrk nginx apache2 taskset curl; do
    PATH=$PATH:/usr/sbin command -v "$program" >/dev/null || missing+=" $program"
done
[ -x "$hawser" ] || missing+=" $hawser(cargo build --release)"
if [ -n "$missing" ]; then
    echo "missing:$missing (Debian: apt-get install wrk nginx-light apache2)" >&2
    exit 1
fi
PATH=$PATH:/usr/sbin

work=$(mktemp -d)
site=$work/site
mkdir "$site"
chmod 755 "$work"
declare -A pids
finish() {
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
    rm -r "$work"
}
trap finish EXIT


# ---- servers ----

start_hawser() {
    HAWSER_LOG=error taskset -c "$server_core" "$hawser" serve "$site" --listen "127.0.0.1:$1" >"$work/hawser.log" 2>&1 &
    pid=$!
}

nginx_conf() { # PORT MORE
    cat <<END
worker_processes 1; pid $work/nginx-$1.pid; error_log $work/nginx.log; daemon off;
events { worker_connections 4096; }
http { include /etc/nginx/mime.types; access_log off; sendfile on; tcp_nopush on; keepalive_requests 100000000; $2
  server { listen 127.0.0.1:$1; root $site; } }
END
}
start_nginx() {
    nginx_conf "$1" "" >"$work/nginx-$1.conf"
    taskset -c "$server_core" nginx -c "$work/nginx-$1.conf" -e "$work/nginx.log" &
    pid=$!
}
# Opens each file once in 20 s, and so may send an old one for so long.
start_nginx-cached() {
    nginx_conf "$1" "open_file_cache max=1000 inactive=20s;" >"$work/nginx-$1.conf"
    taskset -c "$server_core" nginx -c "$work/nginx-$1.conf" -e "$work/nginx.log" &
    pid=$!
}

start_apache() {
    {
        echo "ServerRoot $work"
        echo "ServerName localhost"
        for module in mpm_event authz_core mime; do
            echo "LoadModule ${module}_module $modules/mod_$module.so"
        done
        cat <<END
PidFile $work/apache.pid
Listen 127.0.0.1:$1
User www-data
Group www-data
ErrorLog $work/apache.log
DocumentRoot $site
TypesConfig /etc/mime.types
EnableSendfile On
KeepAlive On
MaxKeepAliveRequests 0
StartServers 1
ThreadsPerChild 64
MaxRequestWorkers 64
<Directory $site>
  AllowOverride None
  Require all granted
</Directory>
END
    } >"$work/apache.conf"
    taskset -c "$server_core" apache2 -f "$work/apache.conf" -DFOREGROUND &
    pid=$!
}

# ---- rows ----

rows_static() {
    [ -e "$site/1k.bin" ] || {
        head -c 1024 /dev/urandom >"$site/1k.bin"
        head -c 10240 /dev/urandom >"$site/10k.bin"
        head -c 1048576 /dev/urandom >"$site/1m.bin"
        head -c 104857600 /dev/urandom >"$site/100m.bin"
        cat "$site"/*.bin >/dev/null
    } >&2
    echo "static-1KB /1k.bin 32"
    echo "static-10KB /10k.bin 32"
    echo "static-1MB /1m.bin 8"
    echo "static-100MB /100m.bin 4"
}

# ---- measuring ----

tree() {
    echo "$1"
    for child in $(cat /proc/"$1"/task/*/children 2>/dev/null); do tree "$child"; done
}
cpu_nanos() {
    for pid in $(tree "$1"); do cat /proc/"$pid"/task/*/schedstat 2>/dev/null; done | awk '{ s += $1 } END { printf "%.0f\n", s }'
}
# Requests per second and CPU milliseconds per 1,000 requests.
measure() { # SERVER PORT PATH CONNECTIONS
    local before after
    before=$(cpu_nanos "${pids[$1]}")
    taskset -c "$load_core" wrk -t1 -c"$4" -d"${seconds}s" "http://127.0.0.1:$2$3" >"$work/wrk"
    after=$(cpu_nanos "${pids[$1]}")
    if grep -qE "Non-2xx|Socket errors" "$work/wrk"; then
        echo "$1 $3: $(grep -E 'Non-2xx|Socket errors' "$work/wrk")" >&2
    fi
    # By the bytes that came, so that large files in transfer at the end count for what came of them.
    awk -v nanos=$((after - before)) -v size="$(stat -c %s "$site$3")" '
        /requests in/ { n = $1; took = $4; read = $5
            sub(/,/, "", took); unit = took ~ /ms$/ ? 0.001 : took ~ /m$/ ? 60 : 1; took = took * unit
            unit = read ~ /TB/ ? 2 ^ 40 : read ~ /GB/ ? 2 ^ 30 : read ~ /MB/ ? 2 ^ 20 : read ~ /KB/ ? 2 ^ 10 : 1; read = read * unit }
        END { if (size > 100000) n = read / size; printf "%.2f %.3f\n", n / took, n ? nanos / n / 1000 : 0 }' "$work/wrk"
}

port=$((20000 + RANDOM % 10000))
declare -A ports
rows=$(for kind in "${@:-static}"; do "rows_$kind"; done)
for server in $servers; do
    port=$((port + 1))
    ports[$server]=$port
    "start_$server" "$port"
    pids[$server]=$pid
done
first=$(echo "$rows" | awk 'NR == 1 { print $2 }')
for server in $servers; do
    for try in $(seq 100); do
        curl -sfo /dev/null "http://127.0.0.1:${ports[$server]}$first" && break
        [ "$try" -lt 100 ] || { echo "$server does not answer: $(cat "$work"/*.log)" >&2; exit 1; }
        sleep 0.1
    done
done
for round in $(seq "$rounds"); do
    while read -r name path connections; do
        for server in $servers; do
            echo "$name $server $(measure "$server" "${ports[$server]}" "$path" "$connections")"
        done
    done <<<"$rows"
done >"$work/results"

awk -v servers="$servers" -v rows="$(echo "$rows" | awk '{ print $1 }' | tr '\n' ' ')" '
    { n = ++count[$1, $2]; rate[$1, $2, n] = $3; cpu[$1, $2, n] = $4 }
    function median(list, row, server,   i, j, k, t, sorted) {
        k = count[row, server]
        for (i = 1; i <= k; i++) sorted[i] = list[row, server, i] + 0
        for (i = 1; i <= k; i++) for (j = i + 1; j <= k; j++) if (sorted[j] < sorted[i]) { t = sorted[i]; sorted[i] = sorted[j]; sorted[j] = t }
        return k % 2 ? sorted[(k + 1) / 2] : (sorted[k / 2] + sorted[k / 2 + 1]) / 2
    }
    END {
        printf "%-14s %-14s %12s %12s\n", "row", "server", "requests/s", "cpu ms"
        ns = split(servers, server, " "); nr = split(rows, row, " ")
        for (r = 1; r <= nr; r++) {
            best_rate = best_cpu = 0
            for (s = 1; s <= ns; s++) {
                m = median(rate, row[r], server[s]); c = median(cpu, row[r], server[s])
                printf "%-14s %-14s %12.1f %12.3f\n", row[r], server[s], m, c
                if (server[s] == "hawser") { own_rate = m; own_cpu = c; continue }
                if (m > best_rate) best_rate = m
                if (!best_cpu || c < best_cpu) best_cpu = c
            }
            if (best_rate && own_cpu) printf "%-14s %-14s %11.2fx %11.2fx\n", row[r], "ratio", own_rate / best_rate, best_cpu / own_cpu
        }
    }' "$work/results"
