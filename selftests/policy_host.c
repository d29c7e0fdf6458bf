// SPDX-License-Identifier: GPL-2.0-only
/*
 * The host's arbiter, table by table, and then what must hold for any numbers.
 * It is the module's own file, compiled for user space; no kernel is needed.
 */
#include "ktap.h"

#include "../host-module/policy.c"

static const struct grant_case {
	const char *name;
	__u64 total, used, grant, min, max, want;
	__u64 get;
	enum elastic_reason reason;
} grant_cases[] = {
	{ "nothing is wanted", 16, 4, 1, 0, 4, 0, 0, ELASTIC_R_NONE },
	{ "there is enough", 16, 4, 1, 0, 4, 3, 3, ELASTIC_R_NONE },
	{ "up to the maximum", 16, 4, 1, 0, 4, 9, 3, ELASTIC_R_MAX },
	{ "at the maximum", 16, 4, 4, 0, 4, 1, 0, ELASTIC_R_MAX },
	{ "above the maximum, which was lowered", 16, 8, 8, 0, 4, 1, 0, ELASTIC_R_MAX },
	{ "up to what the pool has", 16, 14, 1, 0, 8, 5, 2, ELASTIC_R_POOL },
	{ "just what the pool has", 16, 14, 1, 0, 8, 2, 2, ELASTIC_R_NONE },
	{ "an empty pool", 16, 16, 1, 0, 8, 1, 0, ELASTIC_R_POOL },
	{ "an overdrawn pool", 16, 40, 1, 0, 8, 1, 0, ELASTIC_R_POOL },
	{ "no pool at all", 0, 0, 0, 0, 8, 1, 0, ELASTIC_R_POOL },
	{ "below its minimum, an empty pool", 16, 16, 1, 4, 8, 3, 3, ELASTIC_R_NONE },
	{ "below its minimum, an overdrawn pool", 16, 40, 1, 4, 8, 3, 3, ELASTIC_R_NONE },
	{ "across its minimum, an empty pool", 16, 16, 1, 4, 8, 5, 3, ELASTIC_R_POOL },
	{ "across its minimum, a pool with one", 16, 15, 1, 4, 8, 5, 4, ELASTIC_R_POOL },
	{ "across its minimum, a pool with enough", 16, 14, 1, 4, 8, 5, 5, ELASTIC_R_NONE },
	{ "at its minimum, an empty pool", 16, 16, 4, 4, 8, 1, 0, ELASTIC_R_POOL },
	{ "the maximum binds before the pool", 16, 15, 1, 0, 2, 5, 1, ELASTIC_R_MAX },
	{ "the pool binds before the maximum", 16, 15, 1, 0, 4, 5, 1, ELASTIC_R_POOL },
	{ "all there can be", ~0ULL, 0, 0, 0, ~0ULL, ~0ULL, ~0ULL, ELASTIC_R_NONE },
	{ "more than there can be", ~0ULL, 1, 1, 0, ~0ULL, ~0ULL, ~0ULL - 1, ELASTIC_R_MAX },
};

static void grants(void)
{
	size_t i;

	for (i = 0; i < sizeof(grant_cases) / sizeof(*grant_cases); i++) {
		const struct grant_case *c = &grant_cases[i];
		struct elastic_ask ask = {
			.pool_total = c->total, .pool_used = c->used, .grant = c->grant,
			.min = c->min, .max = c->max, .want = c->want,
		};
		enum elastic_reason reason = ELASTIC_R_NR;
		__u64 got = elastic_policy_grant(&ask, &reason);

		if (got != c->get || reason != c->reason)
			ktap_diag("got %llu, reason %d; want %llu, reason %d",
				  (unsigned long long)got, reason, (unsigned long long)c->get,
				  c->reason);
		ktap_ok(got == c->get && reason == c->reason, "%s", c->name);
	}
}

static void charges(void)
{
	ktap_eq((long long)elastic_policy_charge(5, 0), 5, "without a minimum the grant is charged");
	ktap_eq((long long)elastic_policy_charge(5, 5), 5, "a minimum that is used is not charged twice");
	ktap_eq((long long)elastic_policy_charge(0, 5), 5, "a minimum that is not used is kept free");
	ktap_eq((long long)elastic_policy_charge(7, 5), 7, "beyond the minimum the grant is charged");
}

/* All small numbers: what must hold whatever they are */
static void invariants(void)
{
	unsigned long cases = 0, over = 0, overdrawn = 0, silent = 0, mean = 0, starved = 0;
	__u64 total, used, grant, min, max, want;

	for (total = 0; total < 7; total++)
	for (used = 0; used < 9; used++)
	for (grant = 0; grant < 6; grant++)
	for (min = 0; min < 6; min++)
	for (max = min; max < 7; max++)
	for (want = 0; want < 7; want++) {
		struct elastic_ask ask = { total, used, grant, min, max, want };
		enum elastic_reason reason = ELASTIC_R_NR;
		__u64 before = elastic_policy_charge(grant, min), got, after;

		/* This VM is part of what is used */
		if (used < before)
			continue;
		cases++;
		got = elastic_policy_grant(&ask, &reason);
		after = used - before + elastic_policy_charge(grant + got, min);
		over += got > want || (got && grant + got > max);
		/* A grant never makes the pool more overdrawn than it was */
		overdrawn += after > total && after > used;
		silent += (got < want) != (reason != ELASTIC_R_NONE);
		/* One more would have been possible */
		if (got < want && grant + got < max) {
			__u64 more = used - before + elastic_policy_charge(grant + got + 1, min);

			mean += more <= total || more <= used;
		}
		starved += grant < min && want && max >= min && got < 1;
	}
	ktap_ok(cases > 10000, "%lu cases", cases);
	ktap_eq((long long)over, 0, "never more than wanted, never above the maximum");
	ktap_eq((long long)overdrawn, 0, "no grant overdraws the pool");
	ktap_eq((long long)silent, 0, "a reason is given if and only if it is less than wanted");
	ktap_eq((long long)mean, 0, "nothing that could be granted is kept back");
	ktap_eq((long long)starved, 0, "below its minimum a VM always gets something");
}

int main(void)
{
	grants();
	charges();
	invariants();
	return ktap_finish();
}
