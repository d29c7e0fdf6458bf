// SPDX-License-Identifier: GPL-2.0-only
/*
 * The host's arbiter with many VMs for many rounds: random and adversarial loads,
 * and what must hold in each round whatever they are. Shortened; with --full, 1,000
 * VMs for 10,000 rounds of each resource, which takes half a minute. No kernel is needed.
 */
#include <time.h>

#include "ktap.h"

#include "../host-module/policy.c"

#define MAX_VMS		10000
#define DEADLINE	5	/* rounds: longer than that nobody keeps what it must give */
#define ROUND_MS	1000
#define CALM		50	/* rounds after convergence in which nothing may move */

enum kind {
	STEADY,		/* wants the same all the time */
	WALK,		/* a bit more or less each round */
	SQUARE,		/* all or little, by turns */
	SPIKE,		/* little, and for one round all */
	CHASER,		/* wants just more than it is let have */
	YOYO,		/* gives back what it gets, and asks again */
	LIAR,		/* says that it needs all, and uses little */
	STUBBORN,	/* wants all and comes down only when it is made to */
	KINDS,
};

static struct sim {
	enum kind kind;
	__u64 demand, needs;
	__u64 period, phase;
	unsigned int over;		/* rounds above its target */
	struct elastic_bucket bucket;
	double sum;			/* of its grants */
} sims[MAX_VMS];

static struct elastic_claim vms[MAX_VMS];
static unsigned int nr;
static __u64 total, now_ms;

static __u64 seed = 88172645463325252ULL;

static __u64 rnd(__u64 below)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return below ? seed % below : 0;
}

static struct {
	unsigned long rounds, pool, plan, min, bounds, starved, stuck, late, target;
} wrong;

/* Sums that a request is held against */
static __u64 used, planned;

static void sum_up(void)
{
	unsigned int i;

	used = 0;
	planned = 0;
	for (i = 0; i < nr; i++) {
		used += elastic_policy_charge(vms[i].grant, vms[i].min);
		planned += larger(elastic_policy_charge(vms[i].grant, vms[i].min), vms[i].plan);
	}
}

static void set_grant(unsigned int i, __u64 grant)
{
	struct elastic_claim *c = &vms[i];

	used -= elastic_policy_charge(c->grant, c->min);
	planned -= larger(elastic_policy_charge(c->grant, c->min), c->plan);
	c->grant = grant;
	used += elastic_policy_charge(c->grant, c->min);
	planned += larger(elastic_policy_charge(c->grant, c->min), c->plan);
}

/* A population: minimums are a third of what there is, ceilings five times */
static void populate(unsigned int n, __u64 each, bool adversarial)
{
	unsigned int i;

	nr = n;
	total = n * each;
	now_ms = 1000000;
	memset(&wrong, 0, sizeof(wrong));
	for (i = 0; i < nr; i++) {
		struct elastic_claim *c = &vms[i];
		struct sim *s = &sims[i];

		memset(c, 0, sizeof(*c));
		memset(s, 0, sizeof(*s));
		c->min = rnd(2) ? rnd(each * 2 / 3 + 1) : 0;
		c->max = c->min + 1 + rnd(each * 10);
		c->weight = rnd(4) ? 100 : 1 + rnd(ELASTIC_WEIGHT_MAX);
		c->grant = smaller(c->min, 1 + each / 8);
		s->kind = adversarial ? rnd(KINDS) : STEADY;
		s->period = 2 + rnd(40);
		s->phase = rnd(80);
		s->demand = rnd(c->max + 1);
	}
	sum_up();
}

static void new_demand(unsigned int i, unsigned int round)
{
	struct elastic_claim *c = &vms[i];
	struct sim *s = &sims[i];
	__u64 step = c->max / 16 + 1;

	switch (s->kind) {
	case WALK:
		s->demand = rnd(2) ? smaller(s->demand + rnd(step), c->max) :
				     less(s->demand, rnd(step));
		break;
	case SQUARE:
		s->demand = (round + s->phase) / s->period % 2 ? c->max : c->max / 20;
		break;
	case SPIKE:
		s->demand = (round + s->phase) % s->period ? c->max / 20 : c->max;
		break;
	case CHASER:
		s->demand = smaller(c->target + 1, c->max);
		break;
	case YOYO:
		s->demand = c->grant > c->min ? 0 : c->max;
		break;
	case LIAR:
	case STUBBORN:
		s->demand = c->max;
		break;
	default:
		break;
	}
}

/* What the guest says, and what is believed of it */
static void report(unsigned int i)
{
	struct elastic_claim *c = &vms[i];
	struct sim *s = &sims[i];
	__u64 uses = s->kind == LIAR ? c->max / 20 : s->demand;
	struct elastic_mem_demand d = {
		.grant = c->grant, .wanted = s->demand, .available = less(c->grant, uses),
		.resident = smaller(c->grant, uses), .max = c->max,
	};
	struct elastic_need n = elastic_policy_mem_need(&d);

	c->use = n.use;
	/* The test of shares and of convergence is about honest ones: exact */
	if (s->kind == STEADY)
		n.need = s->demand;
	s->needs = elastic_policy_smooth(s->needs, n.need);
	c->need = s->needs;
}

static void ask_for(unsigned int i, __u64 want)
{
	struct elastic_claim *c = &vms[i];
	__u64 rate = total / 4 + 1;
	struct elastic_ask ask = {
		.pool_total = total, .pool_used = used, .pool_planned = planned,
		.grant = c->grant, .min = c->min, .max = c->max, .plan = c->plan,
		.target = c->target, .entitled = c->entitled, .want = want,
		.tokens = elastic_policy_tokens(&sims[i].bucket, now_ms, rate, rate),
	};
	enum elastic_reason reason;
	__u64 n = elastic_policy_grant(&ask, &reason);
	__u64 beyond = less(c->grant + n, larger(c->entitled, c->grant));

	sims[i].bucket.milli -= beyond * 1000;
	wrong.bounds += n > want || (n && c->grant + n > c->max);
	set_grant(i, c->grant + n);
}

/* What the guests make of their targets: give back, then ask */
static bool act(void)
{
	bool moved = false;
	unsigned int i;

	for (i = 0; i < nr; i++) {
		struct elastic_claim *c = &vms[i];
		struct sim *s = &sims[i];
		__u64 grant = c->grant;

		s->over = grant > c->target ? s->over + 1 : 0;
		wrong.late += s->over > DEADLINE;
		if (s->over && (s->kind != STUBBORN || s->over >= DEADLINE)) {
			grant = c->target;
			s->over = 0;
		}
		if (s->kind == YOYO && s->demand < grant)
			grant = larger(s->demand, c->min);
		if (grant != c->grant)
			moved = true;
		set_grant(i, grant);
	}
	for (i = 0; i < nr; i++) {
		struct elastic_claim *c = &vms[i];
		__u64 had = c->grant;

		if (sims[i].demand > had)
			ask_for(i, sims[i].demand - had);
		/* Rules of the house, whoever else is there */
		wrong.min += c->grant < smaller(c->min, sims[i].demand);
		if (c->grant != had)
			moved = true;
	}
	return moved;
}

static bool one_round(unsigned int round)
{
	__u64 plans = 0;
	bool moved;
	unsigned int i;

	now_ms += ROUND_MS;
	for (i = 0; i < nr; i++) {
		new_demand(i, round);
		report(i);
	}
	elastic_policy_divide(total, vms, nr);
	for (i = 0; i < nr; i++) {
		const struct elastic_claim *c = &vms[i];

		plans += c->plan;
		wrong.min += c->plan < c->min || c->target < c->min;
		wrong.bounds += c->target > c->max || c->plan > c->max;
		/* Nobody needy is left below its part while another is above its own */
		wrong.starved += c->plan < smaller(c->need, c->entitled);
		/* Who has less than its part and needs it is never told to give */
		wrong.target += c->grant <= smaller(c->need, c->entitled) && c->target < c->grant;
	}
	wrong.plan += plans > total;
	sum_up();
	moved = act();
	wrong.pool += used > total;
	for (i = 0; i < nr; i++)
		sims[i].sum += vms[i].grant;
	wrong.rounds++;
	return moved;
}

static void verdict(const char *what)
{
	ktap_ok(!wrong.pool && !wrong.plan, "%s: %lu rounds of %u VMs, never over the pool (%lu, %lu)",
		what, wrong.rounds, nr, wrong.pool, wrong.plan);
	ktap_eq((long long)wrong.min, 0, "%s: never under a minimum", what);
	ktap_eq((long long)wrong.bounds, 0, "%s: never above a maximum", what);
	ktap_eq((long long)wrong.starved, 0, "%s: who needs its part is planned to have it", what);
	ktap_eq((long long)wrong.target, 0, "%s: who has no more than that keeps it", what);
	ktap_eq((long long)wrong.late, 0, "%s: nobody keeps beyond its deadline what it must give", what);
}

static void loads(const char *what, unsigned int n, __u64 each, unsigned int rounds)
{
	unsigned int i;

	populate(n, each, true);
	for (i = 0; i < rounds; i++)
		one_round(i);
	verdict(what);
}

/* All want all they may have: shares of what is beyond the minimums, by weight */
static void shares(unsigned int n, unsigned int rounds, bool hostile)
{
	double worst = 0, minimums = 0, weights = 0;
	unsigned int i;

	populate(n, 4000, false);
	for (i = 0; i < n; i++) {
		vms[i].max = total;
		vms[i].weight = 20 + rnd(500);
		minimums += (double)vms[i].min;
		weights += (double)vms[i].weight;
		sims[i].demand = total;
		sims[i].kind = hostile && rnd(3) == 0 ? STUBBORN : STEADY;
	}
	for (i = 0; i < 60; i++)
		one_round(i);
	for (i = 0; i < n; i++)
		sims[i].sum = 0;
	for (i = 0; i < rounds; i++)
		one_round(i);
	for (i = 0; i < n; i++) {
		double share = (sims[i].sum / rounds - (double)vms[i].min);
		double want = ((double)total - minimums) * (double)vms[i].weight / weights;
		double off = want > share ? (want - share) / want : (share - want) / want;

		if (off > worst)
			worst = off;
	}
	ktap_ok(worst <= 0.02, "shares of %u VMs%s follow their weights, off by %.3f %% at most",
		n, hostile ? ", a third stubborn" : "", worst * 100);
	verdict("all want all");
}

/* After a step of half of the demands: rounds until nothing moves, then nothing may */
static void convergence(unsigned int n, unsigned int steps)
{
	unsigned int step, i, round, last, worst = 0, cycles = 0;

	populate(n, 2000, false);
	for (step = 0; step < steps; step++) {
		for (i = 0; i < n; i++)
			if (rnd(2))
				sims[i].demand = rnd(3) ? rnd(vms[i].max + 1) : rnd(10);
		last = 0;
		for (round = 1; round <= 10 + CALM; round++) {
			if (!one_round(round))
				continue;
			last = round;
		}
		if (last > 10)
			cycles++;
		if (last > worst)
			worst = last;
	}
	ktap_ok(worst <= 10, "%u steps of %u VMs: nothing moves after %u rounds", steps, n, worst);
	ktap_eq(cycles, 0, "no cycle in the %d rounds after", CALM);
	verdict("steps");
}

static double seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Milliseconds of one round, the best of some: what others run is not ours */
static double cost_of(unsigned int n, unsigned int repeat)
{
	double best = 1e9, begin;
	unsigned int i;

	populate(n, 2000, true);
	for (i = 0; i < 8; i++)
		one_round(i);
	for (i = 0; i < repeat; i++) {
		begin = seconds();
		elastic_policy_divide(total, vms, nr);
		begin = (seconds() - begin) * 1000;
		if (begin < best)
			best = begin;
	}
	return best;
}

static void cost(unsigned int repeat)
{
	static const struct { unsigned int n; double nlogn; } sizes[] = {
		{ 10, 10 * 3.32 }, { 100, 100 * 6.64 }, { 1000, 1000 * 9.97 }, { 10000, 10000 * 13.29 },
	};
	double ms[4];
	unsigned int i;

	ktap_diag("     VMs   ms a round   us a VM");
	for (i = 0; i < 4; i++) {
		ms[i] = cost_of(sizes[i].n, repeat);
		ktap_diag("%8u %12.4f %9.3f", sizes[i].n, ms[i], ms[i] * 1000 / sizes[i].n);
	}
	ktap_ok(ms[2] <= 1.0, "one round of 1000 VMs takes %.3f ms, at most 1", ms[2]);
	/* Half as much again: caches */
	ktap_ok(ms[3] / ms[2] <= 1.5 * sizes[3].nlogn / sizes[2].nlogn,
		"from 1000 to 10000 VMs it grows by %.1f, n log n by %.1f", ms[3] / ms[2],
		sizes[3].nlogn / sizes[2].nlogn);
}

int main(int argc, char **argv)
{
	bool full = argc > 1 && !strcmp(argv[1], "--full");
	unsigned int rounds = full ? 10000 : 1000;

	if (argc > 1 && !full) {
		fprintf(stderr, "usage: policy_arbiter [--full]\n");
		return 2;
	}
	loads("memory", 1000, 2000, rounds);
	loads("vCPUs", 1000, 3, rounds);
	loads("few", 7, 500, full ? 10000 : 2000);
	shares(1000, full ? 1000 : 30, false);
	shares(1000, full ? 1000 : 30, true);
	convergence(1000, full ? 100 : 3);
	convergence(6, full ? 1000 : 100);
	cost(full ? 200 : 40);
	return ktap_finish();
}
