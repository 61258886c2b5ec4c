/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * The hash of a frame under each xmit_hash_policy: the same number as that of
 * the bonding driver on a host of the same byte order.
 * [bond_main.c: bond_xmit_hash; flow_dissector.c: __skb_flow_dissect]
 *
 * The frame is as the ingress of the wire has it: the outermost VLAN tag is
 * outside the bytes. It does not matter where a driver put the headers, and
 * whatever is beyond the end of the frame is "not there". TCP and UDP right
 * behind an IP header without options are read in place, everything else by
 * bpf_skb_load_bytes.
 *
 * differs: under encap3+4 the driver takes the hash that the socket drew by
 * lot for its connection, if there is one. A program cannot tell such a hash
 * from others, and the same flow should leave through the same port after a
 * restart of its sender, so headers count for all frames.
 */
#ifndef HASH_BPF_H
#define HASH_BPF_H

#include "common.bpf.h"

/* Numbers of the driver. [if_bonding.h] */
enum {
	HASH_LAYER2,
	HASH_LAYER34,
	HASH_LAYER23,
	HASH_ENCAP23,
	HASH_ENCAP34,
	HASH_VLAN_SRCMAC,
};

enum {
	PROTO_HOPOPTS = 0,
	PROTO_ICMP = 1,
	PROTO_IPIP = 4,
	PROTO_TCP = 6,
	PROTO_UDP = 17,
	PROTO_DCCP = 33,
	PROTO_IPV6 = 41,
	PROTO_ROUTING = 43,
	PROTO_FRAGMENT = 44,
	PROTO_GRE = 47,
	PROTO_ESP = 50,
	PROTO_AH = 51,
	PROTO_ICMPV6 = 58,
	PROTO_DSTOPTS = 60,
	PROTO_SCTP = 132,
	PROTO_UDPLITE = 136,
	PROTO_MPLS = 137,
	/* of a fragment: whatever follows is not looked at */
	PROTO_NONE = 256,
};

#define TYPE_BATMAN 0x4305
#define TYPE_TEB 0x6558		/* Ethernet in GRE */
#define TYPE_RARP 0x8035
#define TYPE_PPP 0x880b		/* PPTP in GRE */
#define TYPE_MPLS 0x8847
#define TYPE_MPLS_MULTICAST 0x8848
#define TYPE_PPPOE 0x8864
#define TYPE_PTP 0x88f7
#define TYPE_PRP 0x88fb
#define TYPE_CFM 0x8902
#define TYPE_FCOE 0x8906
#define TYPE_HSR 0x892f

/* Headers that are walked through. [flow_dissector.c: MAX_FLOW_DISSECT_HDRS] */
#define MAX_HEADERS 15

/* What of a packet enters a hash. */
struct flow {
	__u32 addresses;	/* xor of all words of both, as in memory */
	__u32 ports;		/* both, as in memory; 0 without */
	__u32 icmp;		/* type, code and id; 0 without an id */
};

/* Where the walk through a packet stands. */
struct cursor {
	__u32 offset;
	__u32 type;	/* EtherType of what is at the offset, or behind it */
	__u32 proto;	/* IP protocol of what is at the offset */
};

/* First four bytes, or the SPI, of protocols that have something like ports. */
INLINE __u32 flow_ports(const struct __sk_buff *skb, const struct cursor *at)
{
	__u32 offset = at->offset;
	__u32 ports = 0;

	switch (at->proto) {
	case PROTO_AH:
		offset += 4;
		break;
	case PROTO_TCP:
	case PROTO_UDP:
	case PROTO_DCCP:
	case PROTO_ESP:
	case PROTO_SCTP:
	case PROTO_UDPLITE:
		break;
	default:
		return 0;
	}
	bpf_skb_load_bytes(skb, offset, &ports, sizeof(ports));
	return ports;
}

/*
 * Takes the id of an ICMP message that has one, so that the pings of two
 * processes may leave through different ports; an id of 0 counts as 1. Returns
 * the type of the message, or -1.
 */
INLINE int flow_icmp(const struct __sk_buff *skb, const struct cursor *at,
		     struct flow *flow)
{
	union {
		struct {
			__u8 type;
			__u8 code;
			__u16 id;
		};
		__u32 word;
	} key;
	__u8 header[8];
	__u32 id;

	flow->icmp = 0;
	if (bpf_skb_load_bytes(skb, at->offset, header, sizeof(header)))
		return -1;
	switch (header[0]) {
	case 8:		/* echo request and reply, timestamp and reply */
	case 0:
	case 13:
	case 14:
	case 128:	/* IPv6 echo request and reply */
	case 129:
		id = be16(header + 4);
		key.type = header[0];
		key.code = header[1];
		key.id = id ? id : 1;
		flow->icmp = key.word;
	}
	return header[0];
}

/* Whether an ICMP message quotes the packet that it complains about. */
INLINE int is_icmp_error(__u32 proto, int type)
{
	if (proto == PROTO_ICMP)
		return type == 3 || type == 4 || type == 5 || type == 11 ||
		       type == 12;
	return type >= 1 && type <= 4;
}

/*
 * Reads an IPv4 header and steps behind it; the protocol of a fragment, the
 * first too, is none. Returns the length in words, or -1.
 */
INLINE int flow_ipv4(const struct __sk_buff *skb, struct cursor *at,
		     struct flow *flow)
{
	__u32 words[5];
	const __u8 *header = (const __u8 *)words;
	__u32 length;

	if (bpf_skb_load_bytes(skb, at->offset, words, sizeof(words)))
		return -1;
	flow->addresses = words[3] ^ words[4];
	length = header[0] & 15;
	at->offset += length * 4;
	/* more fragments, or an offset */
	at->proto = be16(header + 6) & 0x3fff ? PROTO_NONE : header[9];
	return length;
}

/* Reads an IPv6 header and steps behind it. Returns -1 if it is not there. */
INLINE int flow_ipv6(const struct __sk_buff *skb, struct cursor *at,
		     struct flow *flow)
{
	__u32 words[10];

	if (bpf_skb_load_bytes(skb, at->offset, words, sizeof(words)))
		return -1;
	flow->addresses = words[2] ^ words[3] ^ words[4] ^ words[5] ^
			  words[6] ^ words[7] ^ words[8] ^ words[9];
	at->offset += sizeof(words);
	at->proto = ((const __u8 *)words)[6];
	return 0;
}

/* An IP header for layer2+3 and layer3+4, which take any length of it. */
INLINE int flow_ip(const struct __sk_buff *skb, struct cursor *at,
		   struct flow *flow)
{
	if (at->type == TYPE_IPV4)
		return flow_ipv4(skb, at, flow);
	if (at->type == TYPE_IPV6)
		return flow_ipv6(skb, at, flow);
	return -1;
}

/*
 * layer2+3 and layer3+4: IP directly behind the Ethernet header, no extension
 * headers. An ICMP error counts as the packet that it quotes, so that both use
 * the same port. Returns -1 if a header is missing.
 * [bond_main.c: bond_flow_ip, bond_flow_dissect]
 */
INLINE int flow_plain(const struct __sk_buff *skb, __u32 type,
		      struct flow *flow)
{
	struct cursor at = { .offset = ETH_HEADER, .type = type };

	if (flow_ip(skb, &at, flow) < 0)
		return -1;
	if (at.proto == PROTO_ICMP || at.proto == PROTO_ICMPV6) {
		int message = flow_icmp(skb, &at, flow);

		if (!is_icmp_error(at.proto, message))
			return 0;
		at.offset += 8;
		if (flow_ip(skb, &at, flow) < 0)
			return -1;
	}
	flow->ports = flow_ports(skb, &at);
	return 0;
}

/*
 * What both walks find in most frames: whole packets of TCP or UDP over IP
 * without options, all in one piece. Returns whether this is one.
 */
INLINE int flow_in_place(const struct __sk_buff *skb, __u32 type,
			 struct flow *flow)
{
	const __u8 *ip = START(skb) + ETH_HEADER;
	const __u8 *end = END(skb);
	__u32 addresses, ports, proto;

	if (type == TYPE_IPV4) {
		if (ip + 24 > end || ip[0] != 0x45 ||
		    HALF(ip + 6) & HTONS(0x3fff))
			return 0;
		proto = ip[9];
		addresses = WORD(ip + 12) ^ WORD(ip + 16);
		ports = WORD(ip + 20);
	} else if (type == TYPE_IPV6) {
		if (ip + 44 > end)
			return 0;
		proto = ip[6];
		addresses = WORD(ip + 8) ^ WORD(ip + 12) ^ WORD(ip + 16) ^
			    WORD(ip + 20) ^ WORD(ip + 24) ^ WORD(ip + 28) ^
			    WORD(ip + 32) ^ WORD(ip + 36);
		ports = WORD(ip + 40);
	} else {
		return 0;
	}
	if (proto != PROTO_TCP && proto != PROTO_UDP)
		return 0;
	flow->addresses = addresses;
	flow->ports = ports;
	return 1;
}

/* What a step of the walk came to. */
enum {
	WALK_FAILED,	/* unknown, bad or short: nothing found counts */
	WALK_DONE,	/* what was found counts */
	WALK_TYPE,	/* a header of the EtherType in the cursor comes */
	WALK_PROTO,	/* a header of the IP protocol in the cursor comes */
};

/* PPPoE session: IP or MPLS behind a protocol number of one or two bytes. */
INLINE int walk_pppoe(const struct __sk_buff *skb, struct cursor *at)
{
	__u8 header[8];
	__u32 ppp;

	if (bpf_skb_load_bytes(skb, at->offset, header, sizeof(header)))
		return WALK_FAILED;
	/* version 1, type 1, session data */
	if (header[0] != 0x11 || header[1] != 0)
		return WALK_FAILED;
	ppp = be16(header + 6);
	at->offset += 8;
	if (ppp & 0x0100) {	/* compressed to its first byte */
		ppp >>= 8;
		at->offset -= 1;
	}
	switch (ppp) {
	case 0x0021:
		at->type = TYPE_IPV4;
		return WALK_TYPE;
	case 0x0057:
		at->type = TYPE_IPV6;
		return WALK_TYPE;
	case 0x0281:
	case 0x0283:	/* MPLS: known, nothing of use in it */
		return WALK_DONE;
	}
	/* A protocol number is odd, and its first byte even. [RFC 1661 2] */
	return (ppp & 0x0101) == 0x0001 ? WALK_DONE : WALK_FAILED;
}

/* GRE: version 0 with anything in it, version 1 as PPTP uses it. */
INLINE int walk_gre(const struct __sk_buff *skb, struct cursor *at)
{
	__u32 flags, version, offset;
	__u8 header[14];

	if (bpf_skb_load_bytes(skb, at->offset, header, 4))
		return WALK_FAILED;
	flags = be16(header);
	at->type = be16(header + 2);
	version = flags & 7;
	if (flags & 0x4000 || version > 1)	/* source route */
		return WALK_DONE;
	if (version == 1 && (at->type != TYPE_PPP || !(flags & 0x2000)))
		return WALK_DONE;
	offset = at->offset + 4;
	offset += flags & 0x8000 ? 4 : 0;	/* checksum */
	if (flags & 0x2000) {			/* key */
		if (bpf_skb_load_bytes(skb, offset, header, 4))
			return WALK_FAILED;
		offset += 4;
	}
	offset += flags & 0x1000 ? 4 : 0;	/* sequence number */
	if (version == 1) {
		offset += flags & 0x0080 ? 4 : 0;	/* acknowledgement */
		if (bpf_skb_load_bytes(skb, offset, header, 4))
			return WALK_FAILED;
		switch (be16(header + 2)) {
		case 0x0021:
			at->type = TYPE_IPV4;
			break;
		case 0x0057:
			at->type = TYPE_IPV6;
		}
		offset += 4;
	} else if (at->type == TYPE_TEB) {
		if (bpf_skb_load_bytes(skb, offset, header, ETH_HEADER))
			return WALK_FAILED;
		at->type = be16(header + 12);
		offset += ETH_HEADER;
	}
	at->offset = offset;
	return WALK_TYPE;
}

/* One header that an EtherType announced. */
INLINE int walk_type(const struct __sk_buff *skb, struct cursor *at,
		     struct flow *flow)
{
	__u8 bytes[6];

	switch (at->type) {
	case TYPE_IPV4:
		if (flow_ipv4(skb, at, flow) < 5)
			return WALK_FAILED;
		return at->proto == PROTO_NONE ? WALK_DONE : WALK_PROTO;
	case TYPE_IPV6:
		return flow_ipv6(skb, at, flow) ? WALK_FAILED : WALK_PROTO;
	case TYPE_VLAN:
	case TYPE_QINQ:
		if (bpf_skb_load_bytes(skb, at->offset, bytes, 4))
			return WALK_FAILED;
		at->type = be16(bytes + 2);
		at->offset += 4;
		return WALK_TYPE;
	case TYPE_PRP:
	case TYPE_HSR:
		if (bpf_skb_load_bytes(skb, at->offset, bytes, 6))
			return WALK_FAILED;
		at->type = be16(bytes + 4);
		at->offset += 6;
		return WALK_TYPE;
	case TYPE_PPPOE:
		return walk_pppoe(skb, at);
	case TYPE_BATMAN:
		/* a unicast packet of version 15, an Ethernet header behind */
		if (bpf_skb_load_bytes(skb, at->offset, bytes, 2) ||
		    bytes[0] != 0x40 || bytes[1] != 15 ||
		    bpf_skb_load_bytes(skb, at->offset + 22, bytes, 2))
			return WALK_FAILED;
		at->type = be16(bytes);
		at->offset += 24;
		return WALK_TYPE;
	case TYPE_FCOE:
		return skb->len >= at->offset + 38 ? WALK_DONE : WALK_FAILED;
	case TYPE_PTP:
		return skb->len >= at->offset + 34 ? WALK_DONE : WALK_FAILED;
	case TYPE_MPLS:
	case TYPE_MPLS_MULTICAST:
	case TYPE_ARP:
	case TYPE_RARP:
	case TYPE_CFM:
		return WALK_DONE;
	}
	return WALK_FAILED;
}

/* One header that an IP header announced. */
INLINE int walk_proto(const struct __sk_buff *skb, struct cursor *at,
		      struct flow *flow)
{
	__u8 bytes[2];

	switch (at->proto) {
	case PROTO_GRE:
		return walk_gre(skb, at);
	case PROTO_IPIP:
		at->type = TYPE_IPV4;
		return WALK_TYPE;
	case PROTO_IPV6:
		at->type = TYPE_IPV6;
		return WALK_TYPE;
	case PROTO_MPLS:
		return WALK_DONE;
	case PROTO_HOPOPTS:
	case PROTO_ROUTING:
	case PROTO_DSTOPTS:
		/* numbers of other things in IPv4 */
		if (at->type != TYPE_IPV6)
			return WALK_DONE;
		if (bpf_skb_load_bytes(skb, at->offset, bytes, 2))
			return WALK_FAILED;
		at->proto = bytes[0];
		at->offset += (bytes[1] + 1) * 8;
		/* They count even if this was the last header allowed. */
		flow->ports = flow_ports(skb, at);
		return WALK_PROTO;
	case PROTO_FRAGMENT:
		if (at->type == TYPE_IPV6)
			return skb->len >= at->offset + 8 ? WALK_DONE : WALK_FAILED;
		return WALK_DONE;
	case PROTO_ICMP:
	case PROTO_ICMPV6:
		flow_icmp(skb, at, flow);
		return WALK_DONE;
	}
	flow->ports = flow_ports(skb, at);
	return WALK_DONE;
}

/*
 * encap2+3 and encap3+4: the addresses of the last IP header and the ports of
 * the last protocol, through VLAN tags, extension headers and tunnels other
 * than those in UDP. ICMP errors are not opened. Returns -1 if the walk failed.
 */
INLINE int flow_inner(const struct __sk_buff *skb, __u32 type,
		      struct flow *flow)
{
	struct cursor at = { .offset = ETH_HEADER, .type = type };
	int next = WALK_TYPE;
	int header;

#pragma clang loop unroll(disable)
	for (header = 0; header <= MAX_HEADERS; header++) {
		if (next == WALK_TYPE)
			next = walk_type(skb, &at, flow);
		/* An IP header and what it announces count as one. */
		if (next == WALK_PROTO)
			next = walk_proto(skb, &at, flow);
		if (next == WALK_FAILED)
			return -1;
		if (next == WALK_DONE)
			return 0;
	}
	return 0;
}

/* What of an Ethernet header enters a hash. */
struct ether {
	__u32 type;
	__u32 source;	/* under vlan+srcmac */
	__u32 hash;	/* under layer2 */
};

INLINE struct ether ether_of(const __u8 *header)
{
	const __u8 *source = header + 6;
	struct ether ether;

	ether.type = be16(header + 12);
	ether.source = (be16(source) << 8 | source[2]) ^
		       ((__u32)source[3] << 16 | be16(source + 4));
	ether.hash = header[5] ^ header[11] ^ ether.type;
	return ether;
}

INLINE struct ether read_ether(const struct __sk_buff *skb)
{
	__u8 header[ETH_HEADER];

	if (START(skb) + ETH_HEADER <= END(skb))
		return ether_of(START(skb));
	/* zeros for a frame without a whole header: the stack sends none */
	bpf_skb_load_bytes(skb, 0, header, sizeof(header));
	return ether_of(header);
}

/* The hash under layer2 or vlan+srcmac. [bond_main.c: bond_xmit_hash] */
INLINE __u32 ether_hash(const struct __sk_buff *skb, __u32 policy)
{
	struct ether ether = read_ether(skb);

	if (policy != HASH_VLAN_SRCMAC)
		return ether.hash;
	/* the whole tag with its priority; tags in the bytes not */
	return skb->vlan_present ? ether.source ^ skb->vlan_tci : ether.source;
}

/* The hash under one of the policies that look further, from what they found. */
INLINE __u32 flow_hash(const struct flow *flow, __u32 ether, int with_ports)
{
	__u32 hash;

	if (with_ports) {
		hash = flow->icmp ? flow->icmp : flow->ports;
		hash ^= flow->addresses;
		hash ^= hash >> 16;
		hash ^= hash >> 8;
		/* The lowest bit of many source ports is always 0. */
		return hash >> 1;
	}
	hash = ether ^ flow->addresses;
	hash ^= hash >> 16;
	hash ^= hash >> 8;
	return hash;
}

/* The hash under layer2+3 or layer3+4. [bond_main.c: bond_xmit_hash] */
INLINE __u32 ip_hash(const struct __sk_buff *skb, __u32 policy)
{
	struct ether ether = read_ether(skb);
	struct flow flow = {};

	if (!flow_in_place(skb, ether.type, &flow) &&
	    flow_plain(skb, ether.type, &flow) < 0)
		return ether.hash;
	return flow_hash(&flow, ether.hash, policy == HASH_LAYER34);
}

/* The hash under encap2+3 or encap3+4. [bond_main.c: bond_xmit_hash] */
INLINE __u32 encap_hash(const struct __sk_buff *skb, __u32 policy)
{
	struct ether ether = read_ether(skb);
	struct flow flow = {};

	if (!flow_in_place(skb, ether.type, &flow) &&
	    flow_inner(skb, ether.type, &flow) < 0)
		return ether.hash;
	return flow_hash(&flow, ether.hash, policy == HASH_ENCAP34);
}

#endif
