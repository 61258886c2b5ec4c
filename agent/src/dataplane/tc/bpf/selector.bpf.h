/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * What a failover writes: where frames of the stack leave, and what ports let
 * in. The agent does, and so does carrier_off.bpf.c.
 */
#ifndef SELECTOR_BPF_H
#define SELECTOR_BPF_H

#include "common.bpf.h"

/* Ports of one bond. */
#define MAX_PORTS 256

/* Keys of the map "transmit": the programs for the wire. */
enum {
	TX_ONE,
	TX_TURNS,
	TX_ALL,
	TX_ALL_MANY,
	TX_ETHER,
	TX_IP,
	TX_ENCAP,
	/*
	 * No programs. See carrier_off.bpf.c: the selector is how many losses of
	 * a carrier it has counted;
	 */
	TX_LOSSES = 14,
	/*
	 * and the number of what is prepared for the loss of a port, 0 while
	 * nothing is. It is in force as long as no more losses are counted than
	 * were known by then, which is in the other word.
	 */
	TX_PREPARED = 15,
	TX_PROGRAMS = 16,	/* with room for others */
};

/*
 * Value of the map "transmit": what one program for the wire reads. Each
 * program has its own, so the next one is prepared beside the one in use, and
 * the exchange of the two is the moment at which the traffic moves.
 */
struct transmit {
	/*
	 * Where frames of the stack leave: 0 for nowhere, the ifindex of a
	 * port (TX_ONE), or with bit 31 set a list of ports: bits 24 to 30 are
	 * its slot in the map "lists", the others do not count. Moving the
	 * traffic is one write; from a list to another or to nowhere only one
	 * byte differs, however the kernel copies.
	 */
	__u32 selector;
	/* not 0: remember all senders, not only those to groups; see also TX_PREPARED */
	__u32 remember_all;
};

#define IS_LIST 0x80000000
#define LIST_SLOT(selector) ((selector) >> 24 & 0x7f)
/* Slot 0 is never filled: an empty list sends nowhere. */
#define LIST_SLOTS 16

/* Values of the map "rules". */
enum {
	ACCEPT_NONE,
	ACCEPT_UNICAST,
	ACCEPT_ALL,
};

#endif
