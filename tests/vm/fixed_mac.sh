#!/bin/sh
# In the guest: ports whose driver cannot change their address, beside the kernel's driver: which ones each mode takes, first and
# second, and what becomes of fail_over_mac.
. /common.sh

mkdir /tmp/sys
in_host mount -t sysfs sysfs /tmp/sys || fail "no sysfs"

# interfaces: two that keep their address and two that do not.
interfaces() {
    for name in f1 f2; do ip -n host link add $name type ifb || fail "no ifb"; done
    for name in v1 v2; do ip -n host link add $name type veth peer name w$name; done
}
remove() { for name in f1 f2 v1 v2; do ip -n host link del $name; done; }

# by_kernel MODE PORT...: sets `answers` to what the driver takes, and fail_over_mac at the end.
by_kernel() {
    mode=$1; shift
    answers=
    interfaces
    ip -n host link add theirs type bond mode "$mode" miimon 100
    for port; do
        if ip -n host link set "$port" master theirs 2>/dev/null; then answers="$answers $port:yes"; else answers="$answers $port:no"; fi
    done
    answers="$answers $(cat /tmp/sys/class/net/theirs/bonding/fail_over_mac)"
    ip -n host link del theirs
    remove
}
# by_agent PLANE MODE PORT...: the same for a bond of ours; `said` is what bondctl said.
by_agent() {
    plane=$1 mode=$2; shift 2
    answers=
    said=
    interfaces
    ctl add ours plane="$plane" mode="$mode" miimon=100 || fail "add plane=$plane mode=$mode"
    for port; do
        if text=$(ctl port add ours "$port" 2>&1); then answers="$answers $port:yes"; else answers="$answers $port:no"; fi
        said="$said $text"
    done
    answers="$answers $(cat /run/bondd/sys/class/net/ours/bonding/fail_over_mac)"
    ctl del ours
    remove
}

start
for mode in balance-rr active-backup balance-xor broadcast; do
    for ports in "f1 f2 v1" "v1 f1 f2"; do
        # Unquoted: words.
        by_kernel $mode $ports; theirs=$answers
        by_agent tc $mode $ports
        echo "$mode $ports:$theirs"
        [ "$answers" = "$theirs" ] || fail "$mode $ports: the kernel's driver says$theirs, tc says$answers ($said)"
    done
done

# The team driver sets the address of every port itself.
by_agent team active-backup v1 f1 v2
[ "$answers" = " v1:yes f1:no v2:yes none 0" ] || fail "team: $answers"
by_agent team active-backup f1
[ "$answers" = " f1:no none 0" ] || fail "team alone: $answers"
case "$said" in
    *"the team driver sets that of every port"*) ;;
    *) fail "team said: $said" ;;
esac

echo "all steps passed"
