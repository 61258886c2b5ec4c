// SPDX-License-Identifier: MIT OR GPL-2.0
/* By a hash of what is in the Ethernet header or its VLAN tag: layer2, vlan+srcmac. */
#include "tx.bpf.h"
#include "hash.bpf.h"

SEC("classifier") int bond_tx(struct __sk_buff *skb)
{
	const struct list *list;
	int verdict = begin_list(skb, TX_ETHER, &list);

	if (verdict >= 0)
		return verdict;
	return send_nth(skb, list, ether_hash(skb, list->setting));
}
