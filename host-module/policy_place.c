// SPDX-License-Identifier: GPL-2.0
// Copyright (C) the kvm-elastic authors
/*
 * Placement, the part that chooses; compiles in user space, too. First the
 * memory's node, then the cache domain that is least busy on average, then
 * those of its CPUs that are not busier than that average. A thread is left as
 * many CPUs as are equally good: the scheduler knows better from moment to
 * moment.
 */
#include "policy_place.h"

/* Thousandths of a CPU that are no difference. */
#define NOISE	50
/* What it costs to have the memory elsewhere: as much as a CPU that is busy. */
#define REMOTE	1000
/* A thread moves for this much, and not for less. */
#define WORTH	250

static bool is_candidate(const struct elastic_spot *s, bool near)
{
	return s->allowed && (s->near || !near);
}

/* Average of the candidates of one cache. */
static __u32 average(const struct elastic_spot *spots, unsigned int nr,
		     __u32 cache, bool near)
{
	__u64 sum = 0;
	unsigned int i, n = 0;

	for (i = 0; i < nr; i++) {
		if (spots[i].cache != cache || !is_candidate(&spots[i], near))
			continue;
		sum += spots[i].busy;
		n++;
	}
	return n ? sum / n : 0;
}

/* First candidate of the least busy cache; @nr if there is none. */
static unsigned int least_busy_cache(const struct elastic_spot *spots,
				     unsigned int nr, bool near, __u32 *busy)
{
	unsigned int i, best = nr;
	__u32 last = 0, now;

	for (i = 0; i < nr; i++) {
		if (!is_candidate(&spots[i], near))
			continue;
		/* CPUs of one cache are neighbours, as a rule. */
		if (best < nr && spots[i].cache == last)
			continue;
		last = spots[i].cache;
		now = average(spots, nr, last, near);
		if (best == nr || now < *busy) {
			best = i;
			*busy = now;
		}
	}
	return best;
}

/**
 * elastic_policy_place() - choose CPUs for a thread
 * @spots: the CPUs; the chosen ones are marked
 * @nr: how many
 *
 * Return: how many are chosen; 0 only if none is allowed.
 */
unsigned int elastic_policy_place(struct elastic_spot *spots, unsigned int nr)
{
	unsigned int i, best, n = 0;
	bool near = true;
	__u32 busy = 0;

	best = least_busy_cache(spots, nr, near, &busy);
	if (best == nr) {
		near = false;
		best = least_busy_cache(spots, nr, near, &busy);
	}
	for (i = 0; i < nr; i++) {
		spots[i].chosen = best < nr &&
				  spots[i].cache == spots[best].cache &&
				  is_candidate(&spots[i], near) &&
				  spots[i].busy <= busy + NOISE;
		n += spots[i].chosen;
	}
	return n;
}

/**
 * elastic_policy_place_cost() - what a place costs
 * @spots: the CPUs, those of the place marked as chosen
 * @nr: how many
 *
 * Return: how busy they are on average, in thousandths, and a CPU's worth more
 * as far as they are away from the memory.
 */
__u32 elastic_policy_place_cost(const struct elastic_spot *spots,
				unsigned int nr)
{
	__u64 sum = 0;
	unsigned int i, n = 0;

	for (i = 0; i < nr; i++) {
		if (!spots[i].chosen)
			continue;
		sum += spots[i].busy + (spots[i].near ? 0 : REMOTE);
		n++;
	}
	return n ? sum / n : 0;
}

/**
 * elastic_policy_place_better() - is it worth to move?
 * @now: cost of the place that the thread has
 * @then: cost of the one that it would have
 */
bool elastic_policy_place_better(__u32 now, __u32 then)
{
	return now > then && now - then >= WORTH;
}

/**
 * elastic_policy_goes_first() - which of two vCPUs is better given up?
 * @a: the one
 * @b: the other, with the higher number
 *
 * Where both have been placed, the one whose place costs more. Else, or where
 * that makes no difference, the one that ran less; if that is the same, too, the
 * one that waited more; of equals the last: it came last, as a rule.
 *
 * Return: true if it is @a.
 */
bool elastic_policy_goes_first(const struct elastic_seat_look *a,
			       const struct elastic_seat_look *b)
{
	if (a->may_go != b->may_go)
		return a->may_go;
	if (a->placed && b->placed) {
		if (a->cost > b->cost && a->cost - b->cost > NOISE)
			return true;
		if (b->cost > a->cost && b->cost - a->cost > NOISE)
			return false;
	}
	if (a->ran_ns != b->ran_ns)
		return a->ran_ns < b->ran_ns;
	return a->waited_ns > b->waited_ns;
}
