#!/bin/sh
# In the guest: frames that tc gives to a queue leave through its port, in the two ways that operators know, set up before and
# after the queue has a port; frames of many flows beside leave by the active port.
. /common.sh

cable 2
cable 3
start --plane tc
ctl add bond0 mode=active-backup miimon=100 || fail "add"
ctl port add bond0 eth0 eth1 eth2 eth3 || fail "port add"
ip -n host link set bond0 up
ip -n host addr add 10.77.0.1/24 dev bond0
for host in 00 01; do
    ip -n host neigh add "10.77.0.1$host" lladdr "02:00:00:00:01:$host" dev bond0 nud permanent || fail "neigh"
done
until_true 5 active eth0 || fail "eth0 is not active"
for port in 0 1 2 3; do capture "$port" udp and dst portrange 1000-1299; done

bind() {
    ctl port set bond0 eth1 queue_id "$1" || fail "queue_id of eth1"
    ctl port set bond0 eth2 queue_id "$2" || fail "queue_id of eth2"
    ctl port set bond0 eth3 queue_id "$3" || fail "queue_id of eth3"
}
at_clsact() {
    in_host tc qdisc add dev bond0 clsact && in_host tc filter add dev bond0 egress protocol ip prio 1 "$@"
}
behind_multiq() {
    in_host tc qdisc add dev bond0 handle 1 root multiq && in_host tc filter add dev bond0 protocol ip parent 1: prio 1 "$@"
}
mark() {
    "$1" u32 match ip dst 10.77.0.100 action skbedit queue_mapping 2 || fail "tc: $1"
}

total=0
for way in at_clsact behind_multiq; do
    for first in tc queue; do
        [ $first = tc ] && mark $way
        bind 2 1 15
        [ $first = queue ] && mark $way
        in_host bash -c 'for port in {1000..1299}; do
            echo x > /dev/udp/10.77.0.$((port % 3 == 0 ? 100 : 101))/$port
        done'
        total=$((total + 1))
        for expected in "0 10.77.0.101 200" "0 10.77.0.100 0" "1 10.77.0.100 100" "1 10.77.0.101 0" "2 10.77 0" "3 10.77 0"; do
            set -- $expected
            until_true 5 seen "/tmp/p$1" "> $2" $(($3 * total)) ||
                fail "$way, $first first: $(count "/tmp/p$1" "> $2") frames to $2 at p$1, not $(($3 * total))"
        done
        echo "step: $way, $first first"
        case $way in
            at_clsact) in_host tc qdisc del dev bond0 clsact ;;
            behind_multiq) in_host tc qdisc del dev bond0 root ;;
        esac
        bind 0 0 0
    done
done
echo "all steps passed"
