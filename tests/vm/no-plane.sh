#!/bin/sh
# In the guest, which has no veth and no classifiers: adding a bond is refused by the name of what is missing.
set -u
ip link add eth0 type dummy
before=$(ip -o link | cut -d: -f2)
bondd >/tmp/bondd.log 2>&1 &
agent=$!
tries=100
until bondctl list >/dev/null 2>&1 || [ $tries -eq 0 ]; do sleep 0.05; tries=$((tries - 1)); done
bondctl add bond0 mode=active-backup miimon=100
status=$?
cat /tmp/bondd.log
[ "$status" -eq 1 ] || { echo "status $status, not 1"; exit 1; }
[ "$(ip -o link | cut -d: -f2)" = "$before" ] || { echo "links changed"; ip link; exit 1; }
[ "$(bondctl -j list)" = "[]" ] || { echo "a bond is listed"; exit 1; }
kill -TERM "$agent"
wait "$agent"
