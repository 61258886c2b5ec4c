#!/bin/sh
# In the guest: what the files say of a port whose interface has a speed only while it has carrier, beside the kernel's own files.
. /common.sh

# The bonding driver is such an interface, and a VLAN on it.
ip -n host link add inner type bond mode active-backup miimon 50
ip -n host link set eth1 down
ip -n host link set eth1 master inner
ip -n host link set inner up
ip -n host link add link inner name vlan5 type vlan id 5
# The kernel's own files: of the namespace in which they are mounted.
mkdir /tmp/sys
in_host mount -t sysfs sysfs /tmp/sys || fail "no sysfs"
kernel_file() { cat "/tmp/sys/class/net/$1/$2" 2>/dev/null; }
has_speed() { [ "$(kernel_file "$1" speed)" = "$2" ]; }
until_true 10 has_speed inner 10000 || fail "inner has no speed"

start
ctl add bond0 plane=tc mode=active-backup miimon=50 || fail "add"
ip -n host link set bond0 up
ctl port add bond0 eth0 vlan5 || fail "port add"

# same PORT FILE: the file of the agent is the kernel's.
same() {
    kernel=$(kernel_file "$1" "$2")
    ours=$(cat "/run/bondd/sys/class/net/$1/$2" 2>/dev/null)
    [ "$ours" = "$kernel" ]
}
all_same() {
    for port in eth0 vlan5; do
        for file in speed duplex carrier; do
            until_true 5 same "$port" "$file" || fail "$1: $port/$file is '$ours', the kernel has '$kernel'"
        done
    done
}
# block PORT: its lines in the status file.
block() { sed -n "/^Slave Interface: $1\$/,/^\$/p" /run/bondd/proc/net/bonding/bond0; }
says() { block "$1" | grep -qx "$2"; }

all_same "all up"
[ "$kernel" = 1 ] || fail "vlan5 has no carrier"
says vlan5 "Speed: 10000 Mbps" || fail "vlan5 reads $(block vlan5)"

ip -n switch link set p0 down
ip -n switch link set p1 down
until_true 5 says vlan5 "MII Status: down" || fail "vlan5 stays up"
all_same "without carrier"
[ "$(cat /run/bondd/sys/class/net/eth0/speed)" = 10000 ] || fail "a cable of veth keeps its speed"
[ "$(cat /run/bondd/sys/class/net/vlan5/speed)" = -1 ] || fail "a VLAN on a bond without carrier has none"
until_true 5 says vlan5 "Speed: Unknown" || fail "vlan5 reads $(block vlan5)"
says eth0 "Speed: 10000 Mbps" || fail "eth0 reads $(block eth0)"

ip -n host link set eth0 down
all_same "set down"

ip -n switch link set p1 up
until_true 5 says vlan5 "MII Status: up" || fail "vlan5 stays down"
all_same "up again"
says vlan5 "Speed: 10000 Mbps" || fail "vlan5 reads $(block vlan5)"

echo "all steps passed"
