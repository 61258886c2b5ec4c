// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * For tests only: all hashes of a frame at once. Those of the policies 0 to 4
 * go into the frame's control buffer, that of the last one is returned.
 */
#include "hash.bpf.h"

SEC("classifier") int hash_all(struct __sk_buff *skb)
{
	skb->cb[0] = ether_hash(skb, HASH_LAYER2);
	skb->cb[1] = ip_hash(skb, HASH_LAYER34);
	skb->cb[2] = ip_hash(skb, HASH_LAYER23);
	skb->cb[3] = encap_hash(skb, HASH_ENCAP23);
	skb->cb[4] = encap_hash(skb, HASH_ENCAP34);
	return ether_hash(skb, HASH_VLAN_SRCMAC);
}

char license_text[] SEC("license") = "Dual MIT/GPL";
