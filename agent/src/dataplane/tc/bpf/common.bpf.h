/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* What every program of ours needs: no libbpf is needed to compile them. */
#ifndef COMMON_BPF_H
#define COMMON_BPF_H

#include <linux/bpf.h>

#define SEC(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline))
/*
 * For what few frames need across calls: it lies on the stack and takes no
 * register, which every frame would have to save and restore.
 */
#define ASIDE volatile

/* The helpers in use. */
static void *(*bpf_map_lookup_elem)(void *map, const void *key) =
	(void *)BPF_FUNC_map_lookup_elem;
static long (*bpf_map_update_elem)(void *map, const void *key,
				   const void *value, __u64 flags) =
	(void *)BPF_FUNC_map_update_elem;
static __u64 (*bpf_ktime_get_ns)(void) = (void *)BPF_FUNC_ktime_get_ns;
/* The tick of the kernel's clock, 1 to 10 ms long; a load where programs are compiled. (5.6) [object.rs: TICK] */
static __u64 (*bpf_jiffies64)(void) = (void *)BPF_FUNC_jiffies64;
static __u32 (*bpf_get_prandom_u32)(void) = (void *)BPF_FUNC_get_prandom_u32;
static long (*bpf_redirect)(__u32 ifindex, __u64 flags) =
	(void *)BPF_FUNC_redirect;
static long (*bpf_clone_redirect)(struct __sk_buff *skb, __u32 ifindex,
				  __u64 flags) =
	(void *)BPF_FUNC_clone_redirect;
/* Fails where the frame ends earlier; then the buffer is filled with zeros. */
static long (*bpf_skb_load_bytes)(const struct __sk_buff *skb, __u32 offset,
				  void *to, __u32 len) =
	(void *)BPF_FUNC_skb_load_bytes;

struct bpf_map_def {
	__u32 type;
	__u32 key_size;
	__u32 value_size;
	__u32 max_entries;
	__u32 map_flags;
};

#define ETH_HEADER 14
#define TYPE_IPV4 0x0800
#define TYPE_ARP 0x0806
#define TYPE_VLAN 0x8100
#define TYPE_IPV6 0x86dd
#define TYPE_QINQ 0x88a8

/* A constant in network order, as in skb->protocol. */
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#define HTONS(number) (number)
#else
#define HTONS(number) (((number) & 0xff) << 8 | (number) >> 8)
#endif

/*
 * Frames are read in place as far as they lie in one piece, by
 *
 *	if (START(skb) + length <= END(skb))
 *
 * and by bpf_skb_load_bytes otherwise: it finds what a driver left outside of
 * that, and takes some forty instructions. Without CAP_PERFMON no pointer into
 * a frame may be compared with 0.
 */
#define START(skb) ((const __u8 *)(long)(skb)->data)
#define END(skb) ((const __u8 *)(long)(skb)->data_end)

/* Words of a frame, as in memory. IP headers and the three before them are aligned to two bytes less than four. */
#define WORD(at) (*(const __u32 *)(at))
#define HALF(at) (*(const __u16 *)(at))

/* Two bytes in network order. */
INLINE __u32 be16(const __u8 *bytes)
{
	return (__u32)bytes[0] << 8 | bytes[1];
}

#endif
