// SPDX-License-Identifier: MIT OR GPL-2.0
/* A copy through each of a few ports. */
#include "tx_all.bpf.h"

/* [object.rs: FEW] */
#define FEW 16

SEC("classifier") int bond_tx(struct __sk_buff *skb)
{
	return broadcast(skb, TX_ALL, FEW);
}
