#!/bin/sh
# In the guest: a bond on the team driver over two cables to a switch. Cables are pulled, the agent killed and started, others
# meddle, the bond is removed.
. /common.sh

plane_of() { ctl -j show "$1" | grep -o '"plane": *"[a-z]*"' | grep -o '[a-z]*"$' | tr -d '"'; }
is_plane() { [ "$(plane_of "$1")" = "$2" ]; }
has_master() { ip -n host -o link show "$1" | grep -q " master $2 "; }
refused() { ! ctl "$@" >/tmp/refused 2>&1; }
option() { in_host /teamopt.py bond0 "$@"; }
enabled() { [ "$(option get enabled "$1")" = "$2" ]; }
sends_through() { [ "$(option get activeport 0)" = "$1" ]; }

sleep 1
before=$(port_state eth0; port_state eth1)

module=$(find /lib/modules/ -name 'team_mode_loadbalance.ko*')
mv "$module" /tmp/hidden || fail "there is no module to hide"

# Somebody else's team device: looked at, never touched.
ip -n host link add foreign0 type team
start
refused add foreign0 mode=1 miimon=100 || fail "a foreign team device was taken over"
grep -q "another device" /tmp/refused || fail "said: $(cat /tmp/refused)"

# A mode whose module is installed while the agent runs.
refused add xor0 plane=team mode=balance-xor || fail "balance-xor without its module"
mv /tmp/hidden "$module"
ctl add xor0 plane=team mode=balance-xor || fail "the module is not seen"
ctl del xor0 || fail "del"
echo "step: a module that came later is used"

ctl add bond0 mode=active-backup miimon=100 || fail "add"
is_plane bond0 team || fail "auto took $(plane_of bond0)"
ip -n host link show bondd-new >/dev/null 2>&1 && fail "the draft is left"
ctl port add bond0 eth0 eth1 || fail "port add"
has_master eth0 bond0 && has_master eth1 bond0 || fail "no ports of the team"
bond0_up
enabled eth0 true && enabled eth1 false || fail "the wrong port is enabled"
in_host ping -q -c 3 -W 2 10.77.0.2 >/dev/null || fail "no traffic"
echo "step: traffic through the team driver"

pulled
flooding 80000
for round in 1 2 3 4 5 6 7 8 9 10; do
    kill -KILL "$agent"
    wait "$agent"
    sleep 0.1
    start
    active eth1 || fail "the active port changed in restart $round"
done
kill -0 "$pinger" || fail "the flood ended before the tenth restart"
lost
echo "step: killed and started ten times, $gone of 80000 pings sent back to back lost"
[ "$gone" -eq 0 ] || fail "$gone pings lost in restarts"
grep -A5 '^Slave Interface: eth0' /run/bondd/proc/net/bonding/bond0 | grep -q '^Link Failure Count: 1$' || fail "failure count"
# Ports that leave, the active one and the last one.
ctl port del bond0 eth0 || fail "port del"
for round in 1 2 3; do
    ctl port del bond0 eth1 || fail "port del"
    ctl port add bond0 eth1 || fail "port add again"
    until_true 5 active eth1 || fail "eth1 is not active when it is back"
done
ctl port add bond0 eth0 || fail "port add again"
sends_through 101 || fail "the driver sends through $(option get activeport 0)"
in_host ping -q -c 3 -W 2 10.77.0.2 >/dev/null || fail "no traffic with ports that came back"
grep -q "putting it back" /tmp/bondd.log && fail "the agent took its own changes for somebody else's"
echo "step: ports left and came back"

# Options that somebody else changes.
option set activeport 0 100 || fail "cannot meddle"
until_true 5 sends_through 101 || fail "the active port was not put back"
option set enabled eth1 false || fail "cannot meddle"
until_true 5 enabled eth1 true || fail "enabled was not put back"
grep -q "putting it back" /tmp/bondd.log || fail "nothing was said of it"
echo "step: foreign changes of options put back"

# Somebody who insists is left alone for a minute, then what he did is put back.
insists() {
    option set activeport 0 100 || fail "cannot meddle"
    ! until_true 1 sends_through 101
}
until_true 1 insists || fail "who insists is never left alone"
grep -q "leaving it for a minute" /tmp/bondd.log || fail "nothing was said of it"
sleep 55
sends_through 100 || fail "put back within the minute"
until_true 20 sends_through 101 || fail "not put back after the minute"
echo "step: what somebody insisted on put back after a minute"

# A port that somebody else takes out.
ip -n host link set eth1 nomaster
until_true 5 active eth0 || fail "no failover when the port was taken away"
in_host ping -q -c 3 -W 2 10.77.0.2 >/dev/null || fail "no traffic after a port was taken away"
until_true 5 sh -c '! grep -q "^Slave Interface: eth1" /run/bondd/proc/net/bonding/bond0' || fail "eth1 is still listed"
[ "$(port_state eth1)" = "$(echo "$before" | tail -n "$(port_state eth1 | wc -l)")" ] || fail "eth1 is not as before: $(port_state eth1)"
ctl port add bond0 eth1 || fail "port add again"
echo "step: a port taken away by somebody else"

# What the driver cannot do exactly.
ctl add rr0 mode=balance-rr || fail "add rr0"
is_plane rr0 tc || fail "auto took $(plane_of rr0) for balance-rr"
ctl del rr0 || fail "del rr0"
refused add rr0 plane=team mode=balance-rr packets_per_slave=3 || fail "packets_per_slave=3 on team"
grep -q "packets_per_slave=3" /tmp/refused || fail "said: $(cat /tmp/refused)"
refused port set bond0 eth1 queue_id=2 || fail "queue_id=2 on team"
grep -q "queue_id=2.*plane=tc" /tmp/refused || fail "said: $(cat /tmp/refused)"
refused set bond0 all_slaves_active=1 || fail "all_slaves_active=1 on a live bond"
grep -q "all_slaves_active" /tmp/refused || fail "said: $(cat /tmp/refused)"
active eth0 || fail "a refused change had an effect"
echo "step: what cannot be exact is refused, or goes to tc"

ip -n switch link set p0 down
until_true 5 active eth1 || fail "no failover after all that"
ip -n switch link set p0 up
sleep 1
ctl del bond0 || fail "del"
given_back "$before"

# Another mode needs another device of the driver's; that of an empty bond is exchanged.
ctl add bond0 plane=team mode=active-backup miimon=100 || fail "add"
ctl set bond0 mode=balance-xor || fail "another mode of an empty bond"
ctl port add bond0 eth0 eth1 || fail "port add in another mode"
is_plane bond0 team || fail "another mode took $(plane_of bond0)"
ip -n host link set bond0 up
ip -n host addr add 10.77.0.1/24 dev bond0
in_host ping -q -c 3 -W 2 10.77.0.2 >/dev/null || fail "no traffic in another mode"
[ "$(option get mode 0)" = loadbalance ] || fail "the driver's mode is $(option get mode 0)"
refused set bond0 mode=broadcast || fail "another mode of a bond with ports"
ctl del bond0 || fail "del"
echo "step: the mode of an empty bond changed"

# What the planes can do, told before anything is made.
doctor() { ctl doctor "$@" >/tmp/doctor || fail "doctor $*"; cat /tmp/doctor; }
doctor mode=active-backup
grep -q '^team: usable, exact' /tmp/doctor && grep -q 'gets plane team$' /tmp/doctor || fail "doctor on active-backup"
doctor mode=balance-xor xmit_hash_policy=encap3+4
grep -q '^team: usable, but not for these options: .*encap3+4' /tmp/doctor || fail "doctor on encap3+4"
grep -q 'gets plane tc$' /tmp/doctor || fail "doctor on encap3+4"
echo "step: the doctor was asked"

# The device deleted by somebody else.
for mode in active-backup balance-xor broadcast; do
    ctl add bond0 plane=team mode=$mode miimon=100 || fail "add $mode"
    ctl port add bond0 eth0 eth1 || fail "port add $mode"
    ip -n host link set bond0 up
    ip -n host addr add 10.77.0.1/24 dev bond0
    if [ "$mode" = broadcast ]; then
        # Both copies would come back through the switch for ever: one cable only.
        ip -n switch link set p1 down
        sleep 0.5
    fi
    in_host ping -q -c 3 -W 2 10.77.0.2 >/dev/null || fail "no traffic in $mode"
    kill -KILL "$agent"; wait "$agent"; start
    [ "$(ctl list)" = bond0 ] || fail "not adopted in $mode: $(ctl list)"
    in_host ping -q -c 3 -W 2 10.77.0.2 >/dev/null || fail "no traffic in $mode after a restart"
    heard=$(wc -l </tmp/bondd.log)
    ip -n host link del bond0
    until_true 5 sh -c '[ -z "$(nsenter --net=/run/netns/host bondctl list)" ]' || fail "bond0 is still known"
    tail -n +$((heard + 1)) /tmp/bondd.log | grep -e "Z warn " -e "Z error " >/tmp/said
    seen /tmp/said "" 1 && seen /tmp/said "bond0: its interface was deleted by another program" 1 ||
        fail "said of it: $(cat /tmp/said)"
    ip -n switch link set p1 up
    sleep 0.5
    after=$(port_state eth0; port_state eth1)
    [ "$before" = "$after" ] || fail "ports are not as before the deletion in $mode:
$before
--- now
$after"
    echo "step: $mode, adopted, deleted by somebody else"
done

# Bonds whose saved state is lost go on in the mode they are in.
for mode in balance-xor broadcast; do
    ctl add bond0 plane=team mode=$mode miimon=100 || fail "add $mode"
    ctl port add bond0 eth0 eth1 || fail "port add $mode"
    ip -n host link set bond0 up
    ip -n host addr add 10.77.0.1/24 dev bond0
    kill -KILL "$agent"; wait "$agent"
    rm /run/bondd/state/bond0.json || fail "there is no saved state"
    heard=$(wc -l </tmp/bondd.log)
    start
    ctl -j show bond0 | grep -q "\"mode\": *\"$mode\"" || fail "adopted as $(ctl -j show bond0)"
    ip -n switch link set p1 down
    ctl port del bond0 eth1 || fail "port del in $mode"
    in_host ping -q -c 3 -W 2 10.77.0.2 >/dev/null || fail "no traffic in $mode without saved state"
    ip -n switch link set p1 up
    tail -n +$((heard + 1)) /tmp/bondd.log | grep "Z error " && fail "errors after the saved state was lost"
    ctl del bond0 || fail "del"
    echo "step: $mode, adopted without saved state"
done

ip -n host -d link show foreign0 | grep -q team || fail "the foreign team device is gone"
kill -TERM "$agent"
wait "$agent" || fail "SIGTERM is an orderly end"
echo "all steps passed"
