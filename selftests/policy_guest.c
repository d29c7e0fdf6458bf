// SPDX-License-Identifier: GPL-2.0-only
/*
 * The guest's policy, table by table. It is the module's own file, compiled for
 * user space; no kernel is needed.
 */
#include "ktap.h"

#include "../guest-module/policy.c"

#define BLOCK	MIB(128)

/* ---- stolen time ---- */

static void test_steal(void)
{
	ktap_eq(policy_steal_permille(500, 500, 1000), 500, "steal: half of what was wanted");
	ktap_eq(policy_steal_permille(4000, 0, 1000), 0, "steal: nothing");
	ktap_eq(policy_steal_permille(0, 1000000, 1000000000), 0,
		"steal: a millisecond of an idle guest is not all");
	ktap_eq(policy_steal_permille(0, 100000000, 1000000000), 1000,
		"steal: of a guest that got nothing it is all");
	ktap_eq(policy_steal_permille(0, 0, 0), 0, "steal: no time at all");
}

/* ---- CPUs up ---- */

struct cpus_up_case {
	const char *name;
	__u64 window_milli;
	__u32 steal_permille;
	__u32 online;
	__u32 limit;
	__u32 want;
};

static const struct cpus_up_case cpus_up_cases[] = {
	{ "an idle window wants nothing",		0, 0, 1, 4, 1 },
	{ "one task fits one CPU",			1000, 0, 1, 4, 1 },
	{ "half a task may wait",			1500, 0, 1, 4, 1 },
	{ "a little more may not",			1501, 0, 1, 4, 2 },
	{ "four tasks get four CPUs in one step",	4000, 0, 1, 4, 4 },
	{ "the limit binds",				9000, 0, 1, 4, 4 },
	{ "a limit below what is online takes nothing here", 9000, 0, 3, 2, 3 },
	{ "fewer tasks than CPUs take nothing here",	1000, 0, 3, 4, 3 },
	{ "as much steal as allowed",			4000, 300, 1, 4, 4 },
	{ "CPUs would only be stolen",			4000, 301, 1, 4, 1 },
	{ "a huge count does not wrap",			~0ULL, 0, 1, 4, 4 },
	{ "more than 64 CPUs",				1000000, 0, 1, 4096, 1000 },
};

static void test_cpus_up(void)
{
	size_t i;

	for (i = 0; i < sizeof(cpus_up_cases) / sizeof(cpus_up_cases[0]); i++) {
		const struct cpus_up_case *c = &cpus_up_cases[i];

		ktap_eq(policy_cpus_up(&policy_defaults, c->window_milli, c->steal_permille,
				       c->online, c->limit), c->want, "cpus up: %s", c->name);
	}
}

/* ---- CPUs over time: each row is a sample, the state goes on ---- */

struct cpus_row {
	const char *name;
	__u64 now_ms;
	__u64 window_milli;
	__u64 runnable_milli;
	__u64 busy_milli;
	__u32 online;
	__u32 floor;
	__u32 limit;
	bool period;
	__u32 want;
};

static const struct cpus_row cpus_rows[] = {
	{ "growth needs no period",		0, 4000, 0, 0, 1, 1, 4, false, 4 },
	{ "idle for no time",			1000, 0, 0, 0, 4, 1, 4, true, 4 },
	{ "idle, but not yet for the delay",	5999, 0, 0, 0, 4, 1, 4, true, 4 },
	{ "idle for the delay",			6000, 0, 0, 0, 4, 1, 4, true, 1 },
	{ "idle again",				10000, 0, 0, 0, 4, 1, 4, true, 4 },
	{ "a look between periods takes nothing", 15000, 0, 0, 0, 4, 1, 4, false, 4 },
	{ "two busy for a while",		12000, 0, 2000, 2000, 4, 1, 4, true, 4 },
	{ "the most needed in the delay stays",	15000, 0, 0, 0, 4, 1, 4, true, 2 },
	{ "low again",				20000, 0, 0, 0, 4, 1, 4, true, 4 },
	{ "a busy period ends that",		24000, 0, 4000, 4000, 4, 1, 4, true, 4 },
	{ "so the delay begins anew",		26000, 0, 0, 0, 4, 1, 4, true, 4 },
	{ "and is not over",			30999, 0, 0, 0, 4, 1, 4, true, 4 },
	{ "until it is",			31000, 0, 0, 0, 4, 1, 4, true, 1 },
	{ "the floor holds",			40000, 0, 0, 0, 3, 2, 4, true, 3 },
	{ "down to it",				45000, 0, 0, 0, 3, 2, 4, true, 2 },
	{ "a floor above what is online is asked for", 46000, 0, 0, 0, 2, 3, 4, false, 3 },
	{ "but not above the limit",		46000, 0, 0, 0, 1, 3, 2, false, 2 },
	{ "a lower limit counts at once",	47000, 4000, 4000, 4000, 4, 1, 2, false, 2 },
	{ "also below the floor",		47000, 0, 0, 0, 4, 3, 2, false, 2 },
	{ "never none",				47000, 0, 0, 0, 1, 1, 0, true, 1 },
	{ "one and a bit busy keeps one",	50000, 0, 1150, 1000, 2, 1, 4, true, 2 },
	{ "after the delay",			55000, 0, 1150, 1000, 2, 1, 4, true, 1 },
	{ "one and a half keeps two",		60000, 0, 1500, 1000, 2, 1, 4, true, 2 },
	{ "for ever",				99000, 0, 1500, 1000, 2, 1, 4, true, 2 },
	{ "busy without a runnable count keeps two", 120000, 0, 0, 2000, 2, 1, 4, true, 2 },
	{ "also later",				130000, 0, 0, 2000, 2, 1, 4, true, 2 },
};

static void test_cpus(void)
{
	struct policy_cpu_state state = {};
	size_t i;

	for (i = 0; i < sizeof(cpus_rows) / sizeof(cpus_rows[0]); i++) {
		const struct cpus_row *r = &cpus_rows[i];
		struct policy_cpu_sample sample = {
			.now_ms = r->now_ms,
			.window_milli = r->window_milli,
			.runnable_milli = r->runnable_milli,
			.busy_milli = r->busy_milli,
			.online = r->online,
			.floor = r->floor,
			.limit = r->limit,
			.period = r->period,
		};

		ktap_eq(policy_cpus(&policy_defaults, &state, &sample), r->want, "cpus: %s",
			r->name);
	}
}

/* ---- memory that should be available ---- */

static void test_mem_need(void)
{
	struct policy_tunables tun = policy_defaults;

	ktap_eq(policy_mem_need(&tun, MIB(512), 0), MIB(128), "need: the reserve");
	ktap_eq(policy_mem_need(&tun, MIB(8000), 0), MIB(1000), "need: the share of much memory");
	ktap_eq(policy_mem_need(&tun, MIB(512), MIB(1000)), MIB(128) + MIB(1) * 1000 / 1000 * 300,
		"need: what falls away meanwhile");
	tun.mem_reserve_mib = 0;
	tun.mem_reserve_permille = 0;
	tun.mem_lookahead_ms = 0;
	ktap_eq(policy_mem_need(&tun, MIB(1 << 20), MIB(9999)), 0, "need: all off is none");
}

/* ---- memory over time ---- */

struct mem_row {
	const char *name;
	__u64 now_ms;
	__u32 total_mib;
	__u32 available_mib;
	__u32 rate_mib;
	__u32 blocks;
	__u32 floor;
	__u32 limit;
	__u32 reclaims;
	bool urgent;
	bool period;
	__u32 want;
};

/* keep: a regretted shrink is known by what the next one leaves */
static const struct mem_row mem_rows[] = {
	{ "enough",			0, 512, 384, 0, 0, 0, 28, 0, false, true, 0 },
	{ "a little short: one block",	100, 512, 127, 0, 0, 0, 28, 0, false, false, 1 },
	{ "falls fast: several",	200, 512, 300, 2000, 0, 0, 28, 0, false, false, 4 },
	{ "the step binds",		300, 512, 0, 10000, 0, 0, 28, 0, false, false, 8 },
	{ "the limit binds",		400, 512, 0, 10000, 3, 0, 4, 0, false, false, 4 },
	{ "nothing beyond the limit",	500, 512, 0, 10000, 4, 0, 4, 0, true, false, 4 },
	{ "reclaim near the reserve",	600, 512, 200, 0, 0, 0, 28, 1, false, false, 1 },
	{ "reclaim far from it",	700, 1024, 800, 0, 4, 0, 28, 9, false, false, 4 },
	{ "urgent with memory free",	800, 512, 400, 0, 0, 0, 28, 0, true, false, 1 },
	{ "surplus, but it falls fast",	900, 2560, 1400, 400, 16, 0, 28, 0, false, true, 16 },
	{ "surplus for no time",	1000, 2560, 2400, 0, 16, 0, 28, 0, false, true, 16 },
	{ "surplus, not long enough",	5999, 2560, 2400, 0, 16, 0, 28, 0, false, true, 16 },
	{ "a look between takes nothing", 6000, 2560, 2400, 0, 16, 0, 28, 0, false, false, 16 },
	{ "one step down",		6000, 2560, 2400, 0, 16, 0, 28, 0, false, true, 12 },
	{ "and another one",		7000, 2048, 1888, 0, 12, 0, 28, 0, false, true, 8 },
	{ "and another one",		8000, 1536, 1376, 0, 8, 0, 28, 0, false, true, 4 },
	{ "down to no block",		9000, 1024, 864, 0, 4, 0, 28, 0, false, true, 0 },
	{ "growth soon after: regret",	12000, 512, 100, 0, 0, 0, 28, 0, false, false, 1 },
	{ "surplus with the margin: no", 13000, 768, 400, 0, 2, 0, 28, 0, false, true, 2 },
	{ "for as long as it stands",	40000, 768, 400, 0, 2, 0, 28, 0, false, true, 2 },
	{ "the margin decays",		72000, 768, 400, 0, 2, 0, 28, 0, false, true, 2 },
	{ "then one may go",		77000, 768, 400, 0, 2, 0, 28, 0, false, true, 1 },
	{ "the floor stays",		100000, 2560, 2400, 0, 4, 4, 28, 0, false, true, 4 },
	{ "a floor above is asked for",	101000, 512, 400, 0, 0, 4, 28, 0, false, false, 4 },
	{ "but not above the limit",	101000, 512, 400, 0, 0, 4, 2, 0, false, false, 2 },
	{ "a lower limit counts at once", 102000, 1024, 100, 0, 8, 0, 3, 0, false, false, 3 },
	{ "also below the floor",	102000, 1024, 900, 0, 8, 6, 3, 0, false, false, 3 },
	{ "also when urgent",		102000, 1024, 0, 0, 8, 0, 3, 0, true, false, 3 },
};

static void test_mem(void)
{
	struct policy_mem_state state = {};
	size_t i;

	for (i = 0; i < sizeof(mem_rows) / sizeof(mem_rows[0]); i++) {
		const struct mem_row *r = &mem_rows[i];
		struct policy_mem_sample sample = {
			.now_ms = r->now_ms,
			.total = MIB(r->total_mib),
			.available = MIB(r->available_mib),
			.rate = MIB(r->rate_mib),
			.block = BLOCK,
			.blocks = r->blocks,
			.floor = r->floor,
			.limit = r->limit,
			.reclaims = r->reclaims,
			.urgent = r->urgent,
			.period = r->period,
		};

		ktap_eq(policy_mem(&policy_defaults, &state, &sample), r->want, "mem: %s", r->name);
	}
}

/* Grow, shrink, grow: each regret doubles the margin, up to its bound. */
static void test_mem_regret(void)
{
	static const __u64 keeps[] = { 128, 256, 512, 1024, 1024 };
	struct policy_mem_state state = {};
	struct policy_mem_sample sample = { .block = BLOCK, .limit = 28 };
	size_t i;

	for (i = 0; i < sizeof(keeps) / sizeof(keeps[0]); i++) {
		state.shrunk = true;
		state.shrunk_at_ms = sample.now_ms;
		sample.now_ms += 1000;
		sample.total = MIB(512);
		policy_mem(&policy_defaults, &state, &sample);
		ktap_eq(state.keep >> 20, keeps[i], "regret %zu: margin in MiB", i + 1);
	}
	sample.now_ms += policy_defaults.mem_regret_ms + 1000;
	state.shrunk = true;
	state.shrunk_at_ms = 0;
	state.keep = 0;
	policy_mem(&policy_defaults, &state, &sample);
	ktap_eq(state.keep, 0, "regret: a growth long after a shrink is none");
}

/* ---- zone and retry ---- */

static void test_zone(void)
{
	struct policy_tunables tun = policy_defaults;

	ktap_eq(policy_zone(&tun, POLICY_ZONE_MOVABLE, MIB(512), 0, BLOCK, false),
		POLICY_ZONE_MOVABLE, "zone: movable by default");
	ktap_eq(policy_zone(&tun, POLICY_ZONE_KERNEL, MIB(512), 0, BLOCK, false),
		POLICY_ZONE_KERNEL, "zone: kernel as set");
	ktap_eq(policy_zone(&tun, POLICY_ZONE_MOVABLE, MIB(512), 0, BLOCK, true),
		POLICY_ZONE_KERNEL, "zone: kernel when memory has run out");
	ktap_eq(policy_zone(&tun, POLICY_ZONE_MOVABLE, MIB(512), MIB(8064), BLOCK, false),
		POLICY_ZONE_KERNEL, "zone: kernel beyond the bound");
	tun.movable_max_percent = 0;
	ktap_eq(policy_zone(&tun, POLICY_ZONE_MOVABLE, MIB(512), MIB(99999), BLOCK, false),
		POLICY_ZONE_MOVABLE, "zone: no bound");
}

static void test_retry(void)
{
	static const __u32 delays[] = { 5000, 10000, 20000, 40000, 80000, 160000, 300000, 300000 };
	struct policy_tunables tun = policy_defaults;
	__u32 delay = 0;
	size_t i;

	for (i = 0; i < sizeof(delays) / sizeof(delays[0]); i++) {
		delay = policy_retry_ms(&tun, delay);
		ktap_eq(delay, delays[i], "retry %zu", i + 1);
	}
	tun.mem_retry_max_ms = 1;
	ktap_eq(policy_retry_ms(&tun, 0), 5000, "retry: a bound below the first delay");
	ktap_eq(policy_retry_ms(&policy_defaults, ~0U), 300000, "retry: no wrap");
}

int main(void)
{
	test_steal();
	test_cpus_up();
	test_cpus();
	test_mem_need();
	test_mem();
	test_mem_regret();
	test_zone();
	test_retry();
	return ktap_finish();
}
