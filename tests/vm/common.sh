# What the scripts share: a namespace `host` with an agent, its ports cabled to a bridge in a namespace `switch`.
set -u

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

in_host() { nsenter --net=/run/netns/host "$@"; }
in_switch() { nsenter --net=/run/netns/switch "$@"; }
ctl() { in_host bondctl "$@"; }
starts() { grep -s 'ready at' /tmp/bondd.log | wc -l; }
has_started() { [ "$(starts)" -gt "$1" ]; }
active() { grep -q "^Currently Active Slave: $1\$" /run/bondd/proc/net/bonding/bond0; }
# start ARGUMENTS...: a bondd with these, until it has all its bonds.
start() {
    earlier=$(starts)
    # Not by in_host: the process in the background must be the agent itself.
    nsenter --net=/run/netns/host bondd --log-level debug "$@" >>/tmp/bondd.log 2>&1 &
    agent=$!
    until_true 20 has_started "$earlier" || fail "bondd does not get ready"
}
port_state() {
    ip -n host -o link show "$1" | sed 's/<[^>]*>//'
    ip -n host -o link show "$1" | grep -o PROMISC
    in_host tc qdisc show dev "$1"
    in_host cat "/proc/sys/net/ipv6/conf/$1/disable_ipv6" 2>/dev/null
    :
}
# pinging COUNT: so many echo requests in the background, 5 ms apart, counted.
pinging() {
    in_host ping -q -c "$1" -i 0.005 -W 2 10.77.0.2 >/tmp/ping 2>&1 &
    pinger=$!
}
# flooding COUNT: so many, each sent as soon as the one before is answered.
flooding() {
    in_host ping -f -q -c "$1" -W 2 10.77.0.2 >/tmp/ping 2>&1 &
    pinger=$!
}
# lost: waits for them and sets `gone`. Not in a subshell, which could not wait.
lost() {
    wait "$pinger"
    set -- $(sed -n 's/^\([0-9]*\) packets transmitted, \([0-9]*\) received.*/\1 \2/p' /tmp/ping)
    [ $# -eq 2 ] || fail "ping said: $(cat /tmp/ping)"
    gone=$(($1 - $2))
}
# bond0_up: bond0, which has its ports, is up, has its address and sends through eth0.
bond0_up() {
    ip -n host link set bond0 up
    ip -n host addr add 10.77.0.1/24 dev bond0
    until_true 5 active eth0 || fail "eth0 is not active"
}
# pulled: the cable of eth0, under traffic; eth1 takes over. Plugged in again afterwards.
pulled() {
    pinging 400
    sleep 0.5
    ip -n switch link set p0 down
    until_true 5 active eth1 || fail "no failover"
    lost
    echo "step: cable pulled, $gone of 400 pings 5 ms apart lost"
    [ "$gone" -le 20 ] || fail "$gone pings lost"
    ip -n switch link set p0 up
}
# given_back BEFORE: bond0 is gone and its ports are as they were.
given_back() {
    after=$(port_state eth0; port_state eth1)
    [ "$1" = "$after" ] || fail "ports are not as before:
$1
--- now
$after"
    ip -n host link show bond0 >/dev/null 2>&1 && fail "bond0 is still there"
    :
}
# capture NUMBER FILTER...: what arrives at pN from now on, in /tmp/pN.
capture() {
    number=$1; shift
    if [ -e "/tmp/p$number.pid" ]; then
        kill "$(cat "/tmp/p$number.pid")"
        wait "$(cat "/tmp/p$number.pid")"
        rm "/tmp/p$number.err"
    fi
    nsenter --net=/run/netns/switch tcpdump -Z root --immediate-mode -B 8192 -l -n -e -Q in -i "p$number" "$@" \
        >"/tmp/p$number" 2>"/tmp/p$number.err" &
    echo $! >"/tmp/p$number.pid"
    until_true 10 grep -qs "listening on" "/tmp/p$number.err" || fail "tcpdump: $(cat "/tmp/p$number.err")"
}
# count FILE WORDS: how many lines have them.
count() { grep -c "$2" "$1"; }
# seen FILE WORDS NUMBER: that many lines have them.
seen() { [ "$(count "$1" "$2")" -eq "$3" ]; }
# cable NUMBER: ethN in `host`, pN in `switch`, at the bridge.
cable() {
    ip -n host link add "eth$1" index "10$1" type veth peer name "p$1" index "20$1" netns switch
    ip -n host link set "eth$1" up
    ip -n switch link set "p$1" master br0
    ip -n switch link set "p$1" up
}

uname -r
ip netns add host
ip netns add switch
ip -n switch link add br0 address 02:00:00:00:5b:01 type bridge stp_state 0 forward_delay 0 mcast_snooping 0
ip -n switch link set br0 up
ip -n switch addr add 10.77.0.2/24 dev br0
cable 0
cable 1
