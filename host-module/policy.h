/* SPDX-License-Identifier: GPL-2.0 */
/* Copyright (C) the kvm-elastic authors */
/*
 * The arbiter: numbers in, numbers out. No locks, no clock, no allocation;
 * compiles in user space, too. Amounts are vCPUs or units; the code is the same
 * for both.
 */
#ifndef ELASTIC_HOST_POLICY_H
#define ELASTIC_HOST_POLICY_H

#include <linux/types.h>
#ifndef __KERNEL__
#include <stdbool.h>
#endif

#include "uapi/elastic_hypercall.h"

#define ELASTIC_WEIGHT_DEFAULT	100
#define ELASTIC_WEIGHT_MAX	10000

/**
 * struct elastic_claim - one VM in one round over one resource
 * @min: kept free for the VM
 * @max: what it may have at most; @min goes before it
 * @weight: 1 to ELASTIC_WEIGHT_MAX
 * @grant: what it has
 * @use: how much of that it really uses
 * @need: what it should have by its demand alone
 * @entitled: result: its part if all wanted all they may have
 * @plan: result: what is kept for it in this round. All plans together are
 *	never more than there is, unless the minimums are
 * @target: result: what it may have at most. Below @grant: it must come down
 * @low: scratch: lower bound of a fill
 * @high: scratch: upper bound of a fill
 * @fill: scratch: result of a fill
 */
struct elastic_claim {
	__u64 min;
	__u64 max;
	__u64 weight;
	__u64 grant;
	__u64 use;
	__u64 need;
	__u64 entitled;
	__u64 plan;
	__u64 target;
	__u64 low;
	__u64 high;
	__u64 fill;
};

__u64 elastic_policy_divide(__u64 total, struct elastic_claim *claims,
			    unsigned int nr);

/**
 * struct elastic_bucket - a token bucket
 * @milli: tokens, in thousandths
 * @at_ms: when it was filled last
 */
struct elastic_bucket {
	__u64 milli;
	__u64 at_ms;
};

__u64 elastic_policy_tokens(struct elastic_bucket *bucket, __u64 now_ms,
			    __u64 rate, __u64 burst);

/**
 * struct elastic_ask - one VM asks for more of one resource
 * @pool_total: what the host has for all VMs
 * @pool_used: the sum of max(grant, min) over all VMs, this one included
 * @pool_planned: the sum of max(grant, min, plan) over all VMs
 * @grant: what the VM has
 * @min: what is kept free for it
 * @max: what it may have at most
 * @plan: what the last round keeps for it
 * @target: what the last round lets it have
 * @entitled: its part if all wanted all
 * @tokens: how far it may grow now beyond @entitled
 * @want: how much more it asks for
 */
struct elastic_ask {
	__u64 pool_total;
	__u64 pool_used;
	__u64 pool_planned;
	__u64 grant;
	__u64 min;
	__u64 max;
	__u64 plan;
	__u64 target;
	__u64 entitled;
	__u64 tokens;
	__u64 want;
};

__u64 elastic_policy_grant(const struct elastic_ask *ask,
			   enum elastic_reason *reason);
__u64 elastic_policy_charge(__u64 grant, __u64 min);
bool elastic_policy_admit(__u64 total, __u64 minimums, __u64 min);

/**
 * struct elastic_cpu_demand - what a guest says of its vCPUs, and what was seen
 * @wanted: it says: CPUs that its policy would have
 * @runnable_milli: it says: runnable tasks, times 1000
 * @busy_milli: it says: CPUs busy or stolen, times 1000
 * @ran_milli: seen: time that the vCPUs' threads ran or waited to run, times
 *	1000, per time that passed
 * @max: what the VM may have at most
 */
struct elastic_cpu_demand {
	__u64 wanted;
	__u64 runnable_milli;
	__u64 busy_milli;
	__u64 ran_milli;
	__u64 max;
};

/**
 * struct elastic_mem_demand - the same of memory, in units
 * @grant: what the VM has
 * @wanted: it says: units that its policy would have
 * @available: it says: units that it could hand out
 * @pressed: it says: reclaim or OOM since the last report
 * @resident: seen: what the VMM's process has of the host's memory
 * @max: what the VM may have at most
 */
struct elastic_mem_demand {
	__u64 grant;
	__u64 wanted;
	__u64 available;
	bool pressed;
	__u64 resident;
	__u64 max;
};

/**
 * struct elastic_need - what is believed
 * @use: what it really uses
 * @need: what it should have
 * @bound: what it would be believed at most
 */
struct elastic_need {
	__u64 use;
	__u64 need;
	__u64 bound;
};

struct elastic_need elastic_policy_cpu_need(const struct elastic_cpu_demand *d);
struct elastic_need elastic_policy_mem_need(const struct elastic_mem_demand *d);
__u64 elastic_policy_smooth(__u64 before, __u64 now);

/**
 * struct elastic_host_memory - how the host itself is off, in units
 * @available: what it could hand out without swapping
 * @low: below this it is short
 * @stalls: direct reclaims since the last look
 * @ooms: times that it ran out of memory since the last look
 * @ms: time since the last look
 */
struct elastic_host_memory {
	__u64 available;
	__u64 low;
	__u64 stalls;
	__u64 ooms;
	__u64 ms;
};

__u64 elastic_policy_pool(__u64 total, __u64 now, __u64 used,
			  const struct elastic_host_memory *host);

/**
 * struct elastic_shortage - for how long one resource has been short
 * @since_ms: since when it is as it is now, 0 at the start
 * @is_short: it is short now
 * @told: an advice stands
 */
struct elastic_shortage {
	__u64 since_ms;
	bool is_short;
	bool told;
};

bool elastic_policy_advise(struct elastic_shortage *s, __u64 missing,
			   __u64 now_ms, __u64 after_ms);

/**
 * enum elastic_move - why a VM is a candidate to be moved, best first
 * @ELASTIC_MOVE_UNCOOPERATIVE: it does not come down, and it alone would do
 * @ELASTIC_MOVE_ENOUGH: it alone would do
 * @ELASTIC_MOVE_PART: it would help
 * @ELASTIC_MOVE_NO: it would not
 */
enum elastic_move {
	ELASTIC_MOVE_UNCOOPERATIVE,
	ELASTIC_MOVE_ENOUGH,
	ELASTIC_MOVE_PART,
	ELASTIC_MOVE_NO,
};

/**
 * struct elastic_candidate - a VM that could be moved
 * @grant: what it has of the resource that is short
 * @cost: what moving it costs: its memory
 * @uncooperative: it has not come down by its deadline
 */
struct elastic_candidate {
	__u64 grant;
	__u64 cost;
	bool uncooperative;
};

enum elastic_move elastic_policy_move(const struct elastic_candidate *c,
				      __u64 missing);
bool elastic_policy_move_first(const struct elastic_candidate *a,
			       const struct elastic_candidate *b,
			       __u64 missing);

#endif /* ELASTIC_HOST_POLICY_H */
