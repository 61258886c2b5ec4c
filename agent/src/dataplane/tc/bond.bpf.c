// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * The forwarding of one bond: bond_tx on the ingress of the wire sends frames
 * of the stack out of a port, port_rx on the ingress of each port lets frames
 * in or refuses them.
 *
 *	stack - bond0 ======= wire<N>  <- bond_tx
 *	                         |
 *	                  eth0  eth1   <- port_rx
 *
 * Each bond has its own set of maps, pinned by name. The agent writes them,
 * the programs only read, apart from what they count and hear. Nothing here
 * depends on the agent being alive.
 *
 * The maps are defined the old way (section "maps") and no BTF is emitted, so
 * that kernels without BTF load this too; gso_segs needs 5.1 and loops need
 * 5.3. The layout of the values is an interface between versions of bondd: a
 * newer agent takes over the pinned maps of an older one.
 */
#include <linux/if_packet.h>
#include <linux/pkt_cls.h>

#include "common.bpf.h"
#include "hash.bpf.h"

/* Ports of one bond. */
#define MAX_PORTS 256

/* Slots of the map "state". */
enum {
	/*
	 * Where frames of the stack leave: 0 for nowhere, the ifindex of a
	 * port, or with bit 31 set a list of ports: bits 24 to 30 are its slot
	 * in the map "lists", the others do not count. Moving the traffic is
	 * one write of four bytes; from a list to another or to nowhere only
	 * the highest of them differs, however the kernel copies.
	 */
	STATE_TX,
	/* ifindex of the wire */
	STATE_WIRE,
	STATE_SLOTS,
};

#define IS_LIST 0x80000000
#define LIST_SLOT(selector) ((selector) >> 24 & 0x7f)
/* Slot 0 is never filled: an empty list sends nowhere. */
#define LIST_SLOTS 16

/* Kinds of lists. */
enum {
	LIST_ROUND_ROBIN = 1,
	LIST_HASH,
	LIST_ALL,
};

/*
 * Value of the map "lists". It is written while no selector names its slot,
 * and not before every program that may have read such a selector has ended;
 * so a program that found it through the selector sees one list, whole.
 */
struct list {
	__u32 kind;
	__u32 setting;	/* frames per port in a row, or the hash policy */
	__u32 igmp;	/* ifindex; round robin only */
	__u32 count;
	__u32 ports[MAX_PORTS];	/* ifindexes, the first "count" ones */
};

/* Values of the map "accept"; a port without an entry lets nothing in. */
enum {
	ACCEPT_NONE,
	ACCEPT_UNICAST,
	ACCEPT_ALL,
};

/* Value of the map "counters". */
struct port_counters {
	__u64 tx_frames;
	__u64 tx_bytes;
	__u64 rx_frames;	/* let in */
	__u64 rx_bytes;
	__u64 rx_dropped;	/* refused on a backup port */
	__u64 last_rx_ns;	/* CLOCK_MONOTONIC; any frame, let in or not */
};

/*
 * Value of the map "heard": when the last such frame came, let in or not, in
 * nanoseconds of CLOCK_MONOTONIC; 0 for never. For the ARP monitor, which must
 * not take for life what the bond said itself.
 */
struct heard {
	__u64 any_ns;		/* sent by somebody else */
	__u64 probes_ns;	/* likewise, and ARP or IPv6 */
	__u64 own_ns;		/* sent through the bond, brought back */
};

/* How much older than the last frame the stamp of "any" may be. */
#define STAMP_AGE_NS 1000000

/* Key of the maps "own" and "sent". */
#define MAC 6

struct bpf_map_def SEC("maps") state = {
	.type = BPF_MAP_TYPE_ARRAY,
	.key_size = sizeof(__u32),
	.value_size = sizeof(__u32),
	.max_entries = STATE_SLOTS,
};

struct bpf_map_def SEC("maps") lists = {
	.type = BPF_MAP_TYPE_ARRAY,
	.key_size = sizeof(__u32),
	.value_size = sizeof(struct list),
	.max_entries = LIST_SLOTS,
};

/* Frames sent by round robin, per CPU as the driver counts them */
struct bpf_map_def SEC("maps") turns = {
	.type = BPF_MAP_TYPE_PERCPU_ARRAY,
	.key_size = sizeof(__u32),
	.value_size = sizeof(__u32),
	.max_entries = 1,
};

/* ifindex of a port -> what is let in */
struct bpf_map_def SEC("maps") accept = {
	.type = BPF_MAP_TYPE_HASH,
	.key_size = sizeof(__u32),
	.value_size = sizeof(__u32),
	.max_entries = MAX_PORTS,
};

/* ifindex of a port -> its traffic; there is an entry for each attached port */
struct bpf_map_def SEC("maps") counters = {
	.type = BPF_MAP_TYPE_PERCPU_HASH,
	.key_size = sizeof(__u32),
	.value_size = sizeof(struct port_counters),
	.max_entries = MAX_PORTS,
};

/*
 * ifindex of a port -> what is heard there. Per CPU, as a card spreads frames
 * over all of them: no line of memory travels between them for a stamp, and
 * the agent takes the latest.
 */
struct bpf_map_def SEC("maps") heard = {
	.type = BPF_MAP_TYPE_PERCPU_HASH,
	.key_size = sizeof(__u32),
	.value_size = sizeof(struct heard),
	.max_entries = MAX_PORTS,
};

/* Addresses of the bond and its ports, those to come and to go included */
struct bpf_map_def SEC("maps") own = {
	.type = BPF_MAP_TYPE_HASH,
	.key_size = MAC,
	.value_size = sizeof(__u32),
	.max_entries = 2 * (MAX_PORTS + 1),
};

/*
 * Senders above the bond, such as guests behind a bridge: those whose group
 * frames left through it, which a switch floods to the other ports
 */
struct bpf_map_def SEC("maps") sent = {
	.type = BPF_MAP_TYPE_LRU_HASH,
	.key_size = MAC,
	.value_size = sizeof(__u32),
	.max_entries = 1024,
};

/*
 * Queue that an operator marked frames with -> ifindex of the port that they
 * leave through, 0 for as all others do. Slot 0 is for frames without a mark
 * and stays empty.
 */
struct bpf_map_def SEC("maps") queues = {
	.type = BPF_MAP_TYPE_ARRAY,
	.key_size = sizeof(__u32),
	.value_size = sizeof(__u32),
	.max_entries = 256,
};

/* Frames that an skb stands for: it may be segmented or merged by offloads. */
INLINE __u32 frames(const struct __sk_buff *skb)
{
	__u32 segs = skb->gso_segs;

	return segs ? segs : 1;
}

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
 * Counts a frame that is about to leave through a port. Only an attached port
 * has counters, others get nothing: this bounds the damage of a selector or
 * list that names an interface which left the bond.
 */
INLINE int may_leave(const struct __sk_buff *skb, __u32 port)
{
	struct port_counters *counter;

	counter = bpf_map_lookup_elem(&counters, &port);
	if (!counter)
		return 0;
	counter->tx_frames += frames(skb);
	counter->tx_bytes += skb->len;
	return 1;
}

INLINE int send(const struct __sk_buff *skb, __u32 port)
{
	return may_leave(skb, port) ? bpf_redirect(port, 0) : TC_ACT_SHOT;
}

/* The port in turn for "id". */
INLINE int send_nth(const struct __sk_buff *skb, const struct list *list,
		    __u32 id)
{
	__u32 count = list->count;
	__u32 index;

	if (!count)
		return TC_ACT_SHOT;
	index = id % count;
	if (index >= MAX_PORTS)
		return TC_ACT_SHOT;
	return send(skb, list->ports[index]);
}

/* IGMP in IPv4 with a whole header. [bond_main.c: bond_xmit_roundrobin_slave_get] */
INLINE int is_igmp(const struct __sk_buff *skb)
{
	__u8 header[ETH_HEADER + 20];

	if (bpf_skb_load_bytes(skb, 0, header, sizeof(header)))
		return 0;
	return be16(header + 12) == TYPE_IPV4 && header[ETH_HEADER + 9] == 2;
}

/*
 * A number for each frame, counted from 1 on each CPU; frames with the same
 * number leave through the same port.
 * [bond_main.c: bond_rr_gen_slave_id]
 */
INLINE __u32 next_id(__u32 frames_per_port)
{
	__u32 slot = 0;
	__u32 *turn;
	__u32 id;

	if (!frames_per_port)
		return bpf_get_prandom_u32();
	turn = bpf_map_lookup_elem(&turns, &slot);
	if (!turn)
		return 0;
	id = ++*turn;
	return frames_per_port == 1 ? id : id / frames_per_port;
}

/*
 * A copy through every port but the last, which gets the frame itself. A copy
 * that the kernel refuses does not stop the others.
 * [bond_main.c: bond_xmit_broadcast]
 */
INLINE int send_all(struct __sk_buff *skb, const struct list *list)
{
	__u32 count = list->count;
	__u32 index;

#pragma clang loop unroll(disable)
	for (index = 0; index < MAX_PORTS; index++) {
		__u32 port = list->ports[index];

		if (index + 1 >= count)
			return send(skb, port);
		if (may_leave(skb, port))
			bpf_clone_redirect(skb, port, 0);
	}
	return TC_ACT_SHOT;
}

/*
 * Remembers who sends to groups. The kernel has looked at the destination
 * already; a known sender costs no write.
 */
INLINE void remember_sender(const struct __sk_buff *skb)
{
	const __u32 here = 1;
	__u8 addresses[2 * MAC];

	if (skb->pkt_type != PACKET_BROADCAST &&
	    skb->pkt_type != PACKET_MULTICAST)
		return;
	if (bpf_skb_load_bytes(skb, 0, addresses, sizeof(addresses)))
		return;
	if (!bpf_map_lookup_elem(&sent, addresses + MAC))
		bpf_map_update_elem(&sent, addresses + MAC, &here, BPF_ANY);
}

/*
 * The port that the operator chose for this frame; 0 if none, or if it is not
 * attached any more. [bond_main.c: bond_slave_override]
 */
INLINE __u32 chosen_by_queue(const struct __sk_buff *skb)
{
	__u32 queue = skb->queue_mapping;
	__u32 *port;

	if (!queue)
		return 0;
	port = bpf_map_lookup_elem(&queues, &queue);
	return port && *port && may_leave(skb, *port) ? *port : 0;
}

SEC("classifier") int bond_tx(struct __sk_buff *skb)
{
	__u32 slot = STATE_TX;
	__u32 *selector;
	__u32 chosen;
	const struct list *list;

	remember_sender(skb);
	chosen = chosen_by_queue(skb);
	if (chosen)
		return bpf_redirect(chosen, 0);

	selector = bpf_map_lookup_elem(&state, &slot);
	if (!selector)
		return TC_ACT_SHOT;
	chosen = *(volatile __u32 *)selector;
	if (!(chosen & IS_LIST))
		return send(skb, chosen);

	slot = LIST_SLOT(chosen);
	list = bpf_map_lookup_elem(&lists, &slot);
	if (!list)
		return TC_ACT_SHOT;
	switch (list->kind) {
	case LIST_ROUND_ROBIN:
		if (is_igmp(skb))
			return send(skb, list->igmp);
		return send_nth(skb, list, next_id(list->setting));
	case LIST_HASH:
		return send_nth(skb, list, frame_hash(skb, list->setting));
	case LIST_ALL:
		return send_all(skb, list);
	}
	return TC_ACT_SHOT;
}

/*
 * ARP or IPv6, of whatever kind, also behind a tag that is in the bytes: the
 * outermost one is not, if there are two. [bond_main.c: bond_rcv_validate]
 */
INLINE int is_probe(const struct __sk_buff *skb, const __u8 *header)
{
	__u32 type = be16(header + 2 * MAC);
	__u8 inner[2];

	if (type == TYPE_VLAN || type == TYPE_QINQ) {
		if (bpf_skb_load_bytes(skb, ETH_HEADER + 2, inner, sizeof(inner)))
			return 0;
		type = be16(inner);
	}
	return type == TYPE_ARP || type == TYPE_IPV6;
}

/*
 * Under load most frames only look at the clock: whose they are matters when
 * nothing was heard for a while, and for probes.
 */
INLINE void hear(const struct __sk_buff *skb, __u32 port, const __u8 *header,
		 __u64 now)
{
	struct heard *stamps = bpf_map_lookup_elem(&heard, &port);
	int probe = is_probe(skb, header);

	if (!stamps || (!probe && now - stamps->any_ns < STAMP_AGE_NS))
		return;
	if (bpf_map_lookup_elem(&own, header + MAC) ||
	    bpf_map_lookup_elem(&sent, header + MAC)) {
		stamps->own_ns = now;
		return;
	}
	stamps->any_ns = now;
	if (probe)
		stamps->probes_ns = now;
}

SEC("classifier") int port_rx(struct __sk_buff *skb)
{
	struct port_counters *counter;
	__u32 port = skb->ifindex;
	__u32 slot = STATE_WIRE;
	__u32 *rule, *wire;
	__u8 header[ETH_HEADER];
	__u64 now;

	counter = bpf_map_lookup_elem(&counters, &port);
	if (!counter)
		return TC_ACT_SHOT;
	now = bpf_ktime_get_ns();
	counter->last_rx_ns = now;

	/*
	 * A copy, also of what a driver left outside the linear part: a
	 * pointer into the frame that may be null asks for CAP_PERFMON.
	 */
	wire = bpf_map_lookup_elem(&state, &slot);
	if (!wire || bpf_skb_load_bytes(skb, 0, header, sizeof(header)))
		goto refuse;
	hear(skb, port, header, now);

	rule = bpf_map_lookup_elem(&accept, &port);
	if (rule && (*rule == ACCEPT_ALL ||
		     (*rule == ACCEPT_UNICAST && !(header[0] & 1)))) {
		counter->rx_frames += frames(skb);
		counter->rx_bytes += skb->len;
		/* out of the wire, hence into the bond as if off a cable */
		return bpf_redirect(*wire, 0);
	}

	/* Protocols of the cable work on a backup port too. */
	if (link_local(header))
		return TC_ACT_OK;
refuse:
	counter->rx_dropped += frames(skb);
	return TC_ACT_SHOT;
}

/* Helpers for GPL-compatible programs only are open to "Dual MIT/GPL". */
char license_text[] SEC("license") = "Dual MIT/GPL";
