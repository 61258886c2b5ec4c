// SPDX-License-Identifier: MIT OR GPL-2.0
/* By a hash of addresses and ports right behind the Ethernet header: layer2+3, layer3+4. */
#include "tx.bpf.h"
#include "hash.bpf.h"

SEC("classifier") int bond_tx(struct __sk_buff *skb)
{
	const struct list *list;
	int verdict = begin_list(skb, TX_IP, &list);

	if (verdict >= 0)
		return verdict;
	return send_nth(skb, list, ip_hash(skb, list->setting));
}
