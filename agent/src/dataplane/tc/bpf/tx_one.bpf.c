// SPDX-License-Identifier: MIT OR GPL-2.0
/* All frames leave through one port: active-backup. */
#include "tx.bpf.h"

SEC("classifier") int bond_tx(struct __sk_buff *skb)
{
	int verdict;
	__u32 port = begin(skb, TX_ONE, &verdict);

	return port ? send(skb, port) : verdict;
}
