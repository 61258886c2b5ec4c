// SPDX-License-Identifier: MIT OR GPL-2.0
/* All frames leave through one port: active-backup. */
#include "tx.bpf.h"

SEC("classifier") int bond_tx(struct __sk_buff *skb)
{
	__u32 port;
	int verdict = begin(skb, TX_ONE, &port);

	return verdict < 0 ? send(skb, port) : verdict;
}
