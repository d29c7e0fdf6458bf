/* SPDX-License-Identifier: GPL-2.0 */
/* Copyright (C) the kvm-elastic authors */
/* The arbiter: numbers in, numbers out. Compiles in user space, too. */
#ifndef ELASTIC_HOST_POLICY_H
#define ELASTIC_HOST_POLICY_H

#include <linux/types.h>

#include "uapi/elastic_hypercall.h"

/**
 * struct elastic_ask - one VM asks for more of one resource
 * @pool_total: what the host has for all VMs, in vCPUs or units
 * @pool_used: the sum of max(grant, min) over all VMs, this one included
 * @grant: what the VM has
 * @min: what is kept free for it
 * @max: what it may have at most
 * @want: how much more it asks for
 */
struct elastic_ask {
	__u64 pool_total;
	__u64 pool_used;
	__u64 grant;
	__u64 min;
	__u64 max;
	__u64 want;
};

__u64 elastic_policy_grant(const struct elastic_ask *ask,
			   enum elastic_reason *reason);
__u64 elastic_policy_charge(__u64 grant, __u64 min);

#endif /* ELASTIC_HOST_POLICY_H */
