#!/bin/sh
# In the guest: ports of a bond on the team driver that others want. A second agent is refused, also after a crash of the first; one
# that is moved to another namespace is itself there, and rejoins when it is back.
. /common.sh

other() { in_host env BONDD_RUN_DIR=/run/other bondctl "$@"; }
other_answers() { other list >/dev/null 2>&1; }
own() { ip -n "$1" -o link show eth1 | sed 's/^[0-9]*: //; s/qdisc [a-z]*//; s/state [A-Z]*//; s/link-netns[^ ]* [^ ]*//; s/master [^ ]*//'; }
is_itself() { [ "$(own elsewhere)" = "$before" ]; }
is_port() { ip -n host -o link show eth1 | grep -q ' master bond0 '; }
refused() {
    other port add bond1 eth0 2>/tmp/refused && fail "the second agent took eth0"
    grep -q 'eth0 is a port of bond0 already' /tmp/refused || fail "said: $(cat /tmp/refused)"
    ip -n host -o link show eth0 | grep ' master bond0 ' | grep -q 'alias port of bond0' || fail "eth0 was changed"
}

ip netns add elsewhere
start
ctl add bond0 plane=team mode=active-backup miimon=100 || fail "add"
ip -n host link set eth1 alias uplink
ip -n host link set eth1 down
before=$(own host)
ctl port add bond0 eth0 eth1 || fail "port add"
bond0_up
mkdir /run/other
nsenter --net=/run/netns/host bondd --run-dir /run/other >/tmp/other.log 2>&1 &
second=$!
until_true 20 other_answers || fail "no second agent: $(cat /tmp/other.log)"
other add bond1 plane=team mode=active-backup miimon=100 || fail "add by the second agent"
refused
kill -KILL "$agent"
wait "$agent"
refused
start
refused
other del bond1 || fail "del"
kill -TERM "$second"
wait "$second"
echo "step: the port of another agent is refused"

ip -n host link set bond0 mtu 1450
for round in 1 2 3; do
    until_true 5 active eth0 || fail "eth0 is not active"
    pinging 400
    ip -n host link set eth1 netns elsewhere
    until_true 5 is_itself || fail "round $round: eth1 was '$before' and is '$(own elsewhere)'"
    ip -n elsewhere link set eth1 netns host
    until_true 5 is_port || fail "round $round: eth1 is no port again"
    lost
    [ "$gone" -eq 0 ] || fail "$gone of 400 pings lost when the backup port was moved and came back"
done
[ "$(grep -c 'eth1 has its own settings again in the network namespace' /tmp/bondd.log)" -eq 3 ] || fail "it is not told"
grep -q 'keeps the settings' /tmp/bondd.log && fail "it is told wrongly"
echo "step: a port that was moved was itself there, and rejoined"
ctl del bond0 || fail "del"
kill -TERM "$agent"
wait "$agent" || fail "SIGTERM is an orderly end"
echo "all steps passed"
