#!/bin/sh
# In the guest, whose kernel has both: what a bond on plane tc has on a veth pair and what on a netkit device. One line for each.
. /common.sh

says() { ! "$@" >/dev/null 2>&1 || echo yes; }

for device in veth netkit; do
    start --tc-device "$device"
    ctl add bond0 plane=tc mode=active-backup miimon=100 || fail "add"
    ctl port add bond0 eth0 || fail "port add"
    ip -n host link set bond0 up
    until_true 5 active eth0 || fail "eth0 is not active"
    # What is asked of it: queues for an operator's marks, a speed, stamps of frames that are sent.
    multiq=$(says in_host tc qdisc add dev bond0 root multiq)
    speed=$(in_host ethtool bond0 2>/dev/null | sed -n 's/.*Speed: //p')
    stamps=$(in_host ethtool -T bond0 | grep -w -o software-transmit)
    ip -n host link add br0 type bridge
    ip -n host link set bond0 master br0 || fail "bridge"
    cost=$(nsenter --net=/run/netns/host unshare --mount sh -c 'mount -t sysfs sysfs /sys && cat /sys/class/net/bond0/brport/path_cost')
    echo "$device: multiq ${multiq:-no}, speed ${speed:-none}, ${stamps:-no stamps}, cost $cost"
    ip -n host link del br0
    ctl del bond0 || fail "del"
    kill -TERM "$agent"
    wait "$agent" || fail "SIGTERM is an orderly end"
done
