# Shared by the scripts in the guest: two namespaces, host and switch, and a bondd in the host's.

fail() {
    echo "FAILED: $*"
    echo "--- status"; cat /run/bondd/proc/net/bonding/bond0
    echo "--- links"; ip -n host -d -s link
    echo "--- log"; cat /tmp/bondd.log
    exit 1
}

# until_true SECONDS COMMAND...: asks until it holds.
until_true() {
    tries=$(($1 * 20)); shift
    while ! "$@"; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || return 1
        sleep 0.05
    done
}

ctl() { nsenter --net=/run/netns/host bondctl "$@"; }
answers() { ctl list >/dev/null 2>&1; }
active() { grep -q "^Currently Active Slave: $1\$" /run/bondd/proc/net/bonding/bond0; }
# start ARGUMENTS...: a bondd with these.
start() {
    nsenter --net=/run/netns/host bondd --log-level debug "$@" >>/tmp/bondd.log 2>&1 &
    agent=$!
    until_true 20 answers || fail "bondd does not answer"
}
port_state() {
    ip -n host -o link show "$1" | sed 's/<[^>]*>//'
    ip -n host -o link show "$1" | grep -o PROMISC
    nsenter --net=/run/netns/host tc qdisc show dev "$1"
    nsenter --net=/run/netns/host cat "/proc/sys/net/ipv6/conf/$1/disable_ipv6" 2>/dev/null
    :
}
# pinging COUNT: so many echo requests in the background, 5 ms apart, counted.
pinging() {
    nsenter --net=/run/netns/host ping -q -c "$1" -i 0.005 -W 2 10.77.0.2 >/tmp/ping 2>&1 &
    pinger=$!
}
# lost: waits for them and sets `gone`. Not in a subshell, which could not wait.
lost() {
    wait "$pinger"
    set -- $(sed -n 's/^\([0-9]*\) packets transmitted, \([0-9]*\) received.*/\1 \2/p' /tmp/ping)
    [ $# -eq 2 ] || fail "ping said: $(cat /tmp/ping)"
    gone=$(($1 - $2))
}

# cables: a bridge in the switch, and eth0 and eth1 of the host plugged into it as p0 and p1.
cables() {
    ip netns add host
    ip netns add switch
    ip -n switch link add br0 address 02:00:00:00:5b:01 type bridge stp_state 0 forward_delay 0
    ip -n switch link set br0 up
    ip -n switch addr add 10.77.0.2/24 dev br0
    for n in 0 1; do
        ip -n host link add "eth$n" index "10$n" type veth peer name "p$n" index "20$n" netns switch
        ip -n host link set "eth$n" up
        ip -n switch link set "p$n" master br0
        ip -n switch link set "p$n" up
    done
    sleep 1
}
