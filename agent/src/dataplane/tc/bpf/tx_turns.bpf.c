// SPDX-License-Identifier: MIT OR GPL-2.0
/* One port after the other: balance-rr. */
#include "tx.bpf.h"

#define PROTO_IGMP 2

/* IGMP in IPv4 with a whole header. [bond_main.c: bond_xmit_roundrobin_slave_get] */
INLINE int is_igmp(const struct __sk_buff *skb)
{
	__u8 proto;

	if (skb->protocol != HTONS(TYPE_IPV4) || skb->len < ETH_HEADER + 20)
		return 0;
	if (START(skb) + ETH_HEADER + 20 <= END(skb))
		return START(skb)[ETH_HEADER + 9] == PROTO_IGMP;
	return !bpf_skb_load_bytes(skb, ETH_HEADER + 9, &proto, 1) &&
	       proto == PROTO_IGMP;
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

SEC("classifier") int bond_tx(struct __sk_buff *skb)
{
	const struct list *list;
	int verdict = begin_list(skb, TX_TURNS, &list);

	if (verdict >= 0)
		return verdict;
	if (is_igmp(skb))
		return send(skb, list->igmp);
	return send_nth(skb, list, next_id(list->setting));
}
