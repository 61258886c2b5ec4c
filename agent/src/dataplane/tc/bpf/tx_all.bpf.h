/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * A copy through every port: broadcast. The kernel checks each turn of the
 * loop when it loads the program, so there is one for few ports and one for
 * as many as there can be.
 */
#include "tx.bpf.h"

/*
 * A copy through every port but the last, which gets the frame itself. A copy
 * that the kernel refuses does not stop the others.
 * [bond_main.c: bond_xmit_broadcast]
 */
INLINE int send_all(struct __sk_buff *skb, const struct list *list,
		    __u32 most)
{
	__u32 count = list->count;
	__u32 index;

#pragma clang loop unroll(disable)
	for (index = 0; index < most; index++) {
		__u32 port = list->ports[index];

		if (index + 1 >= count)
			return send(skb, port);
		if (may_leave(skb, port))
			bpf_clone_redirect(skb, port, 0);
	}
	return TC_ACT_SHOT;
}

INLINE int broadcast(struct __sk_buff *skb, __u32 program, __u32 most)
{
	const struct list *list;
	int verdict = begin_list(skb, program, &list);

	return verdict < 0 ? send_all(skb, list, most) : verdict;
}
