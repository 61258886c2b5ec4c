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
 * the programs only read, apart from the counters. Nothing here depends on the
 * agent being alive.
 *
 * The maps are defined the old way (section "maps") and no BTF is emitted, so
 * that kernels without BTF load this too; gso_segs needs 5.1. The layout of
 * the values is an interface between versions of bondd: a newer agent takes
 * over the pinned maps of an older one.
 */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>

#define SEC(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline))

/* The helpers in use, so that no libbpf is needed to compile this. */
static void *(*bpf_map_lookup_elem)(void *map, const void *key) =
	(void *)BPF_FUNC_map_lookup_elem;
static __u64 (*bpf_ktime_get_ns)(void) = (void *)BPF_FUNC_ktime_get_ns;
static long (*bpf_redirect)(__u32 ifindex, __u64 flags) =
	(void *)BPF_FUNC_redirect;
static long (*bpf_skb_load_bytes)(const void *skb, __u32 offset, void *to,
				  __u32 len) =
	(void *)BPF_FUNC_skb_load_bytes;

struct bpf_map_def {
	__u32 type;
	__u32 key_size;
	__u32 value_size;
	__u32 max_entries;
	__u32 map_flags;
};

/* Ports of one bond. */
#define MAX_PORTS 256

/* Slots of the map "state". */
enum {
	/*
	 * Where frames of the stack leave: 0 for nowhere, else the ifindex of
	 * a port. Values with bit 31 are reserved for lists of ports. Moving
	 * the traffic to another port is one write of four bytes.
	 */
	STATE_TX,
	/* ifindex of the wire */
	STATE_WIRE,
	STATE_SLOTS,
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

struct bpf_map_def SEC("maps") state = {
	.type = BPF_MAP_TYPE_ARRAY,
	.key_size = sizeof(__u32),
	.value_size = sizeof(__u32),
	.max_entries = STATE_SLOTS,
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

SEC("classifier") int bond_tx(struct __sk_buff *skb)
{
	struct port_counters *counter;
	__u32 slot = STATE_TX;
	__u32 *selector;
	__u32 port;

	selector = bpf_map_lookup_elem(&state, &slot);
	if (!selector)
		return TC_ACT_SHOT;
	port = *(volatile __u32 *)selector;

	/*
	 * Only an attached port has counters. This also bounds the damage of
	 * a selector that names an interface which left the bond.
	 */
	counter = bpf_map_lookup_elem(&counters, &port);
	if (!counter)
		return TC_ACT_SHOT;
	counter->tx_frames += frames(skb);
	counter->tx_bytes += skb->len;
	return bpf_redirect(port, 0);
}

SEC("classifier") int port_rx(struct __sk_buff *skb)
{
	struct port_counters *counter;
	__u32 port = skb->ifindex;
	__u32 slot = STATE_WIRE;
	__u32 *rule, *wire;
	__u8 dst[6];

	counter = bpf_map_lookup_elem(&counters, &port);
	if (!counter)
		return TC_ACT_SHOT;
	counter->last_rx_ns = bpf_ktime_get_ns();

	/*
	 * A copy, also of what a driver left outside the linear part: a
	 * pointer into the frame that may be null asks for CAP_PERFMON.
	 */
	wire = bpf_map_lookup_elem(&state, &slot);
	if (!wire || bpf_skb_load_bytes(skb, 0, dst, sizeof(dst)))
		goto refuse;

	rule = bpf_map_lookup_elem(&accept, &port);
	if (rule && (*rule == ACCEPT_ALL ||
		     (*rule == ACCEPT_UNICAST && !(dst[0] & 1)))) {
		counter->rx_frames += frames(skb);
		counter->rx_bytes += skb->len;
		/* out of the wire, hence into the bond as if off a cable */
		return bpf_redirect(*wire, 0);
	}

	/* Protocols of the cable work on a backup port too. */
	if (link_local(dst))
		return TC_ACT_OK;
refuse:
	counter->rx_dropped += frames(skb);
	return TC_ACT_SHOT;
}

/* Helpers for GPL-compatible programs only are open to "Dual MIT/GPL". */
char license_text[] SEC("license") = "Dual MIT/GPL";
