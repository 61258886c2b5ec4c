// SPDX-License-Identifier: MIT OR GPL-2.0
/* By a hash of what is in the Ethernet header or its VLAN tag: layer2, vlan+srcmac. */
#include "tx.bpf.h"
#include "hash.bpf.h"

SEC("classifier") int bond_tx(struct __sk_buff *skb)
{
	int verdict;
	const struct list *list = begin_list(skb, TX_ETHER, &verdict);

	if (!list)
		return verdict;
	return send_nth(skb, list, ether_hash(skb, list->setting));
}
