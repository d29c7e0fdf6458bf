// SPDX-License-Identifier: GPL-2.0
// Copyright (C) the kvm-elastic authors
/*
 * The arbiter. Each VM has a minimum and a maximum; what the pool has beyond
 * all minimums goes to whoever asks first.
 */
#include "policy.h"

static __u64 smaller(__u64 a, __u64 b)
{
	return a < b ? a : b;
}

/**
 * elastic_policy_charge() - what one VM takes out of the pool
 * @grant: what it has
 * @min: what is kept free for it
 *
 * Return: the larger of both: a minimum that is not used is not lent out.
 */
__u64 elastic_policy_charge(__u64 grant, __u64 min)
{
	return grant > min ? grant : min;
}

/**
 * elastic_policy_grant() - how much of a request is granted
 * @ask: the request and what bounds it
 * @reason: set to why it is not all, ELASTIC_R_NONE if it is
 *
 * A VM below its minimum draws on what is kept for it, also when the pool is
 * overdrawn (its total was lowered, or VMs came with more than it had).
 *
 * Return: how much of @ask->want is granted, in the unit of @ask.
 */
__u64 elastic_policy_grant(const struct elastic_ask *ask,
			   enum elastic_reason *reason)
{
	__u64 own = elastic_policy_charge(ask->grant, ask->min) - ask->grant;
	__u64 free = ask->pool_total > ask->pool_used ?
		     ask->pool_total - ask->pool_used : 0;
	__u64 room = ask->max > ask->grant ? ask->max - ask->grant : 0;
	__u64 n = smaller(ask->want, room);

	*reason = n < ask->want ? ELASTIC_R_MAX : ELASTIC_R_NONE;
	if (n > own && n - own > free) {
		n = own + free;
		*reason = ELASTIC_R_POOL;
	}
	return n;
}
