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
			.pool_total = c->total, .pool_used = c->used, .pool_planned = c->used,
			.grant = c->grant, .min = c->min, .max = c->max, .want = c->want,
			.target = ~0ULL, .entitled = ~0ULL,
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

/* What the last round and the bucket add to it */
static const struct bound_case {
	const char *name;
	__u64 planned, plan, target, entitled, tokens;
	__u64 get;
	enum elastic_reason reason;
} bound_cases[] = {
	/* A pool of 16, 10 of it used, 2 of that by this VM; 5 more are wanted */
	{ "in the plan", 16, 7, 7, 7, 0, 5, ELASTIC_R_NONE },
	{ "the plan is less", 16, 4, 9, 9, 0, 2, ELASTIC_R_POOL },
	{ "the plan is less, but not all is planned", 14, 4, 9, 9, 0, 4, ELASTIC_R_POOL },
	{ "the others are to get all", 16, 2, 9, 9, 0, 0, ELASTIC_R_POOL },
	{ "the target is less", 10, 4, 5, 9, 0, 3, ELASTIC_R_POOL },
	{ "the target is below what it has", 10, 1, 1, 9, 0, 0, ELASTIC_R_POOL },
	{ "beyond what it is entitled to", 10, 2, 9, 4, 9, 5, ELASTIC_R_NONE },
	{ "beyond that, slowly", 10, 2, 9, 4, 1, 3, ELASTIC_R_RATE },
	{ "beyond that, without a token", 10, 2, 9, 4, 0, 2, ELASTIC_R_RATE },
	{ "the plan counts on what others still have", 20, 12, 12, 12, 0, 5, ELASTIC_R_NONE },
};

static void bounds(void)
{
	/* Its minimum was raised since the last round */
	struct elastic_ask late = { .pool_total = 16, .pool_used = 16, .pool_planned = 16,
				    .grant = 2, .min = 5, .max = 9, .want = 5, .plan = 2,
				    .target = 2, .entitled = 2 };
	enum elastic_reason late_reason;
	size_t i;

	ktap_eq((long long)elastic_policy_grant(&late, &late_reason), 3,
		"a minimum goes before a target that is older");

	for (i = 0; i < sizeof(bound_cases) / sizeof(*bound_cases); i++) {
		const struct bound_case *c = &bound_cases[i];
		struct elastic_ask ask = {
			.pool_total = 16, .pool_used = 10, .pool_planned = c->planned,
			.grant = 2, .max = 16, .want = 5, .plan = c->plan,
			.target = c->target, .entitled = c->entitled, .tokens = c->tokens,
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

/* One round, by hand: at most five VMs */
struct small {
	__u64 min, max, weight, grant, use, need;
	__u64 entitled, plan, target;
};

static const struct round_case {
	const char *name;
	__u64 total;
	struct small vm[5];
} round_cases[] = {
	{ "one VM may have all", 8, { { 0, 8, 100, 1, 1, 1, 8, 1, 8 } } },
	{ "but not more than its maximum", 8, { { 0, 4, 100, 1, 1, 1, 4, 1, 4 } } },
	{ "two that want all share", 8, {
		{ 0, 8, 100, 1, 1, 8, 4, 4, 4 }, { 0, 8, 100, 1, 1, 8, 4, 4, 4 } } },
	{ "by weight", 8, {
		{ 0, 8, 300, 1, 1, 8, 6, 6, 6 }, { 0, 8, 100, 1, 1, 8, 2, 2, 2 } } },
	{ "on top of their minimums", 8, {
		{ 4, 8, 100, 4, 4, 8, 6, 6, 6 }, { 0, 8, 100, 1, 1, 8, 2, 2, 2 } } },
	{ "what one does not need the other borrows", 8, {
		{ 0, 8, 100, 1, 1, 1, 4, 1, 4 }, { 0, 8, 100, 4, 4, 8, 4, 7, 7 } } },
	{ "a minimum is not lent", 8, {
		{ 3, 8, 100, 1, 1, 1, 6, 3, 6 }, { 0, 8, 100, 3, 3, 8, 2, 5, 5 } } },
	{ "it comes back when its owner needs it", 8, {
		{ 0, 8, 100, 1, 1, 8, 4, 4, 4 }, { 0, 8, 100, 7, 7, 8, 4, 4, 4 } } },
	{ "nobody comes down without need", 8, {
		{ 0, 8, 100, 6, 1, 1, 4, 6, 6 }, { 0, 8, 100, 1, 1, 2, 4, 2, 4 } } },
	{ "no more than is missing", 8, {
		{ 0, 8, 100, 6, 1, 1, 4, 5, 5 }, { 0, 8, 100, 1, 1, 3, 4, 3, 4 } } },
	{ "who holds most beyond its use gives first", 12, {
		{ 0, 9, 100, 5, 1, 1, 4, 3, 3 }, { 0, 9, 100, 5, 4, 4, 4, 5, 5 },
		{ 0, 9, 100, 2, 2, 4, 4, 4, 4 } } },
	{ "for its weight", 12, {
		{ 0, 9, 400, 5, 1, 1, 8, 5, 8 }, { 0, 9, 100, 5, 1, 1, 2, 4, 4 },
		{ 0, 9, 100, 2, 2, 3, 2, 3, 3 } } },
	{ "beyond its maximum it comes down in any case", 12, {
		{ 0, 3, 100, 5, 5, 5, 3, 3, 3 } } },
	{ "the minimums are more than there is", 4, {
		{ 3, 8, 100, 5, 5, 8, 3, 3, 3 }, { 3, 8, 100, 3, 3, 8, 3, 3, 3 } } },
};

static void rounds(void)
{
	size_t i, k, nr;

	for (i = 0; i < sizeof(round_cases) / sizeof(*round_cases); i++) {
		const struct round_case *c = &round_cases[i];
		struct elastic_claim claims[5] = { };
		bool good = true;

		for (nr = 0; nr < 5 && c->vm[nr].weight; nr++) {
			const struct small *s = &c->vm[nr];

			claims[nr] = (struct elastic_claim) {
				.min = s->min, .max = s->max, .weight = s->weight,
				.grant = s->grant, .use = s->use, .need = s->need,
			};
		}
		elastic_policy_divide(c->total, claims, nr);
		for (k = 0; k < nr; k++) {
			const struct small *s = &c->vm[k];

			if (claims[k].entitled == s->entitled && claims[k].plan == s->plan &&
			    claims[k].target == s->target)
				continue;
			ktap_diag("VM %zu: entitled %llu, plan %llu, target %llu; want %llu, %llu, %llu",
				  k, (unsigned long long)claims[k].entitled,
				  (unsigned long long)claims[k].plan,
				  (unsigned long long)claims[k].target,
				  (unsigned long long)s->entitled, (unsigned long long)s->plan,
				  (unsigned long long)s->target);
			good = false;
		}
		ktap_ok(good, "%s", c->name);
	}
}

static void cpu_need(const char *what, struct elastic_cpu_demand d, __u64 use, __u64 need)
{
	struct elastic_need n = elastic_policy_cpu_need(&d);

	if (n.use != use || n.need != need)
		ktap_diag("use %llu, need %llu; want %llu, %llu", (unsigned long long)n.use,
			  (unsigned long long)n.need, (unsigned long long)use,
			  (unsigned long long)need);
	ktap_ok(n.use == use && n.need == need, "vCPUs: %s", what);
}

static void mem_need(const char *what, struct elastic_mem_demand d, __u64 use, __u64 need)
{
	struct elastic_need n = elastic_policy_mem_need(&d);

	if (n.use != use || n.need != need)
		ktap_diag("use %llu, need %llu; want %llu, %llu", (unsigned long long)n.use,
			  (unsigned long long)n.need, (unsigned long long)use,
			  (unsigned long long)need);
	ktap_ok(n.use == use && n.need == need, "memory: %s", what);
}

/* What is said, and what is believed of it */
static void needs(void)
{
	const __u64 all = ~0ULL;

	/* wanted, runnable, busy, seen, max */
	cpu_need("an idle guest", (struct elastic_cpu_demand){ 1, 20, 10, 15, 8 }, 0, 1);
	cpu_need("a busy one", (struct elastic_cpu_demand){ 4, 3900, 3900, 3950, 8 }, 4, 4);
	cpu_need("one that wants more", (struct elastic_cpu_demand){ 8, 7900, 2000, 2000, 8 }, 2, 5);
	cpu_need("one that lies", (struct elastic_cpu_demand){ all, all, all, 20, 8 }, 0, 1);
	cpu_need("one that burns one vCPU and lies",
		 (struct elastic_cpu_demand){ all, all, all, 1000, 8 }, 1, 3);
	cpu_need("one that says nothing", (struct elastic_cpu_demand){ 0, 0, 0, 4000, 8 }, 0, 0);
	cpu_need("not beyond the maximum", (struct elastic_cpu_demand){ 9, 9000, 8000, 8000, 6 }, 8, 6);
	/* grant, wanted, available, pressed, resident, max */
	mem_need("an idle guest", (struct elastic_mem_demand){ 1000, 1000, 900, false, 500, 2000 }, 100, 120);
	mem_need("a full one", (struct elastic_mem_demand){ 1000, 1100, 0, true, 1000, 2000 }, 1000, 1250);
	mem_need("one that lies", (struct elastic_mem_demand){ 1000, all, 0, true, 100, 2000 }, 100, 278);
	mem_need("more available than there is", (struct elastic_mem_demand){ 1000, 0, all, false, 100, 2000 }, 0, 0);
	mem_need("not beyond the maximum", (struct elastic_mem_demand){ 1000, 0, 0, false, 1000, 900 }, 1000, 900);
	ktap_eq((long long)elastic_policy_smooth(100, 300), 300, "a need rises at once");
	ktap_eq((long long)elastic_policy_smooth(100, 95), 100, "a little less is nothing");
	ktap_eq((long long)elastic_policy_smooth(100, 20), 40, "much less comes in steps");
	ktap_eq((long long)elastic_policy_smooth(2, 1), 1, "also of few");
}

static void tokens(void)
{
	struct elastic_bucket b = { .milli = 0, .at_ms = 1000 };

	ktap_eq((long long)elastic_policy_tokens(&b, 1500, 4, 8), 2, "half a second, 4 a second: 2");
	ktap_eq((long long)elastic_policy_tokens(&b, 1600, 4, 8), 2, "nothing is lost by looking");
	ktap_eq((long long)elastic_policy_tokens(&b, 1750, 4, 8), 3, "and the rest comes");
	ktap_eq((long long)elastic_policy_tokens(&b, ~0ULL, 4, 8), 8, "no more than the bucket holds");
	ktap_eq((long long)elastic_policy_tokens(&b, 5, ~0ULL, 8), 8, "time cannot run backwards");
	ktap_eq((long long)elastic_policy_tokens(&b, 1, 1, 0), 0, "a bucket that holds nothing");
}

static void host_memory(void)
{
	struct elastic_host_memory fine = { .available = 500, .low = 100, .ms = 1000 };
	struct elastic_host_memory near = { .available = 120, .low = 100, .ms = 1000 };
	struct elastic_host_memory bad = { .available = 60, .low = 100, .ms = 1000 };
	struct elastic_host_memory stalls = { .available = 120, .low = 100, .stalls = 3, .ms = 9 };
	struct elastic_host_memory oom = { .available = 120, .low = 100, .ooms = 1, .ms = 9 };

	ktap_eq((long long)elastic_policy_pool(6400, 6400, 3000, &fine), 6400, "a pool is what it was set to");
	ktap_eq((long long)elastic_policy_pool(6400, 6400, 3000, &bad), 2960, "a short host takes what it misses");
	ktap_eq((long long)elastic_policy_pool(6400, 2960, 2990, &bad), 2950, "as long as it misses it");
	ktap_eq((long long)elastic_policy_pool(6400, 2960, 3100, &bad), 2960, "and does not give in meanwhile");
	ktap_eq((long long)elastic_policy_pool(6400, 2960, 2900, &near), 2960, "nearly short: neither more nor less");
	ktap_eq((long long)elastic_policy_pool(6400, 2960, 2900, &fine), 3060, "grows back slowly");
	ktap_eq((long long)elastic_policy_pool(6400, 6390, 2900, &fine), 6400, "up to what it was set to");
	ktap_eq((long long)elastic_policy_pool(6400, 6400, 3000, &stalls), 2975, "reclaim takes something");
	ktap_eq((long long)elastic_policy_pool(6400, 6400, 3000, &oom), 2900, "running out takes more");
	ktap_eq((long long)elastic_policy_pool(6400, 6400, 30, &bad), 0, "not below nothing");
	ktap_eq((long long)elastic_policy_pool(2000, 6400, 30, &fine), 2000, "a pool that was lowered");
	ktap_eq((long long)elastic_policy_pool(~0ULL, 0, 0, &fine) > 0, 1, "a boundless pool grows");
}

static void admission(void)
{
	ktap_ok(elastic_policy_admit(10, 8, 2), "a minimum that fits");
	ktap_ok(!elastic_policy_admit(10, 8, 3), "one that does not");
	ktap_ok(elastic_policy_admit(10, 12, 0), "no minimum always fits");
	ktap_ok(!elastic_policy_admit(10, 12, 1), "nothing fits into a pool that is short");
	ktap_ok(!elastic_policy_admit(10, ~0ULL, ~0ULL), "no wrapping around");
}

static bool first(struct elastic_candidate a, struct elastic_candidate b, __u64 missing)
{
	return elastic_policy_move_first(&a, &b, missing) &&
	       !elastic_policy_move_first(&b, &a, missing);
}

#define C(...) ((struct elastic_candidate){ __VA_ARGS__ })

static void advice(void)
{
	struct elastic_shortage s = { };
	struct elastic_claim two[] = {
		{ .max = 8, .weight = 100, .grant = 1, .need = 7 },
		{ .max = 8, .weight = 100, .grant = 1, .need = 6 },
	};

	ktap_eq((long long)elastic_policy_divide(8, two, 2), 5, "7 and 6 of 8: 5 are missing");
	ktap_eq((long long)elastic_policy_divide(13, two, 2), 0, "of 13: none");

	ktap_ok(!elastic_policy_advise(&s, 5, 1000, 500), "short: nothing is said at once");
	ktap_ok(!elastic_policy_advise(&s, 3, 1499, 500) && !s.told, "nor before its time");
	ktap_ok(elastic_policy_advise(&s, 3, 1500, 500) && s.told, "then it is");
	ktap_ok(!elastic_policy_advise(&s, 9, 9000, 500) && s.told, "once");
	ktap_ok(!elastic_policy_advise(&s, 0, 9100, 500) && s.told, "a moment with enough is nothing");
	ktap_ok(!elastic_policy_advise(&s, 1, 9200, 500) && s.told, "it is short again");
	ktap_ok(!elastic_policy_advise(&s, 0, 9300, 500) && s.told, "enough again");
	ktap_ok(elastic_policy_advise(&s, 0, 9800, 500) && !s.told, "for long enough: over");
	ktap_ok(!elastic_policy_advise(&s, 1, 9900, 500) && !elastic_policy_advise(&s, 0, 10200, 500) &&
		!elastic_policy_advise(&s, 1, 10300, 500) && !s.told, "short moments are nothing");

	/* grant, cost, uncooperative */
	ktap_ok(first(C(4, 900, false), C(2, 10, false), 3), "one that is enough before a cheap one");
	ktap_ok(first(C(4, 10, false), C(8, 900, false), 3), "of those the cheaper");
	ktap_ok(first(C(4, 900, true), C(4, 10, false), 3), "but who does not come down first");
	ktap_ok(first(C(2, 900, false), C(1, 10, false), 3), "if none is enough, the largest");
	ktap_ok(first(C(1, 900, false), C(0, 10, true), 3), "who has nothing last");
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
		struct elastic_ask ask = {
			.pool_total = total, .pool_used = used, .pool_planned = used,
			.grant = grant, .min = min, .max = max, .want = want,
			.target = max, .entitled = max,
		};
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
	bounds();
	rounds();
	needs();
	tokens();
	host_memory();
	admission();
	advice();
	charges();
	invariants();
	return ktap_finish();
}
