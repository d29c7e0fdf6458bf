// SPDX-License-Identifier: GPL-2.0
// Copyright (C) the kvm-elastic authors
/*
 * The arbiter. One round divides one resource among all VMs:
 *
 * 1. Each is entitled to its minimum and a part, by weight, of what is left.
 * 2. Who needs less than it is entitled to lends the rest to those who need
 *    more, again by weight. This is what vScale (EuroSys 2016) does with CPU
 *    time: fair share, slack, and slack divided among competitors.
 * 3. Nobody is asked to come down as long as the others find what they need.
 *    When they do not, those give first that hold most beyond what they use,
 *    for their weight: an idle unit counts as four in use, the idle memory tax
 *    of 75 % of VMware ESX (Waldspurger, OSDI 2002); and no more is asked for
 *    than is missing.
 * 4. What is in no plan is offered to everybody: who asks first has it until
 *    the next round.
 *
 * Every step looks for a level by bisection, so a round costs n times the
 * number of bits of an amount, and the order of the VMs decides only about the
 * last unit.
 */
#include "policy.h"

/* Levels are per unit of weight, in 1/65536: less than one unit a step. */
#define LEVEL_SHIFT	16
/* Amounts above are taken for this: levels times weights fit into 64 bits. */
#define AMOUNT_MAX	0x80000000ULL
/* What an idle unit counts: 1 / (1 - tax of 75 %) */
#define IDLE_COST	4

static __u64 smaller(__u64 a, __u64 b)
{
	return a < b ? a : b;
}

static __u64 larger(__u64 a, __u64 b)
{
	return a > b ? a : b;
}

static __u64 between(__u64 n, __u64 low, __u64 high)
{
	return n < low ? low : smaller(n, high);
}

static __u64 less(__u64 a, __u64 b)
{
	return a > b ? a - b : 0;
}

static __u64 div_up(__u64 n, __u64 by)
{
	return n / by + (n % by != 0);
}

/* A claim's amount at a level; rises with it by at most one a step. */
typedef __u64 amount_at(const struct elastic_claim *c, __u64 level);

/* So much for each unit of weight, on top of what is there. */
static __u64 grow(const struct elastic_claim *c, __u64 level)
{
	return between(c->low + (level * c->weight >> LEVEL_SHIFT), c->low,
		       c->high);
}

/* What may be kept if neither use nor, at its price, idleness costs more. */
static __u64 keep(const struct elastic_claim *c, __u64 level)
{
	__u64 cost = level * c->weight >> LEVEL_SHIFT;

	if (cost > c->use)
		cost = c->use + (cost - c->use) / IDLE_COST;
	return between(cost, c->low, c->high);
}

static __u64 sum_at(const struct elastic_claim *claims, unsigned int nr,
		    amount_at *at, __u64 level)
{
	__u64 sum = 0;
	unsigned int i;

	for (i = 0; i < nr; i++)
		sum += at(&claims[i], level);
	return sum;
}

/*
 * Set fill of all claims so that together they are @total, or as near below it
 * as their bounds allow, by the highest level at which they are not above it.
 */
static void fill(struct elastic_claim *claims, unsigned int nr, amount_at *at,
		 __u64 total)
{
	__u64 low = 0, high = 0, middle, left;
	unsigned int i;

	for (i = 0; i < nr; i++)
		high = larger(high, claims[i].high);
	/* The price of the last unit, at the lowest weight. */
	high = (high * IDLE_COST + 1) << LEVEL_SHIFT;
	while (low < high) {
		middle = low + (high - low + 1) / 2;
		if (sum_at(claims, nr, at, middle) <= total)
			low = middle;
		else
			high = middle - 1;
	}
	left = less(total, sum_at(claims, nr, at, low));
	for (i = 0; i < nr; i++) {
		claims[i].fill = at(&claims[i], low);
		if (left && at(&claims[i], low + 1) > claims[i].fill) {
			claims[i].fill++;
			left--;
		}
	}
}

/* 1. Return what all are entitled to together. */
static void entitle(__u64 total, struct elastic_claim *claims, unsigned int nr)
{
	unsigned int i;

	for (i = 0; i < nr; i++) {
		claims[i].low = claims[i].min;
		claims[i].high = claims[i].max;
	}
	fill(claims, nr, grow, total);
	for (i = 0; i < nr; i++)
		claims[i].entitled = claims[i].fill;
}

/* 2. Leaves in fill what each should have in the end. Return what is missing. */
static __u64 lend(__u64 total, struct elastic_claim *claims, unsigned int nr)
{
	__u64 missing = 0;
	unsigned int i;

	for (i = 0; i < nr; i++) {
		struct elastic_claim *c = &claims[i];

		c->low = smaller(c->need, c->entitled);
		c->high = larger(c->low, c->need);
	}
	fill(claims, nr, grow, total);
	for (i = 0; i < nr; i++)
		missing += less(claims[i].need, claims[i].fill);
	return missing;
}

/* 3. */
static void come_down(__u64 total, struct elastic_claim *claims,
		      unsigned int nr)
{
	unsigned int i;

	for (i = 0; i < nr; i++) {
		struct elastic_claim *c = &claims[i];

		c->low = c->fill;
		c->high = larger(c->fill, smaller(c->grant, c->max));
	}
	fill(claims, nr, keep, total);
	for (i = 0; i < nr; i++)
		claims[i].plan = claims[i].fill;
}

/* 4. */
static void offer(__u64 total, struct elastic_claim *claims, unsigned int nr)
{
	__u64 planned = 0, spare;
	unsigned int i;

	for (i = 0; i < nr; i++)
		planned += claims[i].plan;
	spare = less(total, planned);
	for (i = 0; i < nr; i++) {
		struct elastic_claim *c = &claims[i];

		c->target = c->plan + spare;
		/* Its own can be asked for at any time; who lent it gives. */
		if (c->plan >= c->grant)
			c->target = larger(c->target, c->entitled);
		c->target = smaller(c->target, c->max);
	}
}

/**
 * elastic_policy_divide() - one round over one resource
 * @total: what there is for all VMs
 * @claims: the VMs; out: entitled, plan, target
 * @nr: how many
 *
 * Between min and max of each VM, and of all plans together not above @total.
 * If the minimums alone are above it, each VM's plan is its minimum.
 *
 * Return: how much more there would have to be for all that VMs need.
 */
__u64 elastic_policy_divide(__u64 total, struct elastic_claim *claims,
			    unsigned int nr)
{
	__u64 missing;
	unsigned int i;

	for (i = 0; i < nr; i++) {
		struct elastic_claim *c = &claims[i];

		c->min = smaller(c->min, AMOUNT_MAX);
		c->max = between(c->max, c->min, AMOUNT_MAX);
		c->grant = smaller(c->grant, AMOUNT_MAX);
		c->use = smaller(c->use, c->grant);
		c->need = between(c->need, c->min, c->max);
		c->weight = between(c->weight, 1, ELASTIC_WEIGHT_MAX);
	}
	entitle(total, claims, nr);
	missing = lend(total, claims, nr);
	come_down(total, claims, nr);
	offer(total, claims, nr);
	return missing;
}

/**
 * elastic_policy_tokens() - how much a bucket holds
 * @bucket: the bucket, brought up to date; who takes some lowers milli
 * @now_ms: the time
 * @rate: tokens that come in a second
 * @burst: most that it holds
 *
 * Return: whole tokens.
 */
__u64 elastic_policy_tokens(struct elastic_bucket *bucket, __u64 now_ms,
			    __u64 rate, __u64 burst)
{
	/* Longer than this and it is full anyway, or rate is next to nothing. */
	__u64 ms = smaller(less(now_ms, bucket->at_ms), 1000000);

	rate = smaller(rate, AMOUNT_MAX);
	burst = smaller(burst, AMOUNT_MAX);
	bucket->milli = smaller(bucket->milli + ms * rate, burst * 1000);
	bucket->at_ms = now_ms;
	return bucket->milli / 1000;
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
	return larger(grant, min);
}

/**
 * elastic_policy_admit() - is there a minimum for one VM more?
 * @total: what the pool has
 * @minimums: the sum of all other VMs' minimums
 * @min: the minimum of this one
 */
bool elastic_policy_admit(__u64 total, __u64 minimums, __u64 min)
{
	return !min || (minimums <= total && min <= total - minimums);
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
	/* What is kept for it, and what nobody has or is to have. */
	__u64 own = less(ask->min, ask->grant);
	__u64 planned = less(larger(ask->min, ask->plan), ask->grant);
	__u64 free = less(ask->pool_total, ask->pool_used);
	__u64 unplanned = less(ask->pool_total, ask->pool_planned);
	__u64 most = smaller(own + free, planned + unplanned);
	__u64 n = smaller(ask->want, less(ask->max, ask->grant));
	__u64 slow;

	*reason = n < ask->want ? ELASTIC_R_MAX : ELASTIC_R_NONE;
	most = larger(own, smaller(most, less(ask->target, ask->grant)));
	if (n > most) {
		n = most;
		*reason = ELASTIC_R_POOL;
	}
	slow = less(larger(ask->entitled, ask->min), ask->grant);
	if (n > slow && n - slow > ask->tokens) {
		n = slow + ask->tokens;
		*reason = ELASTIC_R_RATE;
	}
	return n;
}

/**
 * elastic_policy_cpu_need() - what to believe of a guest's need for vCPUs
 * @d: what it says, and what was seen of it
 *
 * The threads of its vCPUs must have wanted to run as much as it says that it
 * was busy; and who keeps what it has busy is believed to need twice as much
 * and one more, so a guest that tells the truth gets there in a few reports.
 */
struct elastic_need elastic_policy_cpu_need(const struct elastic_cpu_demand *d)
{
	__u64 seen = (smaller(d->ran_milli, AMOUNT_MAX) + 750) / 1000;
	__u64 says = div_up(less(d->runnable_milli, 500), 1000);
	struct elastic_need n;

	n.use = smaller(div_up(less(d->busy_milli, 200), 1000), seen);
	says = larger(larger(says, d->wanted), n.use);
	n.bound = 2 * seen + 1;
	n.need = smaller(smaller(says, n.bound), d->max);
	return n;
}

/**
 * elastic_policy_mem_need() - what to believe of a guest's need for memory
 * @d: what it says, and what was seen of it
 *
 * It cannot use what the host has no page for, and is believed to need half as
 * much again and a little. On top of its use a fifth as a buffer, as Hyper-V
 * does; a guest that reclaims needs a quarter more than it has.
 */
struct elastic_need elastic_policy_mem_need(const struct elastic_mem_demand *d)
{
	__u64 grant = smaller(d->grant, AMOUNT_MAX);
	__u64 seen = smaller(d->resident, AMOUNT_MAX);
	struct elastic_need n;
	__u64 says;

	/* 256 MiB: memory is asked for in blocks of 64 units and more. */
	n.bound = seen + seen / 2 + 128;
	n.use = smaller(less(grant, d->available), seen);
	says = n.use + n.use / 5;
	if (d->wanted > grant)
		says = larger(says, d->wanted);
	if (d->pressed)
		says = larger(says, grant + grant / 4);
	n.need = smaller(smaller(says, n.bound), d->max);
	return n;
}

/**
 * elastic_policy_smooth() - hysteresis of a need
 * @before: what it was
 * @now: what the last report says
 *
 * Up at once; down only if it is down by more than a sixteenth, and then
 * three quarters of the way each time.
 */
__u64 elastic_policy_smooth(__u64 before, __u64 now)
{
	if (now >= before)
		return now;
	if (before - now <= before / 16)
		return before;
	return before - ((before - now) * 3 + 3) / 4;
}

/**
 * elastic_policy_pool() - what the memory pool is while the host is short
 * @total: what it was set to
 * @now: what it is
 * @used: what VMs have of it, and their minimums
 * @host: how the host is off
 *
 * Down at once, by what the host misses, below what is in use: that is what
 * frees pages. Up by a sixty-fourth in a second, when the host has half as
 * much again as it must have.
 *
 * Return: what it should be.
 */
__u64 elastic_policy_pool(__u64 total, __u64 now, __u64 used,
			  const struct elastic_host_memory *host)
{
	__u64 missing = less(host->low, host->available);

	if (host->ooms)
		missing = larger(missing, host->low);
	else if (host->stalls)
		missing = larger(missing, host->low / 4);
	now = smaller(now, total);
	if (missing)
		return smaller(now, less(used, missing));
	if (host->available < host->low + host->low / 2)
		return now;
	return smaller(total, now + larger(smaller(total, AMOUNT_MAX) *
					   smaller(host->ms, 1000) / 64000, 1));
}

/**
 * elastic_policy_advise() - should somebody move a VM away?
 * @s: how it was; brought up to date
 * @missing: what is missing now
 * @now_ms: the time
 * @after_ms: how long it must have been short; and how long not, to be over
 *
 * Return: whether that changed: see told.
 */
bool elastic_policy_advise(struct elastic_shortage *s, __u64 missing,
			   __u64 now_ms, __u64 after_ms)
{
	bool is_short = missing > 0;

	if (s->is_short != is_short || !s->since_ms) {
		s->is_short = is_short;
		s->since_ms = now_ms;
	}
	if (s->told == is_short || less(now_ms, s->since_ms) < after_ms)
		return false;
	s->told = is_short;
	return true;
}

/**
 * elastic_policy_move() - what would it help to move a VM away?
 * @c: the VM
 * @missing: what is missing
 */
enum elastic_move elastic_policy_move(const struct elastic_candidate *c,
				      __u64 missing)
{
	if (!c->grant)
		return ELASTIC_MOVE_NO;
	if (c->grant < missing)
		return ELASTIC_MOVE_PART;
	return c->uncooperative ? ELASTIC_MOVE_UNCOOPERATIVE :
				  ELASTIC_MOVE_ENOUGH;
}

/**
 * elastic_policy_move_first() - which of two VMs is better moved?
 * @a: the one
 * @b: the other
 * @missing: what is missing
 *
 * One that is enough by itself before one that is not; of those that are, the
 * cheapest to move; of the others, the one that helps most.
 *
 * Return: true if it is @a.
 */
bool elastic_policy_move_first(const struct elastic_candidate *a,
			       const struct elastic_candidate *b,
			       __u64 missing)
{
	enum elastic_move ma = elastic_policy_move(a, missing);
	enum elastic_move mb = elastic_policy_move(b, missing);

	if (ma != mb)
		return ma < mb;
	if (ma == ELASTIC_MOVE_PART)
		return a->grant > b->grant;
	return a->cost < b->cost;
}
