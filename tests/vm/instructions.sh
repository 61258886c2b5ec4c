#!/bin/sh
# In the guest: what a frame costs that is sent, and one that is received, through a bond over one cable, by every plane and mode.
# Prints one line for each: PLANE MODE POLICY SENT RECEIVED, in instructions a frame; the first is the cable alone.
set -u

FRAMES=${1:-10000}
# Only rows with this word in their line.
WORD=${2:-}

fail() {
    echo "FAILED: $*" >&2
    ip -n near -d link >&2
    cat /tmp/bondd.log >&2
    exit 1
}

in_near() { ip netns exec near "$@"; }
in_far() { ip netns exec far "$@"; }

# until_true SECONDS COMMAND...: asks until it holds.
until_true() {
    tries=$(($1 * 20)); shift
    while ! "$@"; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || return 1
        sleep 0.05
    done
}

carries() { [ "$(in_near cat "/sys/class/net/$1/carrier" 2>/dev/null)" = 1 ]; }
answers() { in_near bondctl list >/dev/null 2>&1; }

# A new cable for every row: nothing of an earlier one is left on it.
cable() {
    ip -n near link add eth0 type veth peer name eth0 netns far || fail "veth"
    ip -n far link set eth0 up
    ip -n far addr add 10.0.0.2/24 dev eth0
}

# A socket in each namespace takes what arrives until it is full and drops the rest: nobody runs but the sender.
measure() {
    ip -n near link set "$1" up || fail "up"
    ip -n near addr add 10.0.0.1/24 dev "$1"
    until_true 10 carries "$1" || fail "$1 has no carrier"
    near=$(in_near cat "/sys/class/net/$1/address")
    far=$(in_far cat /sys/class/net/eth0/address)
    ip -n near neigh replace 10.0.0.2 lladdr "$far" dev "$1" nud permanent
    ip -n far neigh replace 10.0.0.1 lladdr "$near" dev eth0 nud permanent
    # Router solicitations and the like are over.
    sleep 5
    [ -z "$agent" ] || kill -STOP "$agent"
    sent=$(in_near bondd-send-frames 10.0.0.2 "$FRAMES") || fail "sending"
    received=$(in_far bondd-send-frames 10.0.0.1 "$FRAMES") || fail "receiving"
    [ -z "$agent" ] || kill -CONT "$agent"
    # The frames took the way that is measured.
    passed "$1" tx && passed "$1" rx || fail "the frames did not pass $1"
    echo "$row $sent $received"
}
passed() { [ "$(in_near cat "/sys/class/net/$1/statistics/$2_packets")" -ge "$FRAMES" ]; }

chosen() { case $row in *"$WORD"*) return 0 ;; *) return 1 ;; esac; }
uncable() { ip -n near link del eth0; until_true 10 gone || fail "eth0 stays"; }
gone() { ! ip -n far link show eth0 >/dev/null 2>&1; }

# by_kernel MODE POLICY
by_kernel() {
    row="kernel $1 $2"
    chosen || return 0
    cable
    ip -n near link add bond0 type bond mode "$1" miimon 100 ${policy:+xmit_hash_policy $policy} || fail "$row"
    ip -n near link set eth0 master bond0 || fail "$row"
    measure bond0
    ip -n near link del bond0
    uncable
}

# by_bondd PLANE MODE POLICY; plane netkit is tc with an agent that makes netkit devices.
by_bondd() {
    row="$1 $2 $3"
    chosen || return 0
    cable
    plane=$1
    [ "$plane" = netkit ] && plane=tc
    in_near bondctl add bond0 "plane=$plane" "mode=$2" miimon=100 ${policy:+xmit_hash_policy=$policy} >&2 || fail "$row"
    in_near bondctl port add bond0 eth0 || fail "$row"
    measure bond0
    in_near bondctl del bond0 || fail "$row"
    uncable
}

# start OPTION...
start() {
    # Not by in_near, whose background process would be a shell: this must be the agent itself.
    nsenter --net=/run/netns/near bondd "$@" >/tmp/bondd.log 2>&1 &
    agent=$!
    until_true 20 answers || fail "bondd does not answer"
}

stop() {
    kill -TERM "$agent"
    wait "$agent" || fail "SIGTERM is an orderly end"
    agent=
}

# modes PREFIX...: every mode and policy; those that a plane does not have are left out by POLICIES and MODES.
modes() {
    for mode in $MODES; do
        policies=-
        [ "$mode" = balance-xor ] && policies=$POLICIES
        for each in $policies; do
            policy=${each#-}
            "$@" "$mode" "$each"
        done
    done
}

uname -r
ip netns add near
ip netns add far
for netns in near far; do ip -n $netns link set lo up; done
in_near bondd-send-frames --full &
in_far bondd-send-frames --full &

agent=
row="raw - -"
cable
measure eth0
uncable

MODES="active-backup balance-rr balance-xor broadcast"
POLICIES="layer2 layer2+3 layer3+4 encap2+3 encap3+4 vlan+srcmac"
modes by_kernel

start
modes by_bondd tc
MODES="active-backup balance-xor broadcast"
POLICIES="layer2 layer2+3 layer3+4 vlan+srcmac"
modes by_bondd team
stop

# An earlier release may know no netkit.
bondd --help | grep -q -e --tc-device || exit 0
start --tc-device netkit
MODES="active-backup balance-rr balance-xor broadcast"
# One for each program: what the device costs does not depend on them.
POLICIES="layer2 layer3+4 encap3+4"
modes by_bondd netkit
stop
