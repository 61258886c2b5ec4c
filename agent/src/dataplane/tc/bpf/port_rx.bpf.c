// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * What a port hears goes out of the wire, hence into the bond as if off a
 * cable, or is refused.
 */
#include <linux/pkt_cls.h>

#include "maps.bpf.h"

/*
 * 01:80:c2:00:00:0X: for the far end of this very cable (LACP, LLDP, 802.1X,
 * spanning tree), never forwarded. [802.1Q-2022 table 8-1]
 */
INLINE int link_local(const __u8 *dst)
{
	return dst[0] == 0x01 && dst[1] == 0x80 && dst[2] == 0xc2 &&
	       dst[3] == 0x00 && dst[4] == 0x00 && (dst[5] & 0xf0) == 0x00;
}

/*
 * ARP or IPv6, of whatever kind, also behind a tag that is in the bytes: the
 * outermost one is not, if there are two. [bond_main.c: bond_rcv_validate]
 */
INLINE int is_probe(const struct __sk_buff *skb)
{
	__u32 type = skb->protocol;
	__u16 inner;

	if (type == HTONS(TYPE_VLAN) || type == HTONS(TYPE_QINQ)) {
		if (bpf_skb_load_bytes(skb, ETH_HEADER + 2, &inner, sizeof(inner)))
			return 0;
		type = inner;
	}
	return type == HTONS(TYPE_ARP) || type == HTONS(TYPE_IPV6);
}

/*
 * Whether the bond sent this, or a host above it that has sent lately: a host
 * that was silent for a while may have moved to where the frame comes from.
 */
INLINE int is_ours(const __u8 *source, __u64 now)
{
	const __u32 *at;

	if (bpf_map_lookup_elem(&own, source))
		return 1;
	at = bpf_map_lookup_elem(&sent, source);
	/* Another processor may have written a time that is a little later. */
	return at &&
	       SENT_CLOCK(now) - *at + SENT_STEP < SENT_FOR + SENT_STEP;
}

/*
 * Fast path: within a tick of the last stamp only ARP and IPv6 frames are
 * looked at. So the stamp of "any" may be a tick older than the last frame, as
 * the driver's stamps are.
 */
INLINE void hear(const struct __sk_buff *skb, struct port *port)
{
	__u64 tick = bpf_jiffies64();
	int probe = is_probe(skb);
	__u8 addresses[2 * MAC];
	__u64 now;

	if (!probe && port->any_tick == tick)
		return;
	if (bpf_skb_load_bytes(skb, 0, addresses, sizeof(addresses)))
		return;
	now = bpf_ktime_get_ns();
	if (is_ours(addresses + MAC, now)) {
		port->own_ns = now;
		return;
	}
	port->any_tick = tick;
	port->any_ns = now;
	if (probe)
		port->probes_ns = now;
}

INLINE int let_in(const struct __sk_buff *skb, struct port *port)
{
	port->rx_frames += frames(skb);
	port->rx_bytes += skb->len;
	return bpf_redirect(port->wire, 0);
}

SEC("classifier") int port_rx(struct __sk_buff *skb)
{
	__u32 ifindex = skb->ifindex;
	struct port *port = port_of(ifindex);
	__u8 addresses[2 * MAC];
	__u32 slot, *rule;

	if (!port)
		return TC_ACT_SHOT;
	hear(skb, port);

	slot = port->rule;
	rule = bpf_map_lookup_elem(&rules, &slot);
	if (rule && *rule == ACCEPT_ALL)
		return let_in(skb, port);

	/*
	 * A copy, also of what a driver left outside the linear part: a
	 * pointer into the frame that may be null asks for CAP_PERFMON.
	 */
	if (bpf_skb_load_bytes(skb, 0, addresses, sizeof(addresses)))
		goto refuse;
	/*
	 * The port waits to be used, or was left a moment ago. What the bond
	 * sent through another port and the switch flooded to this one stays
	 * out: a bridge above would look for its sender down here.
	 */
	if (rule && *rule == ACCEPT_UNICAST && !(addresses[0] & 1) &&
	    !is_ours(addresses + MAC, bpf_ktime_get_ns()))
		return let_in(skb, port);

	/* Protocols of the cable work on a backup port too. */
	if (link_local(addresses))
		return TC_ACT_OK;
refuse:
	port->rx_dropped += frames(skb);
	return TC_ACT_SHOT;
}
