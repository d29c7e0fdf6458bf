/* SPDX-License-Identifier: GPL-2.0 */
/* Copyright (C) the kvm-elastic authors */
/*
 * Which CPUs of the host suit a vCPU, and which vCPU a VM had best give up. As
 * policy.h: no locks, no clock, no allocation.
 */
#ifndef ELASTIC_HOST_POLICY_PLACE_H
#define ELASTIC_HOST_POLICY_PLACE_H

#include <linux/types.h>
#ifndef __KERNEL__
#include <stdbool.h>
#endif

/**
 * struct elastic_spot - one CPU of the host, for one thread
 * @cache: the last-level cache that it shares with all others of that number
 * @busy: how busy it is, in thousandths
 * @allowed: the thread may run there
 * @near: the VM's memory is there, or nobody knows where it is
 * @chosen: result
 */
struct elastic_spot {
	__u32 cache;
	__u32 busy;
	bool allowed;
	bool near;
	bool chosen;
};

unsigned int elastic_policy_place(struct elastic_spot *spots, unsigned int nr);
__u32 elastic_policy_place_cost(const struct elastic_spot *spots,
				unsigned int nr);
bool elastic_policy_place_better(__u32 now, __u32 then);

/**
 * struct elastic_seat_look - one vCPU, as far as it matters who goes first
 * @may_go: granted, and not the one that booted
 * @placed: it has been placed, so that @cost means something
 * @cost: of its place
 * @ran_ns: time that its thread ran lately
 * @waited_ns: time that it waited for a CPU
 */
struct elastic_seat_look {
	bool may_go;
	bool placed;
	__u32 cost;
	__u64 ran_ns;
	__u64 waited_ns;
};

bool elastic_policy_goes_first(const struct elastic_seat_look *a,
			       const struct elastic_seat_look *b);

#endif /* ELASTIC_HOST_POLICY_PLACE_H */
