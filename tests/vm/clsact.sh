#!/bin/sh
# In the guest: a bond over two cables to a switch; a cable is pulled, the agent killed and started, the bond removed.
. /common.sh

sleep 1
before=$(port_state eth0; port_state eth1)

start --plane tc
ctl add bond0 mode=active-backup miimon=100 || fail "add"
ctl port add bond0 eth0 eth1 || fail "port add"
bond0_up
in_host tc filter show dev eth0 ingress | grep -q bpf || fail "no classifier at clsact"
in_host ping -q -c 3 -W 2 10.77.0.2 >/dev/null || fail "no traffic"
echo "step: traffic through clsact"

pulled
pinging 1000
for round in 1 2 3; do
    kill -KILL "$agent"
    wait "$agent"
    sleep 0.2
    start --plane tc
    active eth1 || fail "the active port changed in restart $round"
done
lost
echo "step: killed and started three times, $gone of 1000 pings lost"
[ "$gone" -eq 0 ] || fail "$gone pings lost in restarts"
grep -A5 '^Slave Interface: eth0' /run/bondd/proc/net/bonding/bond0 | grep -q '^Link Failure Count: 1$' || fail "failure count"

ip -n switch link set p1 down
until_true 5 active eth0 || fail "no failover after the restart"
ip -n switch link set p1 up
sleep 1

ctl del bond0 || fail "del"
given_back "$before"
[ -z "$(find /sys/fs/bpf /run/bondd/bpf -path '*bondd*' -type f 2>/dev/null)" ] || fail "pins are left"
kill -TERM "$agent"
wait "$agent" || fail "SIGTERM is an orderly end"
echo "all steps passed"
