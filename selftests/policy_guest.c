// SPDX-License-Identifier: GPL-2.0-only
/*
 * The guest's policy, table by table. It is the module's own file, compiled for
 * user space; no kernel is needed.
 */
#include "ktap.h"

#include "../guest-module/policy.c"

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

static struct policy_room room(__u64 total_mib, __u64 available_mib, __u64 rate_mib)
{
	return (struct policy_room){ MIB(total_mib), MIB(available_mib), MIB(rate_mib) };
}

static void test_mem_need(void)
{
	struct policy_tunables tun = policy_defaults;
	struct policy_room all = room(512, 0, 0), kernel = room(512, 0, 0);

	ktap_eq(policy_mem_need(&tun, &all), MIB(128), "need: the reserve");
	ktap_eq(policy_kernel_need(&tun, &kernel), MIB(48), "need: the kernel's");
	all = room(8000, 0, 0);
	kernel = room(8000, 0, 0);
	ktap_eq(policy_mem_need(&tun, &all), MIB(1000), "need: the share of much memory");
	ktap_eq(policy_kernel_need(&tun, &kernel), MIB(480), "need: the kernel's share");
	all = room(512, 0, 1000);
	ktap_eq(policy_mem_need(&tun, &all), MIB(128) + MIB(1) * 1000 / 1000 * 300,
		"need: what falls away meanwhile");
	all = room(512, 128, 0);
	kernel = room(512, 48, 0);
	ktap_ok(!policy_mem_short(&tun, &all, &kernel), "short: neither");
	all.available--;
	ktap_ok(policy_mem_short(&tun, &all, &kernel), "short: memory");
	all.available++;
	kernel.available--;
	ktap_ok(policy_mem_short(&tun, &all, &kernel), "short: memory for the kernel alone");
	all = room(512, 164, 0);
	ktap_ok(!policy_mem_short_now(&tun, &all, MIB(100)), "short now: half of the reserve is there");
	all.available--;
	ktap_ok(policy_mem_short_now(&tun, &all, MIB(100)), "short now: less than that");
	all = room(512, 60, 0);
	ktap_ok(policy_mem_short_now(&tun, &all, MIB(100)), "short now: more is hidden than is there");
	ktap_ok(!policy_mem_short_now(&tun, &all, 0), "short now: nothing is hidden");
	tun.mem_reserve_mib = 0;
	tun.mem_reserve_permille = 0;
	tun.mem_lookahead_ms = 0;
	all = room(1 << 20, 0, 9999);
	ktap_eq(policy_mem_need(&tun, &all), 0, "need: all off is none");
}

/* ---- memory over time ---- */

#define UNIT	MIB(2)

struct mem_row {
	const char *name;
	__u64 now_ms;
	__u32 total_mib;
	__u32 available_mib;
	__u32 rate_mib;
	__u32 kernel_mib;	/* of 512 MiB, or of 1300 where more is available */
	__u32 kernel_rate_mib;
	__u32 used;
	__u32 used_kernel;
	__u32 floor;
	__u32 limit;
	__u32 reclaims;
	bool urgent;
	bool period;
	__u32 want;
	__u32 want_kernel;
};

static const struct mem_row mem_rows[] = {
	{ "enough",
		0,	512, 384, 0,	400, 0,	0, 0,	0, 900,	0, false, true,		0, 0 },
	{ "a little short: a step",
		100,	512, 127, 0,	400, 0,	0, 0,	0, 900,	0, false, false,	8, 0 },
	{ "falls fast: what falls away meanwhile",
		200,	512, 300, 2000,	400, 0,	0, 0,	0, 900,	0, false, false,	216, 0 },
	{ "the largest step binds",
		300,	512, 0, 10000,	400, 0,	0, 0,	0, 900,	0, false, false,	512, 0 },
	{ "the limit binds",
		400,	512, 0, 10000,	400, 0,	200, 0,	0, 204,	0, false, false,	204, 0 },
	{ "nothing beyond the limit",
		500,	512, 0, 10000,	400, 0,	204, 0,	0, 204,	0, false, false,	204, 0 },
	{ "reclaim near the reserve",
		600,	512, 200, 0,	400, 0,	0, 0,	0, 900,	1, false, false,	32, 0 },
	{ "again at once: twice as much",
		700,	576, 200, 0,	400, 0,	32, 0,	0, 900,	1, false, false,	96, 0 },
	{ "and again",
		800,	704, 200, 0,	400, 0,	96, 0,	0, 900,	1, false, false,	224, 0 },
	{ "after a pause it begins anew",
		2000,	960, 200, 0,	400, 0,	224, 0,	0, 900,	1, false, false,	256, 0 },
	{ "reclaim far from both reserves",
		2100,	1024, 800, 0,	400, 0,	256, 0,	0, 900,	9, false, false,	256, 0 },
	{ "out of memory with memory free: the kernel's",
		4000,	1024, 400, 0,	400, 0,	256, 0,	0, 900,	0, true, false,		288, 32 },
	{ "out of memory: no share bounds that",
		4100,	2048, 400, 0,	400, 0,	768, 700, 0, 900, 0, true, false,	832, 764 },
	{ "short of kernel memory alone",
		6000,	1024, 400, 0,	40, 0,	256, 0,	0, 900,	0, false, false,	264, 8 },
	{ "kernel memory falls fast",
		7000,	1024, 400, 0,	40, 200, 256, 0, 0, 900, 0, false, false,	296, 40 },
	{ "not beyond its share",
		8000,	2048, 400, 0,	40, 200, 700, 674, 0, 900, 0, false, false,	701, 675 },
	{ "both are short",
		9000,	1024, 100, 0,	40, 0,	256, 0,	0, 900,	0, false, false,	272, 8 },
	{ "surplus, but it falls fast",
		9500,	2560, 1400, 500, 400, 0, 1024, 0, 0, 1100, 0, false, true,	1024, 0 },
	{ "surplus for no time",
		10000,	2560, 1000, 0,	400, 0,	1024, 0, 0, 1100, 0, false, true,	1024, 0 },
	{ "surplus, not long enough",
		11999,	2560, 1000, 0,	400, 0,	1024, 0, 0, 1100, 0, false, true,	1024, 0 },
	{ "a look between takes nothing",
		12000,	2560, 1000, 0,	400, 0,	1024, 0, 0, 1100, 0, false, false,	1024, 0 },
	{ "down to the reserve and the margin",
		12000,	2560, 1000, 0,	400, 0,	1024, 0, 0, 1100, 0, false, true,	672, 0 },
	{ "growth soon after",
		15000,	1856, 100, 0,	400, 0,	672, 0,	0, 1100, 0, false, false,	744, 0 },
	{ "surplus with the margin: no",
		16000,	2000, 385, 0,	400, 0,	744, 0,	0, 1100, 0, false, true,	744, 0 },
	{ "surplus beyond the margin",
		17000,	2560, 2400, 0,	900, 0,	1000, 400, 0, 1100, 0, false, true,	1000, 400 },
	{ "kernel memory only to its reserve",
		19000,	2560, 2400, 0,	900, 0,	1000, 400, 0, 1100, 0, false, true,	6, 6 },
	{ "the floor stays",
		100000,	2560, 2400, 0,	400, 0,	256, 0,	256, 900, 0, false, true,	256, 0 },
	{ "a floor above is asked for",
		101000,	512, 400, 0,	400, 0,	0, 0,	256, 900, 0, false, false,	256, 0 },
	{ "but not above the limit",
		101000,	512, 400, 0,	400, 0,	0, 0,	256, 128, 0, false, false,	128, 0 },
	{ "a lower limit counts at once",
		102000,	1024, 100, 0,	40, 0,	512, 80, 0, 100, 0, false, false,	100, 0 },
	{ "also below the floor",
		102000,	1024, 900, 0,	400, 0,	512, 0,	200, 100, 0, false, false,	100, 0 },
	{ "also when memory has run out",
		102000,	1024, 0, 0,	400, 0,	512, 0,	0, 100,	0, true, false,		100, 0 },
	{ "surplus of all that can be had, for no time",
		110000,	2560, 1000, 0,	400, 0,	1024, 0, 0, 1024, 0, false, true,	1024, 0 },
	{ "it is needed meanwhile",
		111500,	2560, 100, 0,	400, 0,	1024, 0, 0, 1024, 0, false, false,	1024, 0 },
	{ "and is none for long any more",
		112500,	2560, 1000, 0,	400, 0,	1024, 0, 0, 1024, 0, false, true,	1024, 0 },
	{ "until it was for as long again",
		114500,	2560, 1000, 0,	400, 0,	1024, 0, 0, 1024, 0, false, true,	693, 0 },
};

static void test_mem(void)
{
	struct policy_mem_state state = {};
	struct policy_mem_want want;
	size_t i;

	for (i = 0; i < sizeof(mem_rows) / sizeof(mem_rows[0]); i++) {
		const struct mem_row *r = &mem_rows[i];
		struct policy_mem_sample sample = {
			.now_ms = r->now_ms,
			.all = room(r->total_mib, r->available_mib, r->rate_mib),
			.kernel = room(r->kernel_mib > 512 ? 1300 : 512, r->kernel_mib,
				       r->kernel_rate_mib),
			.unit = UNIT,
			.used = r->used,
			.used_kernel = r->used_kernel,
			.usable = 900,
			.floor = r->floor,
			.limit = r->limit,
			.reclaims = r->reclaims,
			.urgent = r->urgent,
			.period = r->period,
		};

		policy_mem(&policy_defaults, &state, &sample, &want);
		if (want.units < r->used && r->used <= r->limit)
			policy_mem_shrunk(&state, (r->used - want.units) * UNIT, r->now_ms);
		ktap_eq(want.units, r->want, "mem: %s", r->name);
		ktap_eq(want.kernel, r->want_kernel, "mem: %s: kernel", r->name);
	}
}

/* Grow, shrink, grow: what comes back soon is kept the next time, up to a bound. */
static void test_mem_regret(void)
{
	static const __u64 keeps[] = { 64, 128, 192, 256, 256 };
	struct policy_mem_state state = { .shrunk = MIB(512) };
	struct policy_mem_sample sample = {
		.all = room(512, 0, 0), .kernel = room(512, 400, 0), .unit = UNIT,
		.usable = 900, .limit = 900,
	};
	struct policy_mem_want want;
	size_t i;

	for (i = 0; i < sizeof(keeps) / sizeof(keeps[0]); i++) {
		sample.now_ms += 1000;
		policy_mem(&policy_defaults, &state, &sample, &want);
		ktap_eq(state.keep >> 20, keeps[i], "regret %zu: margin in MiB", i + 1);
	}
	ktap_eq(state.shrunk, 0, "regret: all of it has come back");
	sample.all = room(1024, 800, 0);
	sample.now_ms += policy_defaults.mem_keep_decay_ms;
	policy_mem(&policy_defaults, &state, &sample, &want);
	ktap_eq(state.keep >> 20, 128, "regret: the margin decays");
	sample.all = room(512, 0, 0);
	state.shrunk = MIB(512);
	state.shrunk_at_ms = sample.now_ms;
	sample.now_ms += policy_defaults.mem_regret_ms + 1;
	policy_mem(&policy_defaults, &state, &sample, &want);
	ktap_eq(state.keep >> 20, 128, "regret: a growth long after a shrink is none");
	state.keep = MIB(policy_defaults.mem_keep_max_mib);
	state.keep_at_ms = sample.now_ms;
	state.shrunk = MIB(512);
	state.shrunk_at_ms = sample.now_ms;
	policy_mem(&policy_defaults, &state, &sample, &want);
	ktap_eq(state.keep >> 20, policy_defaults.mem_keep_max_mib, "regret: a bound");
}

/* ---- warm memory, zone and retry ---- */

static void test_warm(void)
{
	struct policy_tunables tun = policy_defaults;
	struct policy_mem_state state = { .grown_at_ms = 1000 };
	struct policy_mem_sample sample = { .now_ms = 2000, .unit = UNIT, .used = 10, .limit = 900 };

	ktap_eq(policy_warm_units(&tun, &state, &sample, POLICY_ZONE_MOVABLE), 64,
		"warm: movable memory");
	tun.mem_warm_kernel_mib = 32;
	ktap_eq(policy_warm_units(&tun, &state, &sample, POLICY_ZONE_KERNEL), 16,
		"warm: the kernel's");
	sample.limit = 20;
	ktap_eq(policy_warm_units(&tun, &state, &sample, POLICY_ZONE_MOVABLE), 10,
		"warm: not more than may be used");
	sample.limit = 10;
	ktap_eq(policy_warm_units(&tun, &state, &sample, POLICY_ZONE_MOVABLE), 0,
		"warm: none at the limit");
	sample.limit = 5;
	ktap_eq(policy_warm_units(&tun, &state, &sample, POLICY_ZONE_MOVABLE), 0,
		"warm: none above it");
	sample.limit = 900;
	sample.now_ms = 1000 + tun.mem_warm_idle_ms - 1;
	ktap_eq(policy_warm_units(&tun, &state, &sample, POLICY_ZONE_MOVABLE), 64,
		"warm: nearly idle");
	sample.now_ms++;
	ktap_eq(policy_warm_units(&tun, &state, &sample, POLICY_ZONE_MOVABLE), 0,
		"warm: none when idle");
	tun.mem_warm_idle_ms = 0;
	ktap_eq(policy_warm_units(&tun, &state, &sample, POLICY_ZONE_MOVABLE), 64,
		"warm: always, if wanted");
}

static void test_zone(void)
{
	struct policy_tunables tun = policy_defaults;

	ktap_eq(policy_zone(&tun, POLICY_ZONE_MOVABLE, MIB(512), 0, UNIT),
		POLICY_ZONE_MOVABLE, "zone: movable by default");
	ktap_eq(policy_zone(&tun, POLICY_ZONE_KERNEL, MIB(512), 0, UNIT),
		POLICY_ZONE_KERNEL, "zone: kernel as set");
	ktap_eq(policy_zone(&tun, POLICY_ZONE_MOVABLE, MIB(512), MIB(8191), UNIT),
		POLICY_ZONE_KERNEL, "zone: kernel beyond the bound");
	ktap_eq(policy_zone(&tun, POLICY_ZONE_MOVABLE, MIB(512), MIB(8000), UNIT),
		POLICY_ZONE_MOVABLE, "zone: movable up to it");
	tun.movable_max_percent = 0;
	ktap_eq(policy_zone(&tun, POLICY_ZONE_MOVABLE, MIB(512), MIB(99999), UNIT),
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
	test_warm();
	test_zone();
	test_retry();
	return ktap_finish();
}
