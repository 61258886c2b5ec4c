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
 * The verdict on a frame that goes nowhere. In a branch of its own: otherwise
 * the compiler prepares it for each frame before it knows.
 */
INLINE int drop(void)
{
	__asm__ volatile("");
	return TC_ACT_SHOT;
}

/*
 * Counts a frame that is about to leave through a port. Only an attached port
 * has an entry, others get nothing: this bounds the damage of a selector or
 * list that names an interface which left the bond.
 */
INLINE int may_leave(const struct __sk_buff *skb, __u32 ifindex)
{
	struct port *port = port_of(ifindex);

	if (!port)
		return 0;
	port->tx_frames += frames(skb);
	port->tx_bytes += skb->len;
	return 1;
}

INLINE int send(const struct __sk_buff *skb, __u32 port)
{
	return may_leave(skb, port) ? bpf_redirect(port, 0) : drop();
}

/* The port in turn for "id". */
INLINE int send_nth(const struct __sk_buff *skb, const struct list *list,
		    __u32 id)
{
	__u32 count = list->count;
	__u32 index;

	if (!count)
		return drop();
	index = id % count;
	if (index >= MAX_PORTS)
		return drop();
	return send(skb, list->ports[index]);
}

/* Remembers who sends a frame, and when. A known sender costs a write now and then, in place. */
INLINE void remember_sender(const struct __sk_buff *skb)
{
	__u8 addresses[2 * MAC];
	ASIDE __u32 now;
	__u32 *at;

	if (bpf_skb_load_bytes(skb, 0, addresses, sizeof(addresses)))
		return;
	now = SENT_CLOCK(bpf_ktime_get_ns());
	at = bpf_map_lookup_elem(&sent, addresses + MAC);
	if (!at)
		bpf_map_update_elem(&sent, addresses + MAC, (__u32 *)&now,
				    BPF_ANY);
	else if (now - *at >= SENT_STEP)
		*at = now;
}

/* Of the senders to groups, or of all. The kernel has looked at the destination already. */
INLINE int is_remembered(const struct __sk_buff *skb,
			 const struct transmit *mine)
{
	return skb->pkt_type == PACKET_BROADCAST ||
	       skb->pkt_type == PACKET_MULTICAST || mine->remember_all;
}

/*
 * Sends a marked frame through the port that the operator chose for it; returns
 * -1 if there is none, or if it is not attached any more.
 * [bond_main.c: bond_slave_override]
 */
INLINE int send_by_queue(const struct __sk_buff *skb, __u32 queue)
{
	__u32 *chosen = bpf_map_lookup_elem(&queues, &queue);
	ASIDE __u32 port;

	port = chosen ? *chosen : 0;
	return port && may_leave(skb, port) ? bpf_redirect(port, 0) : -1;
}

/*
 * What all ways of spreading have in common. Returns the verdict on a frame that
 * goes no further; -1 with the selector for the others.
 */
INLINE int begin(const struct __sk_buff *skb, __u32 program, __u32 *selector)
{
	const struct transmit *mine = bpf_map_lookup_elem(&transmit, &program);
	__u32 queue;

	if (!mine)
		return drop();
	if (is_remembered(skb, mine))
		remember_sender(skb);
	queue = skb->queue_mapping;
	if (queue) {
		int verdict = send_by_queue(skb, queue);

		if (verdict >= 0)
			return verdict;
	}
	*selector = *(volatile const __u32 *)&mine->selector;
	return *selector ? -1 : drop();
}

/* As begin(), for a program that reads lists. */
INLINE int begin_list(const struct __sk_buff *skb, __u32 program,
		      const struct list **list)
{
	__u32 selector, slot;
	int verdict = begin(skb, program, &selector);

	if (verdict >= 0)
		return verdict;
	slot = LIST_SLOT(selector);
	*list = bpf_map_lookup_elem(&lists, &slot);
	return *list ? -1 : drop();
}

#endif
