#!/usr/bin/env bash
# Runs a command on a Ray node of its own, which takes no work from others:
#     RAY_ADDRESS=search-head-svc:6379 as-node autovision controller run
# Drivers have to be on a node of their cluster. Node and command end together: whoever started this starts both anew.
set -euo pipefail

: "${RAY_ADDRESS:?the cluster to join: HOST:PORT of the GCS on the head}"
[ $# -gt 0 ] || { echo "usage: as-node COMMAND..." >&2; exit 2; }

# A folder of its own: what an earlier container left in /tmp is not mistaken for a node that runs.
folder=$(mktemp -d "${TMPDIR:-/tmp}/node-XXXXXX")
ray start --address="$RAY_ADDRESS" --num-cpus=0 --num-gpus=0 --object-store-memory=100000000 \
    --temp-dir="$folder" --disable-usage-stats --block >"$folder/ray-start.log" 2>&1 &
node=$!
command=

# Node and command get the same warning; the command ends first, while its node is still there.
end() {
    trap '' TERM INT
    if [ -n "$command" ]; then
        kill -TERM "$command" 2>/dev/null || true
        wait "$command" 2>/dev/null || true
    fi
    kill -TERM "$node" 2>/dev/null || true
    wait "$node" 2>/dev/null || true
    rm -rf "$folder"
}
trap 'end; exit 143' TERM INT

for _ in $(seq 600); do
    if ! kill -0 "$node" 2>/dev/null; then
        echo "no node of $RAY_ADDRESS could be started here:" >&2
        tail -n 20 "$folder/ray-start.log" >&2
        exit 1
    fi
    socket=$(echo "$folder"/session_*/sockets/raylet)
    [ -S "$socket" ] && break
    sleep 0.2
done

"$@" &
command=$!
status=0
wait -n "$node" "$command" || status=$?
if kill -0 "$command" 2>/dev/null; then
    echo "the node of $RAY_ADDRESS ended; so does what ran on it" >&2
    status=1
fi
end
exit "$status"
