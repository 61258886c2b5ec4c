#!/bin/sh
# In the guest, whose team driver has one mode only: bonds of that mode are on it, others are not.
. /common.sh

start
ctl doctor
ctl doctor >/tmp/doctor || fail "doctor"
grep -q team /tmp/doctor || fail "doctor does not know of team"
ctl add bond0 plane=team mode=active-backup miimon=100 || fail "add active-backup"
ctl add bond1 plane=team mode=balance-xor miimon=100 2>/tmp/refused && fail "balance-xor without its module"
cat /tmp/refused
grep -q CONFIG_NET_TEAM_MODE_LOADBALANCE /tmp/refused || fail "the missing option is not named"
ctl add bond1 mode=balance-xor miimon=100 || fail "add balance-xor anywhere"
ctl -j show bond1 | grep -q '"plane": *"tc"' || fail "not on tc"
ctl del bond0 || fail "del"
ctl del bond1 || fail "del"
kill -TERM "$agent"
wait "$agent" || fail "SIGTERM is an orderly end"
echo "all steps passed"
