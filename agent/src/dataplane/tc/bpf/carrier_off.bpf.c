// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * Fails over when a port loses its carrier: one program for all bonds of an
 * agent, at the entry of the kernel's linkwatch_fire_event(), which
 * netif_carrier_off() calls once for each loss, after it has marked the device:
 * who learns of a loss from the note, and asks for the carrier, is told that it
 * is off. What the program does is prepared by the agent with each plan, which
 * needs not be there when it happens; see failover/mod.rs.
 *
 * What is prepared for the ports of one bond is in force or not as a whole, by
 * one number in the bond's own map "transmit", and as long as no port has lost
 * its carrier since, as all of it was prepared for ports that have theirs. So
 * every loss is counted, and the first one takes it out of force. That one is
 * noted for the agent, which learns of it before any link event, and prepares
 * anew. The agent never writes the count, and the program nothing else of that,
 * so neither overwrites what the other one did meanwhile.
 *
 * Unlike the other programs this one needs BTF, of the kernel, for where its
 * structures have what is read here.
 */
#include "selector.bpf.h"

#define MAP_KIND(number) int(*type)[number]
#define MAP_ENTRIES(number) int(*max_entries)[number]
#define MAP_FLAGS(number) int(*map_flags)[number]
#define MAP_KEY(name) __typeof__(name) *key
#define MAP_VALUE(name) __typeof__(name) *value
#define MAP_SIZES(key, value) int(*key_size)[key]; int(*value_size)[value]
#define MAP_INNER(name) __typeof__(name) *values[]
#define RELOCATED __attribute__((preserve_access_index))

static void *(*bpf_ringbuf_reserve)(void *ring, __u64 size, __u64 flags) =
	(void *)BPF_FUNC_ringbuf_reserve;
static void (*bpf_ringbuf_submit)(void *data, __u64 flags) =
	(void *)BPF_FUNC_ringbuf_submit;

/* Of the kernel, as much as is read. */
struct net {
	__u64 net_cookie;
} RELOCATED;

typedef struct {
	struct net *net;
} RELOCATED possible_net_t;

struct net_device {
	unsigned long state;
	int ifindex;
	possible_net_t nd_net;
} RELOCATED;

/* Bit of "state": the device has no carrier. [linux/netdevice.h: __LINK_STATE_NOCARRIER] */
#define NO_CARRIER (1UL << 2)

/* Key of the map "armed". An index is one interface's in one network namespace only. */
struct port_key {
	__u64 netns;
	__u32 ifindex;
	__u32 unused;
};

/* Rules that change with the traffic, at most: those of the port that is lost and of the one that takes over, and two others. */
#define MOST_RULES 4

struct rule {
	__u32 slot;	/* in the map "rules" of the bond */
	__u32 value;
};

/*
 * Value of the map "armed". An entry is replaced as a whole, and the memory of
 * the one before may be another port's at once, also while the program reads it.
 */
struct armed {
	__u32 ifindex;	/* whose it is */
	__u32 bond;	/* ifindex: its key in the maps of maps */
	__u32 number;	/* of what is prepared, if this is part of it */
	__u32 program;	/* whose selector moves: a key of "transmit" */
	__u32 expected;	/* that selector as it was when this was prepared */
	__u32 selector;	/* and as it is to be; 0: nothing is prepared for this port */
	__u32 rules;	/* so many of these */
	struct rule rule[MOST_RULES];
	__u32 sum;	/* of all before, by sum_of(): the value is whole */
};

#define ARMED_WORDS (sizeof(struct armed) / sizeof(__u32))
#define SUM_FACTOR 0x01000193
/* An entry is looked for so often, if what was found was replaced meanwhile. */
#define LOOKS 4

/* What the agent reads of a loss. */
struct loss {
	__u64 at;	/* nanoseconds of CLOCK_MONOTONIC */
	__u32 bond;
	__u32 ifindex;
	__u32 failed_over;
	__u32 unused;
};

/* The ports of all bonds. */
struct {
	MAP_KIND(BPF_MAP_TYPE_HASH);
	MAP_FLAGS(BPF_F_NO_PREALLOC);
	MAP_ENTRIES(65536);
	MAP_KEY(struct port_key);
	MAP_VALUE(struct armed);
} armed SEC(".maps");

/* The map "transmit" of each bond. */
struct {
	MAP_KIND(BPF_MAP_TYPE_HASH_OF_MAPS);
	MAP_FLAGS(BPF_F_NO_PREALLOC);
	MAP_ENTRIES(16384);
	MAP_KEY(__u32);
	MAP_INNER(struct {
		MAP_KIND(BPF_MAP_TYPE_ARRAY);
		MAP_ENTRIES(TX_PROGRAMS);
		MAP_SIZES(sizeof(__u32), sizeof(struct transmit));
	});
} transmits SEC(".maps");

/* The map "rules" of each bond. */
struct {
	MAP_KIND(BPF_MAP_TYPE_HASH_OF_MAPS);
	MAP_FLAGS(BPF_F_NO_PREALLOC);
	MAP_ENTRIES(16384);
	MAP_KEY(__u32);
	MAP_INNER(struct {
		MAP_KIND(BPF_MAP_TYPE_ARRAY);
		MAP_ENTRIES(MAX_PORTS);
		MAP_SIZES(sizeof(__u32), sizeof(__u32));
	});
} rules_of SEC(".maps");

/* Notes: one at most for each time that something was put in force for a bond. */
struct {
	MAP_KIND(BPF_MAP_TYPE_RINGBUF);
	MAP_ENTRIES(1 << 16);
} losses SEC(".maps");

/* Notes for which there was no room. */
struct {
	MAP_KIND(BPF_MAP_TYPE_ARRAY);
	MAP_ENTRIES(1);
	MAP_KEY(__u32);
	MAP_VALUE(__u32);
} missed SEC(".maps");

/* Of all words but the last. [layout.rs: Armed::sum_of] */
INLINE __u32 sum_of(const __u32 *words)
{
	__u32 sum = 0, index;

#pragma clang loop unroll(full)
	for (index = 0; index < ARMED_WORDS - 1; index++)
		sum = (sum + words[index]) * SUM_FACTOR;
	return sum;
}

/* Copies the entry of a port; whether there is one. */
INLINE int find_armed(const struct port_key *key, struct armed *copy)
{
	__u32 *words = (__u32 *)copy;
	__u32 look, index;

#pragma clang loop unroll(full)
	for (look = 0; look < LOOKS; look++) {
		const volatile __u32 *found = bpf_map_lookup_elem(&armed, key);

		if (!found)
			return 0;
#pragma clang loop unroll(full)
		for (index = 0; index < ARMED_WORDS; index++)
			words[index] = found[index];
		if (copy->ifindex == key->ifindex && copy->sum == sum_of(words))
			return 1;
	}
	return 0;
}

/*
 * Room for a note. If there is none that is counted, and tried again: so the
 * agent, which looks at the count when it has read all notes, has some to read.
 */
INLINE struct loss *room(void)
{
	struct loss *loss = bpf_ringbuf_reserve(&losses, sizeof(*loss), 0);
	__u32 first = 0, *count;

	if (loss)
		return loss;
	count = bpf_map_lookup_elem(&missed, &first);
	if (count)
		__sync_fetch_and_add(count, 1);
	return bpf_ringbuf_reserve(&losses, sizeof(*loss), 0);
}

/* Counts a loss. Returns the number of what was in force until then, 0 if nothing was. */
INLINE __u32 end_prepared(void *transmit)
{
	__u32 counted = TX_LOSSES, number = TX_PREPARED;
	struct transmit *losses = bpf_map_lookup_elem(transmit, &counted);
	struct transmit *prepared = bpf_map_lookup_elem(transmit, &number);

	if (!losses || !prepared)
		return 0;
	if (__sync_fetch_and_add(&losses->selector, 1) != prepared->remember_all)
		return 0;
	return prepared->selector;
}

/*
 * The one write that moves the traffic. If the agent has moved it meanwhile, it
 * stays where it is.
 */
INLINE int move(void *transmit, const struct armed *armed)
{
	__u32 key = armed->program;
	struct transmit *mine = bpf_map_lookup_elem(transmit, &key);

	return mine &&
	       __sync_val_compare_and_swap(&mine->selector, armed->expected,
					   armed->selector) == armed->expected;
}

/* What comes in through the port that has taken over is let in, and what the lost one brings when it is back is not twice. */
INLINE void change_rules(const struct armed *armed)
{
	__u32 bond = armed->bond;
	void *rules = bpf_map_lookup_elem(&rules_of, &bond);
	__u32 index;

	if (!rules)
		return;
#pragma clang loop unroll(full)
	for (index = 0; index < MOST_RULES; index++) {
		__u32 slot = armed->rule[index].slot;
		__u32 *rule;

		if (index >= armed->rules)
			return;
		rule = bpf_map_lookup_elem(rules, &slot);
		if (rule)
			*rule = armed->rule[index].value;
	}
}

SEC("fentry/linkwatch_fire_event") int carrier_off(__u64 *arguments)
{
	const struct net_device *device = (void *)arguments[0];
	struct port_key key = {};
	struct armed arm;
	struct loss *loss;
	void *transmit;
	__u32 bond, number;

	/* Other changes are told there too; one without a carrier that counts once more does no harm. */
	if (!(device->state & NO_CARRIER))
		return 0;
	key.netns = device->nd_net.net->net_cookie;
	key.ifindex = device->ifindex;
	if (!find_armed(&key, &arm))
		return 0;
	bond = arm.bond;
	transmit = bpf_map_lookup_elem(&transmits, &bond);
	if (!transmit)
		return 0;
	number = end_prepared(transmit);
	if (!number)
		return 0;
	/* Nothing is done that the agent could not be told of. */
	loss = room();
	if (!loss)
		return 0;
	loss->at = bpf_ktime_get_ns();
	loss->bond = bond;
	loss->ifindex = key.ifindex;
	loss->unused = 0;
	loss->failed_over = arm.selector && arm.number == number &&
			    move(transmit, &arm);
	if (loss->failed_over)
		change_rules(&arm);
	bpf_ringbuf_submit(loss, 0);
	return 0;
}

char license_text[] SEC("license") = "Dual MIT/GPL";
