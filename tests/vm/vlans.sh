#!/bin/sh
# In the guest, whose kernel has VLANs: a target is probed through a VLAN on the bond; learning frames of a bridge that filters
# VLANs bear the tags that its frames have at the bond.
. /common.sh

start --plane tc
ip -n switch link add link br0 name br0.7 type vlan id 7
ip -n switch link set br0.7 up
ip -n switch addr add 10.7.0.2/24 dev br0.7
capture 0 arp or vlan
ctl add bond0 mode=active-backup arp_interval=100 arp_ip_target=10.7.0.2 arp_validate=all || fail "add"
ctl port add bond0 eth0 eth1 || fail "port add"
ip -n host link set bond0 up
ip -n host link add link bond0 name bond0.7 type vlan id 7
ip -n host link set bond0.7 up
ip -n host addr add 10.7.0.1/24 dev bond0.7
# show_has TEXT: the JSON of the bond has it, whatever its white space.
show_has() { ctl -j show bond0 | tr -d ' \n' | grep -q "$1"; }
until_true 5 active eth0 || fail "eth0 is not active"
until_true 5 show_has '"source":"10.7.0.1","vlans":\[7\]' || fail "not asked through the VLAN: $(ctl -j show bond0)"
for by in reply request; do
    until_true 5 show_has "\"target\":\"10.7.0.2\",\"by\":\"$by\",\"ms_ago\":[0-9]\{1,2\}}" ||
        fail "no $by: $(ctl -j show bond0)"
done
until_true 5 grep -q "vlan 7.*Request who-has 10.7.0.2 tell 10.7.0.1" /tmp/p0 || fail "no tagged request: $(cat /tmp/p0)"
in_switch bridge link set dev p0 state 0 || fail "p0 cannot be blocked"
until_true 5 active eth1 || fail "a dead path is not left"
in_switch bridge link set dev p0 state 3
until_true 5 show_has '"by":"request","ms_ago":[0-9]\{1,2\}}' || fail "eth0 does not recover: $(ctl -j show bond0)"
echo "step: probed through a VLAN"

ip -n host link del bond0.7
ctl set bond0 arp_interval=0 miimon=100 || fail "set"
ip -n host link add br1 type bridge vlan_filtering 1
ip -n host link set br1 up
ip -n host link add tap0 type veth peer name guest0
for port in bond0 tap0; do ip -n host link set "$port" up master br1; done
ip -n host link set guest0 up
for vlan in "bond0 vid 20-25" "bond0 vid 30 untagged" "tap0 vid 22" "tap0 vid 30" "tap0 vid 99"; do
    in_host bridge vlan add dev $vlan || fail "bridge vlan $vlan"
done
for vlan in 1 22 30 99; do
    in_host bridge fdb add "02:00:00:00:01:$(printf %02d "$vlan")" dev tap0 master static vlan "$vlan" || fail "fdb $vlan"
done
# told PORT MAC TAG: it was told of in one frame at that port, with that tag or `none`.
told() {
    case $3 in
        none) seen "/tmp/p$1" "^[0-9:.]* 02:00:00:00:01:$2 > ff:ff:ff:ff:ff:ff, ethertype Reverse ARP" 1 ;;
        *) seen "/tmp/p$1" "^[0-9:.]* 02:00:00:00:01:$2 > ff:ff:ff:ff:ff:ff, ethertype 802.1Q.*vlan $3,.*Reverse ARP" 1 ;;
    esac && seen "/tmp/p$1" "02:00:00:00:01:$2 >" 1
}
# fail_over FROM TO: by the carrier; what arrives at the new port is captured.
fail_over() {
    until_true 5 active "eth$1" || fail "eth$1 is not active"
    capture "$2"
    ip -n switch link set "p$1" down
    until_true 5 active "eth$2" || fail "no failover to eth$2"
}
fail_over 1 0
until_true 5 told 0 01 none || fail "VLAN 1: $(cat /tmp/p0)"
until_true 5 told 0 22 22 || fail "VLAN 22: $(cat /tmp/p0)"
until_true 5 told 0 30 none || fail "VLAN 30: $(cat /tmp/p0)"
seen /tmp/p0 "02:00:00:00:01:99 >" 0 || fail "VLAN 99 is not the bond's: $(cat /tmp/p0)"
echo "step: told of with their tags"

ip -n switch link set p1 up
until_true 5 show_has '"link":"up".*"link":"up"' || fail "eth1 does not recover"
ip -n host link set br1 type bridge vlan_filtering 0
fail_over 0 1
for host in 01 22 30 99; do
    until_true 5 told 1 "$host" none || fail "$host without filtering: $(cat /tmp/p1)"
done
echo "all steps passed"
