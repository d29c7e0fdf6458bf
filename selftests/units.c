// SPDX-License-Identifier: GPL-2.0-only
/*
 * The map of units of the guest module: its own file, compiled for user space; no kernel
 * is needed. First the states one by one, then random histories against a model of the
 * host that grants what it likes.
 */
#include "ktap.h"

#include "../guest-module/units.c"

#define PER	4
#define BLOCKS	6
#define ALL	(PER * BLOCKS)

static struct block blocks[BLOCKS];
static __u8 states[ALL];
static struct unit_map map;

/* Blocks 0 to 3 lie behind boot memory, 4 and 5 behind a hole. */
static void make_map(void)
{
	__u32 i;

	memset(blocks, 0, sizeof(blocks));
	for (i = 0; i < BLOCKS; i++) {
		blocks[i].first = 256 + PER * i + (i >= 4 ? 1000 : 0);
		blocks[i].joins = i && i != 4;
	}
	blocks[0].behind_foreign = true;
	map = (struct unit_map){ PER, BLOCKS, blocks, states };
	units_init(&map);
}

static void add(__u32 b, enum policy_zone zone)
{
	__u32 i;

	blocks[b].state = BLOCK_ONLINE;
	blocks[b].zone = zone;
	for (i = b * PER; i < (b + 1) * PER; i++)
		if (states[i] == UNIT_ABSENT)
			units_set(&map, i, 1, UNIT_WARM);
}

/* ---- one by one ---- */

static void test_numbers(void)
{
	make_map();
	ktap_eq(units_number(&map, 5), 261, "number: in the second block");
	ktap_eq(units_number(&map, 4 * PER), 1272, "number: behind the hole");
	ktap_eq(units_index(&map, 261), 5, "index: of it");
	ktap_eq(units_index(&map, 255), UNIT_NONE, "index: before the window");
	ktap_eq(units_index(&map, 272), UNIT_NONE, "index: in the hole");
	ktap_eq(units_index(&map, 1280), UNIT_NONE, "index: behind the window");
	ktap_eq(units_index(&map, ~0ULL), UNIT_NONE, "index: of the last number there is");
	ktap_eq(units_behind(&map, 3), 4, "behind: the first one of the next block");
	ktap_eq(units_behind(&map, 15), UNIT_NONE, "behind: a hole");
	ktap_eq(units_behind(&map, 23), UNIT_NONE, "behind: the end");
}

static void test_guards(void)
{
	make_map();
	ktap_ok(units_guards(&map, 0), "guard: what lies behind boot memory");
	ktap_ok(!units_guards(&map, 16), "guard: not what lies behind a hole");
	ktap_ok(!units_guards(&map, 1), "guard: not behind what is not in use");
	units_set(&map, 0, 4, UNIT_USED);
	blocks[0].state = BLOCK_ONLINE;
	ktap_ok(units_guards(&map, 1), "guard: behind what is in use");
	ktap_ok(units_guards(&map, 4), "guard: also in the next block");
	ktap_ok(!units_open_end(&map, 3), "open end: a block that is not in the kernel is none");
	blocks[1].state = BLOCK_OFFLINE;
	units_set(&map, 4, 4, UNIT_WARM);
	ktap_ok(units_open_end(&map, 3), "open end: one that is mapped is");
	ktap_eq(units_unguarded(&map, 0), 4, "unguarded: it is found");
	units_set(&map, 4, 1, UNIT_GUARD);
	ktap_ok(!units_open_end(&map, 3), "open end: one that is granted is not");
	ktap_eq(units_unguarded(&map, 0), UNIT_NONE, "unguarded: none any more");
	make_map();
	ktap_ok(units_open_end(&map, 1), "open end: within a block that is about to be mapped");
	ktap_ok(!units_open_end(&map, 3), "open end: not at its end");
}

static void test_granted(void)
{
	make_map();
	add(0, POLICY_ZONE_MOVABLE);
	ktap_eq(units_granted(&map, 0, 2, 3), 2, "granted: with the guard, all");
	ktap_eq(states[2], UNIT_GUARD, "granted: the guard is one");
	make_map();
	add(0, POLICY_ZONE_MOVABLE);
	ktap_eq(units_granted(&map, 0, 2, 2), 1, "granted: without, the last one is it");
	make_map();
	add(0, POLICY_ZONE_MOVABLE);
	ktap_eq(units_granted(&map, 0, 2, 0), 0, "granted: nothing");
	ktap_eq(units_granted(&map, 0, 2, 1), 0, "granted: a guard alone");
	ktap_eq(units_granted(&map, 0, 4, 4), 4, "granted: a whole block, nothing behind");
	add(1, POLICY_ZONE_MOVABLE);
	ktap_eq(units_granted(&map, 2, 2, 2), 1, "granted: a block that is warm behind");
}

static void test_runs(void)
{
	__u32 from = 0;

	make_map();
	add(1, POLICY_ZONE_MOVABLE);
	add(2, POLICY_ZONE_MOVABLE);
	add(3, POLICY_ZONE_KERNEL);
	ktap_eq(units_warm_run(&map, POLICY_ZONE_MOVABLE, &from, 99), 8, "run: across blocks");
	ktap_eq(from, 4, "run: where it begins");
	from = 0;
	ktap_eq(units_warm_run(&map, POLICY_ZONE_MOVABLE, &from, 3), 3, "run: no more than wanted");
	from = 0;
	ktap_eq(units_warm_run(&map, POLICY_ZONE_KERNEL, &from, 99), 4, "run: of the other kind");
	ktap_eq(from, 12, "run: where that begins");
	units_set(&map, 5, 1, UNIT_USED);
	from = 0;
	ktap_eq(units_warm_run(&map, POLICY_ZONE_MOVABLE, &from, 99), 1, "run: ends at a used one");
	from = 5;
	ktap_eq(units_warm_run(&map, POLICY_ZONE_MOVABLE, &from, 99), 6, "run: goes on behind it");
	from = ALL;
	ktap_eq(units_warm_run(&map, POLICY_ZONE_MOVABLE, &from, 99), 0, "run: none at the end");
}

static void test_release(void)
{
	struct elastic_range ranges[4];
	__u32 cursor = 0, n;

	make_map();
	add(0, POLICY_ZONE_MOVABLE);
	add(1, POLICY_ZONE_MOVABLE);
	units_set(&map, 0, 8, UNIT_USED);
	units_set(&map, 1, 2, UNIT_RELEASING);
	units_set(&map, 5, 3, UNIT_RELEASING);
	ktap_eq(units_lost_guard(&map, 0), 1, "lost guard: the first one");
	ktap_eq(units_lost_guard(&map, 2), 5, "lost guard: the second one");
	ktap_eq(units_lost_guard(&map, 6), UNIT_NONE, "lost guard: no other");
	ktap_ok(units_open_end(&map, 0), "open end: one that is being released may be gone");
	units_granted(&map, 1, 1, 1);
	units_granted(&map, 5, 1, 1);
	ktap_eq(units_settle(&map), 3, "settle: behind used ones a guard stays");
	ktap_eq(states[1], UNIT_GUARD, "settle: the first guard");
	units_set(&map, 0, 1, UNIT_RELEASING);
	ktap_eq(units_settle(&map), 5, "settle: a guard of nothing goes");
	units_granted(&map, 0, 2, 2);
	units_set(&map, 0, 1, UNIT_USED);
	n = units_releasing(&map, &cursor, ranges, 4);
	ktap_eq(n, 2, "releasing: two ranges");
	ktap_ok(ranges[0].first == 258 && ranges[0].nr == 1, "releasing: the first one");
	ktap_ok(ranges[1].first == 262 && ranges[1].nr == 2, "releasing: the second, joined");
	ktap_eq(units_releasing(&map, &cursor, ranges, 4), 0, "releasing: that was all");
	units_released(&map, ranges, 2);
	ktap_eq(states[2], UNIT_WARM, "released: withheld in its block");
	cursor = 0;
	units_set(&map, 0, 8, UNIT_RELEASING);
	units_set(&map, 3, 1, UNIT_WARM);
	n = units_releasing(&map, &cursor, ranges, 1);
	ktap_ok(n == 1 && ranges[0].first == 256 && ranges[0].nr == 3, "releasing: room for one");
	n = units_releasing(&map, &cursor, ranges, 1);
	ktap_ok(n == 1 && ranges[0].first == 260 && ranges[0].nr == 4, "releasing: it goes on");
	blocks[1].state = BLOCK_ABSENT;
	units_released(&map, ranges, 1);
	ktap_eq(states[4], UNIT_ABSENT, "released: absent without its block");
	ktap_eq(units_count(&map, POLICY_ZONE_MOVABLE, UNIT_WARM), 1, "count: of what is online");
}

/* ---- random histories ---- */

static bool granted[ALL];
static __u32 seed;

static __u32 dice(__u32 n)
{
	seed = seed * 1103515245 + 12345;
	return (seed >> 16) % n;
}

/* The host grants a part, from the first one on. */
static __u32 host_grants(__u32 index, __u32 nr)
{
	__u32 i, n = dice(4) ? nr : dice(nr + 1);

	for (i = index; i < index + n; i++)
		granted[i] = true;
	/* What was granted already counts as granted. */
	while (n < nr && granted[index + n])
		n++;
	return n;
}

static void settle(void)
{
	struct elastic_range ranges[2];
	__u32 cursor = 0, n, i, k;

	for (i = 0; (i = units_lost_guard(&map, i)) != UNIT_NONE; i++)
		if (!units_granted(&map, i, 0, host_grants(i, 1)) && !granted[i])
			units_set(&map, i, 1, UNIT_WARM);
	if (!units_settle(&map) || !dice(8))	/* a release can fail */
		return;
	while ((n = units_releasing(&map, &cursor, ranges, 2))) {
		for (i = 0; i < n; i++)
			for (k = 0; k < ranges[i].nr; k++)
				granted[units_index(&map, ranges[i].first + k)] = false;
		units_released(&map, ranges, n);
	}
}

static void grow(void)
{
	__u32 from = dice(ALL), n, usable;

	n = units_warm_run(&map, dice(2), &from, 1 + dice(8));
	if (!n)
		return;
	usable = units_granted(&map, from, n,
			       host_grants(from, n + units_open_end(&map, from + n - 1)));
	units_set(&map, from, usable, UNIT_USED);
	settle();
}

static void add_block(void)
{
	__u32 b = dice(BLOCKS), usable, n = dice(PER + 1);

	if (blocks[b].state != BLOCK_ABSENT)
		return;
	if (n) {
		usable = units_granted(&map, b * PER, n,
				       host_grants(b * PER, n + units_open_end(&map, b * PER + n - 1)));
		if (!usable) {
			settle();
			return;
		}
		units_set(&map, b * PER, usable, UNIT_USED);
	} else if (units_guards(&map, b * PER) &&
		   !units_granted(&map, b * PER, 1, host_grants(b * PER, 1)) &&
		   states[b * PER] != UNIT_GUARD) {
		return;
	}
	add(b, dice(2));
	settle();
}

static void shrink(void)
{
	__u32 n = dice(6), i;

	while (n--) {
		i = dice(ALL);
		if (states[i] == UNIT_USED)
			units_set(&map, i, 1, UNIT_RELEASING);
	}
	settle();
}

/* What is not held is gone: RELEASING units, too, and the map does not see it. */
static void hello(void)
{
	__u32 i;

	for (i = 0; i < ALL; i++)
		if (states[i] < UNIT_GUARD)
			granted[i] = false;
}

static void remove_block(void)
{
	__u32 b = dice(BLOCKS), i;

	if (blocks[b].state == BLOCK_ABSENT)
		return;
	blocks[b].state = BLOCK_ABSENT;
	for (i = b * PER; i < (b + 1) * PER; i++)
		units_set(&map, i, 1, states[i] == UNIT_WARM ? UNIT_ABSENT : states[i] == UNIT_ABSENT ?
			  UNIT_ABSENT : UNIT_RELEASING);
	settle();
}

/* What is wrong with the map, or NULL. */
static const char *wrong(void)
{
	__u32 i, b, count[UNIT_NR_STATES], behind;

	for (b = 0; b < BLOCKS; b++) {
		memset(count, 0, sizeof(count));
		for (i = b * PER; i < (b + 1) * PER; i++)
			count[states[i]]++;
		if (memcmp(count, blocks[b].nr, sizeof(count)))
			return "the counts of a block";
	}
	for (i = 0; i < ALL; i++) {
		bool mapped = units_block(&map, i)->state != BLOCK_ABSENT;
		bool held = states[i] >= UNIT_GUARD;

		/* A HELLO may have given up what is being released. */
		if (states[i] != UNIT_RELEASING && granted[i] != held)
			return "what the map takes for granted is what the host has granted";
		if (states[i] == UNIT_USED && !mapped)
			return "what is used is in the kernel";
		if (states[i] == UNIT_ABSENT && mapped)
			return "what is in the kernel is not absent";
		if (states[i] == UNIT_WARM && !mapped)
			return "what is warm is in the kernel";
		behind = units_behind(&map, i);
		if (states[i] == UNIT_USED && behind != UNIT_NONE &&
		    units_block(&map, behind)->state != BLOCK_ABSENT && !granted[behind])
			return "the unit behind a used one is granted where it is mapped";
	}
	return units_unguarded(&map, 0) == UNIT_NONE ? NULL : "no guard is missing";
}

static void test_histories(void)
{
	static void (* const steps[])(void) = { grow, grow, add_block, shrink, remove_block, settle, hello };
	const char *what = NULL;
	__u32 history, step, seen_used = 0;

	for (history = 0; history < 2000 && !what; history++) {
		seed = history;
		make_map();
		memset(granted, 0, sizeof(granted));
		for (step = 0; step < 200 && !what; step++) {
			steps[dice(7)]();
			what = wrong();
			seen_used += states[0] == UNIT_USED;
		}
	}
	if (what)
		ktap_diag("history %u, step %u: not true: %s", history - 1, step - 1, what);
	ktap_ok(!what, "histories: 2000 of 200 steps keep the map true");
	ktap_ok(seen_used > 10000, "histories: units are in use in many of them");
}

int main(void)
{
	test_numbers();
	test_guards();
	test_granted();
	test_runs();
	test_release();
	test_histories();
	return ktap_finish();
}
