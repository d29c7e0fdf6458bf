// SPDX-License-Identifier: GPL-2.0-only
/*
 * Placement on the host: which CPUs, and which vCPU goes first. The module's own
 * file, compiled for user space.
 */
#include <stdlib.h>
#include <string.h>

#include "ktap.h"

#include "../host-module/policy_place.c"

#define NR	8

/*
 * Eight CPUs: how busy each is in tens of a per cent, which cache it has, whether
 * it is allowed (+) and near (n), and which are to be chosen (x).
 */
static const struct {
	const char *name;
	__u32 busy[NR];
	const char *caches, *allowed, *near, *want;
} cases[] = {
	{ "all idle: all of the first cache", { 0 }, "00001111", "++++++++", "nnnnnnnn", "xxxx...." },
	{ "one cache, all idle: all", { 0 }, "00000000", "++++++++", "nnnnnnnn", "xxxxxxxx" },
	{ "one cache, one busy: the others", { 1000 }, "00000000", "++++++++", "nnnnnnnn", ".xxxxxxx" },
	{ "one cache, all equally busy: all", { 900, 900, 900, 900, 900, 900, 900, 900 },
	  "00000000", "++++++++", "nnnnnnnn", "xxxxxxxx" },
	{ "a little more is no difference", { 40, 0, 20, 0, 30, 0, 0, 10 },
	  "00000000", "++++++++", "nnnnnnnn", "xxxxxxxx" },
	{ "the idler cache", { 500, 500, 500, 500, 100, 100, 100, 100 },
	  "00001111", "++++++++", "nnnnnnnn", "....xxxx" },
	{ "on average, not its idlest CPU", { 0, 1000, 1000, 1000, 500, 500, 500, 500 },
	  "00001111", "++++++++", "nnnnnnnn", "....xxxx" },
	{ "near goes before idle", { 900, 900, 900, 900, 0, 0, 0, 0 },
	  "00001111", "++++++++", "nnnn....", "xxxx...." },
	{ "of two caches near, the idler one", { 900, 900, 100, 100, 0, 0, 0, 0 },
	  "00112222", "++++++++", "nnnn....", "..xx...." },
	{ "none that is near is allowed: the others", { 0, 0, 0, 0, 300, 0, 300, 300 },
	  "00001111", "....++++", "nnnn....", ".....x.." },
	{ "never one that is not allowed", { 0, 0, 900, 900, 0, 0, 0, 0 },
	  "00001111", "..++....", "nnnnnnnn", "..xx...." },
	{ "the only one, however busy", { 0, 0, 0, 1000, 0, 0, 0, 0 },
	  "00001111", "...+....", "....nnnn", "...x...." },
	{ "what is not allowed is not part of the average", { 0, 0, 500, 520, 900, 900, 900, 900 },
	  "00000000", "..++++++", "nnnnnnnn", "..xx...." },
	{ "caches that alternate", { 900, 100, 900, 100, 900, 100, 900, 100 },
	  "01010101", "++++++++", "nnnnnnnn", ".x.x.x.x" },
	{ "none is allowed", { 0 }, "00001111", "........", "nnnnnnnn", "........" },
};

static void places(void)
{
	struct elastic_spot spots[NR];
	char got[NR + 1] = "";
	unsigned int i, j, n, want;

	for (i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		for (j = 0, want = 0; j < NR; j++) {
			spots[j] = (struct elastic_spot) {
				.cache = cases[i].caches[j] - '0',
				.busy = cases[i].busy[j],
				.allowed = cases[i].allowed[j] == '+',
				.near = cases[i].near[j] == 'n',
				.chosen = j & 1,
			};
			want += cases[i].want[j] == 'x';
		}
		n = elastic_policy_place(spots, NR);
		for (j = 0; j < NR; j++)
			got[j] = spots[j].chosen ? 'x' : '.';
		if (strcmp(got, cases[i].want))
			ktap_diag("got %s, want %s", got, cases[i].want);
		ktap_ok(n == want && !strcmp(got, cases[i].want), "%s", cases[i].name);
	}
}

static void costs(void)
{
	struct elastic_spot s[3] = {
		{ .busy = 100, .near = true }, { .busy = 300, .near = true }, { .busy = 0 },
	};

	ktap_eq(elastic_policy_place_cost(s, 3), 0, "no CPU costs nothing");
	s[0].chosen = s[1].chosen = true;
	ktap_eq(elastic_policy_place_cost(s, 3), 200, "as much as its CPUs are busy");
	s[0].chosen = s[1].chosen = false;
	s[2].chosen = true;
	ktap_eq(elastic_policy_place_cost(s, 3), 1000, "far from the memory: a busy CPU's worth");
	ktap_ok(!elastic_policy_place_better(300, 100), "a small gain is not worth a move");
	ktap_ok(elastic_policy_place_better(350, 100), "a large one is");
	ktap_ok(!elastic_policy_place_better(100, 900), "a loss never is");
}

/* The index that goes first, as the module looks for it. */
static int first(const struct elastic_seat_look *l, int nr)
{
	int i, best = -1;

	for (i = 0; i < nr; i++)
		if (l[i].may_go && (best < 0 || !elastic_policy_goes_first(&l[best], &l[i])))
			best = i;
	return best;
}

static void give_up(void)
{
	struct elastic_seat_look l[3] = { { .may_go = false }, { .may_go = true }, { .may_go = true } };

	ktap_eq(first(l, 3), 2, "of equals the last goes first");
	l[2].ran_ns = 10;
	ktap_eq(first(l, 3), 1, "the one that ran least");
	l[1].ran_ns = 10;
	l[1].waited_ns = 5;
	ktap_eq(first(l, 3), 1, "of those that ran as much, the one that waited most");
	l[2].placed = true;
	l[2].cost = 900;
	ktap_eq(first(l, 3), 1, "a place says nothing against a vCPU that has none");
	l[1].placed = true;
	l[1].cost = 100;
	ktap_eq(first(l, 3), 2, "the one whose place costs more");
	l[1].cost = 890;
	ktap_eq(first(l, 3), 1, "but not by next to nothing");
	l[0].ran_ns = 0;
	l[1].may_go = l[2].may_go = false;
	ktap_eq(first(l, 3), -1, "the one that booted never goes");
}

/* Any numbers: what is chosen is allowed, near if that is possible, and never nothing. */
static void anything(void)
{
	unsigned long bad = 0, none = 0, far = 0, round;
	struct elastic_spot s[NR];
	unsigned int j, n, allowed, near, far_chosen;

	srandom(4);
	for (round = 0; round < 100000; round++) {
		allowed = near = far_chosen = 0;
		for (j = 0; j < NR; j++) {
			s[j] = (struct elastic_spot) {
				.cache = random() % 4, .busy = random() % 2001,
				.allowed = random() % 2, .near = random() % 2,
			};
			allowed += s[j].allowed;
			near += s[j].allowed && s[j].near;
		}
		n = elastic_policy_place(s, NR);
		for (j = 0; j < NR; j++) {
			bad += s[j].chosen && !s[j].allowed;
			far_chosen += s[j].chosen && !s[j].near;
		}
		none += !n != !allowed;
		far += near && far_chosen;
	}
	ktap_eq((long long)bad, 0, "never beyond what is allowed");
	ktap_eq((long long)none, 0, "nothing only where nothing is allowed");
	ktap_eq((long long)far, 0, "far only where nothing near is allowed");
}

int main(void)
{
	places();
	costs();
	give_up();
	anything();
	return ktap_finish();
}
