/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * What the programs for the wire have in common. Each defines bond_tx, which
 * calls begin() and then sends the frame its own way.
 */
#ifndef TX_BPF_H
#define TX_BPF_H

#include <linux/if_packet.h>
#include <linux/pkt_cls.h>

#include "maps.bpf.h"

/*
 * Counts a frame that is about to leave through a port. Only an attached port
 * has an entry, others get nothing: this bounds the damage of a selector or
 * list that names an interface which left the bond.
 */
INLINE int may_leave(const struct __sk_buff *skb, __u32 ifindex)
{
	struct port *port = bpf_map_lookup_elem(&ports, &ifindex);

	if (!port)
		return 0;
	port->tx_frames += frames(skb);
	port->tx_bytes += skb->len;
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

/*
 * Remembers the senders to groups, or all senders, and when they sent. The
 * kernel has looked at the destination already; a known sender costs a write
 * now and then, in place.
 */
INLINE void remember_sender(const struct __sk_buff *skb,
			    const struct transmit *mine)
{
	__u8 addresses[2 * MAC];
	__u32 now, *at;

	if (skb->pkt_type != PACKET_BROADCAST &&
	    skb->pkt_type != PACKET_MULTICAST && !mine->remember_all)
		return;
	if (bpf_skb_load_bytes(skb, 0, addresses, sizeof(addresses)))
		return;
	now = SENT_CLOCK(bpf_ktime_get_ns());
	at = bpf_map_lookup_elem(&sent, addresses + MAC);
	if (!at)
		bpf_map_update_elem(&sent, addresses + MAC, &now, BPF_ANY);
	else if (now - *at >= SENT_STEP)
		*at = now;
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

/*
 * What all ways of spreading have in common. Returns the selector for the frame; 0
 * if it goes no further, and its fate is in "verdict" then.
 */
INLINE __u32 begin(const struct __sk_buff *skb, __u32 program, int *verdict)
{
	const struct transmit *mine = bpf_map_lookup_elem(&transmit, &program);
	__u32 chosen;

	*verdict = TC_ACT_SHOT;
	if (!mine)
		return 0;
	remember_sender(skb, mine);
	chosen = chosen_by_queue(skb);
	if (chosen) {
		*verdict = bpf_redirect(chosen, 0);
		return 0;
	}
	return *(volatile const __u32 *)&mine->selector;
}

/* As begin(), for a program that reads lists: the list in force, or none. */
INLINE const struct list *begin_list(const struct __sk_buff *skb,
				     __u32 program, int *verdict)
{
	__u32 selector = begin(skb, program, verdict);
	__u32 slot = LIST_SLOT(selector);

	return selector ? bpf_map_lookup_elem(&lists, &slot) : 0;
}

#endif
