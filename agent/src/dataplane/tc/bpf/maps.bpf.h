/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * The maps of one bond, and what all its programs share.
 *
 *	stack - bond0 ======= wire<N>  <- bond_tx (tx_*.bpf.c)
 *	                         |
 *	                  eth0  eth1   <- port_rx
 *
 * bond_tx on the ingress of the wire sends frames of the stack out of a port;
 * there is one program for each way of spreading, and a bond has the one that
 * its mode and policy need. port_rx on the ingress of each port lets frames in
 * or refuses them.
 *
 * Each bond has its own set of maps, pinned by name. The agent writes them,
 * the programs only read, apart from what they count and hear. Nothing here
 * depends on the agent being alive.
 *
 * The maps are defined the old way (section "maps") and no BTF is emitted, so
 * that kernels without BTF load this too; gso_segs needs 5.1 and loops need
 * 5.3; older kernels than 5.6 get the clock in place of the tick, see
 * object.rs. The layout of the values is an interface between versions of bondd: a
 * newer agent takes over the pinned maps of an older one. A change of it takes
 * a new LAYOUT in maps.rs and a step in upgrade.rs.
 */
#ifndef MAPS_BPF_H
#define MAPS_BPF_H

#include "common.bpf.h"
#include "selector.bpf.h"

/* Key of the maps "own" and "sent". */
#define MAC 6

/*
 * A value of "sent": the clock in units of 2^20 ns, about a millisecond. It
 * comes round after 52 days; an address that was silent for just that long counts
 * as a sender for one more second.
 */
#define SENT_CLOCK(ns) ((__u32)((ns) >> 20))

/*
 * A second: what a switch floods back is here within milliseconds, and a guest
 * that moved to a host behind the switch is heard from there later than that.
 */
#define SENT_FOR 954

/*
 * Not every frame writes: a value may be that much older than the last frame
 * of its sender.
 */
#define SENT_STEP 64

/* BPF_F_NO_PREALLOC: memory for the entries that there are, on each CPU. */
#define ON_DEMAND 1

/*
 * Value of the map "lists". It is written while no selector names its slot,
 * and not before every program that may have read such a selector has ended;
 * so a program that found it through the selector sees one list, whole.
 */
struct list {
	__u32 kind;	/* for the agent; see lists.rs */
	__u32 setting;	/* frames per port in a row, or the hash policy */
	__u32 igmp;	/* ifindex; round robin only */
	__u32 count;
	__u32 ports[MAX_PORTS];	/* ifindexes, the first "count" ones */
};

/*
 * Value of the map "ports", on each CPU, as a card spreads frames over all of
 * them: no line of memory travels between them for a count or a stamp, and the
 * agent takes the sum, or the latest. Times are nanoseconds of
 * CLOCK_MONOTONIC; 0 for never.
 */
struct port {
	__u32 rule;	/* slot in the map "rules"; never changes */
	__u32 wire;	/* ifindex; never changes */
	__u64 tx_frames;
	__u64 tx_bytes;
	__u64 rx_frames;	/* let in */
	__u64 rx_bytes;
	__u64 rx_dropped;	/* refused on a backup port */
	/* of the last stamp in "any_ns"; programs of other builds write a time */
	__u64 any_tick;
	/*
	 * When a frame came, let in or not, by sender, for the ARP monitor,
	 * which must not take for life what the bond said itself.
	 */
	__u64 any_ns;		/* not sent by the bond */
	__u64 probes_ns;	/* likewise, and ARP or IPv6 */
	__u64 own_ns;		/* sent through the bond, brought back */
};

/*
 * Value of the map "near", on each CPU: a port that is found by the lowest bits
 * of its ifindex, without the search that takes most of the time of a look-up
 * in "ports".
 */
struct near {
	struct port port;
	__u32 ifindex;	/* 0: no port has this slot */
	__u32 unused;
};

/* Slots of "near". It holds memory for each of them on each CPU. */
#define NEAR 8

struct bpf_map_def SEC("maps") transmit = {
	.type = BPF_MAP_TYPE_ARRAY,
	.key_size = sizeof(__u32),
	.value_size = sizeof(struct transmit),
	.max_entries = TX_PROGRAMS,
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

/* ifindex % NEAR; the agent gives a slot to the first port that asks for it */
struct bpf_map_def SEC("maps") near = {
	.type = BPF_MAP_TYPE_PERCPU_ARRAY,
	.key_size = sizeof(__u32),
	.value_size = sizeof(struct near),
	.max_entries = NEAR,
};

/* ifindex of a port; there is an entry for each attached port without a slot in "near" */
struct bpf_map_def SEC("maps") ports = {
	.type = BPF_MAP_TYPE_PERCPU_HASH,
	.key_size = sizeof(__u32),
	.value_size = sizeof(struct port),
	.max_entries = MAX_PORTS,
	.map_flags = ON_DEMAND,
};

/*
 * What is let in. Not in the value of the port: the agent cannot write to that
 * without writing over what the programs count meanwhile.
 */
struct bpf_map_def SEC("maps") rules = {
	.type = BPF_MAP_TYPE_ARRAY,
	.key_size = sizeof(__u32),
	.value_size = sizeof(__u32),
	.max_entries = MAX_PORTS,
};

/* Addresses of the bond and its ports, those to come and to go included */
struct bpf_map_def SEC("maps") own = {
	.type = BPF_MAP_TYPE_HASH,
	.key_size = MAC,
	.value_size = sizeof(__u32),
	.max_entries = 2 * (MAX_PORTS + 1),
	.map_flags = ON_DEMAND,
};

/*
 * Senders above the bond, such as guests behind a bridge, and when they last
 * sent: those whose group frames left through it, which a switch floods to the
 * other ports, and under a bridge all of them, as a switch floods also what is
 * for a station that it does not know. Programs of other builds write a 1 and
 * leave it: to these the sender has been silent for long.
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

/*
 * For the agent alone: the version of all these maps, which program is on the
 * wire, and from which build.
 */
struct state {
	__u32 layout;
	__u32 program;
	__u64 build;
};

struct bpf_map_def SEC("maps") state = {
	.type = BPF_MAP_TYPE_ARRAY,
	.key_size = sizeof(__u32),
	.value_size = sizeof(struct state),
	.max_entries = 1,
};

/* What is counted of an attached port; none if it is not attached. */
INLINE struct port *port_of(__u32 ifindex)
{
	__u32 slot = ifindex % NEAR;
	struct near *found = bpf_map_lookup_elem(&near, &slot);

	if (found && found->ifindex == ifindex)
		return &found->port;
	slot = ifindex;
	return bpf_map_lookup_elem(&ports, &slot);
}

/* Frames that an skb stands for: it may be segmented or merged by offloads. */
INLINE __u32 frames(const struct __sk_buff *skb)
{
	__u32 segs = skb->gso_segs;

	return segs ? segs : 1;
}

/* Helpers for GPL-compatible programs only are open to "Dual MIT/GPL". */
char license_text[] SEC("license") = "Dual MIT/GPL";

#endif
