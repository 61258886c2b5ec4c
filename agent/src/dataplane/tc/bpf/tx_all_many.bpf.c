// SPDX-License-Identifier: MIT OR GPL-2.0
/* A copy through each of as many ports as a bond can have. */
#include "tx_all.bpf.h"

SEC("classifier") int bond_tx(struct __sk_buff *skb)
{
	return broadcast(skb, TX_ALL_MANY, MAX_PORTS);
}
