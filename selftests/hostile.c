// SPDX-License-Identifier: GPL-2.0-only
/*
 * A hostile guest: random and adversarial sequences of calls, from all its vCPUs, with a
 * model of the ledger beside it (hostile_model.h) that says after each what may have been
 * answered and what the host must show now.
 *
 * A sequence begins with a reset and a HELLO, so it can be run again alone. One vCPU
 * after the other ("in turn"), every answer is exact. All at once ("together"), each vCPU
 * makes its calls without leaving the guest in between; what came of it is asked for
 * afterwards, and what can be said in any order of calls is checked: each answer against
 * the table of the specification, each unit's comings and goings, counters and pools.
 *
 * A sequence that fails is made as short as it goes and printed in the form that --replay
 * reads, and that kept[] below is in.
 *
 *	hostile [--seed N] [--ops N] [--replay FILE] [--model]
 *
 * Where options cannot be given: ELASTIC_SEED and ELASTIC_OPS in the environment.
 * --model: only the model against a host made of itself with faults; needs no KVM.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "hostile_model.h"
#include "ktap.h"
#include "optable.h"

#define OPS		10000
#define ARENA(vcpu)	(KG_LISTS_END + (u64)(vcpu) * ARENA_SIZE)
#define ARENA_SIZE	((KG_LOW_END - KG_LISTS_END) / HM_CPUS & ~0xfffULL)
#define LIST_OPS	(KG_LIST_MAX - 2)	/* two are left for setting vCPUs free */
#define ALL_CPUS	((1ULL << HM_CPUS) - 1)
#define LIVE		(~0ULL)		/* RBX of what is no call in a list */
#define SOON_MS		30000
#define HELD_MS		3
#define OTHER_UNITS	64
#define OTHER_ABSENT	40
#define OTHER_NR	8
#define POOL_CPUS	64
#define POOL_UNITS	4096
#define SHRINK_RUNS	300
#define SHRINK_MS	25000

/*
 * What once failed, and what is hard to come by at random: each is run every time. In the
 * form of --replay.
 */
static const struct { const char *name, *text; } kept[] = {
	{ "a batch that lies in what it gives up, then again",
	  "0 long 4 good 2800000 2 14 1 16 2\n"
	  "0 long 4 good 2800000 2 14 1 16 2\n"
	  "0 read 2808000\n"
	  "0 long 2 good 0 14000004\n"
	  "0 read 2808000\n" },
	{ "the last byte before memory that is not granted, and the first behind",
	  "0 long 1 good 1ffff80 80 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n"
	  "0 long 1 good 1ffff88 80\n"
	  "0 long 1 good 4000000 80 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n" },
	{ "everybody gives up everybody else",
	  "together\n"
	  "0 long 3 good e 0\n0 long 2 good f 0\n0 long 3 good e 0\n0 long 2 good f 0\n"
	  "1 long 3 good d 0\n1 long 2 good f 0\n1 long 3 good d 0\n1 long 2 good f 0\n"
	  "2 long 3 good b 0\n2 long 2 good f 0\n2 long 3 good b 0\n2 long 2 good f 0\n"
	  "3 long 3 good 7 0\n3 long 2 good f 0\n3 long 3 good 7 0\n3 long 2 good f 0\n" },
	{ "all give up the same unit while it is written to",
	  "together\n"
	  "0 long 4 good 86000 1 20 1\n0 long 2 good 0 20000001\n0 long 4 good 86010 1 20 1\n"
	  "1 long 4 good 8c000 1 20 1\n1 long 2 good 0 20000001\n1 long 4 good 8c010 1 20 1\n"
	  "2 write 4008000\n2 write 4008000\n2 write 4008000\n2 write 4008000\n"
	  "3 long 2 good 0 1e000004\n3 write 4009000\n3 long 5 good 98000 1 20 1\n" },
};

static const struct elastic_range absent[] = { { 16, 16 }, { HM_HIGH_FIRST, 8 } };

static struct optable table;
static struct kg_vm *vm, *other;
static struct hm m;			/* the model */
static char why[512];
static u64 seed = 1, ops_wanted = OPS, marker;
static bool limits_dirty;
static s64 gated;
/* What was done; operations in turn and together */
static struct { u64 ops[2], held, refused; } done;

#define FAIL(...) (snprintf(why, sizeof(why), __VA_ARGS__), false)

/* Making sequences up */

static u64 below(u64 *r, u64 n)
{
	return hm_rand(r) % n;
}

static bool chance(u64 *r, unsigned int percent)
{
	return below(r, 100) < percent;
}

static u64 some_unit(u64 *r)
{
	static const u64 edges[] = {
		0, 1, 15, 16, 31, 32, HM_RAM_UNITS - 1, HM_RAM_UNITS, HM_HIGH_FIRST - 1,
		HM_HIGH_FIRST, HM_HIGH_FIRST + 7, HM_HIGH_FIRST + 8,
		HM_HIGH_FIRST + HM_HIGH_UNITS - 1, HM_HIGH_FIRST + HM_HIGH_UNITS,
		KG_FLASH >> ELASTIC_UNIT_SHIFT, KG_VGA >> ELASTIC_UNIT_SHIFT,
		ELASTIC_MAX_UNIT - 1, ELASTIC_MAX_UNIT, ELASTIC_MAX_UNIT + 1, 1ULL << 40, 1ULL << 43,
		~0ULL,
	};
	u64 n = below(r, 100);

	if (n < 76)
		return 10 + below(r, 32);
	if (n < 86)
		return HM_HIGH_FIRST + below(r, HM_HIGH_UNITS + 2);
	if (n < 94)
		return edges[below(r, sizeof(edges) / sizeof(*edges))];
	return n < 98 ? below(r, HM_RAM_UNITS + 8) : hm_rand(r);
}

static u64 some_place(u64 *r)
{
	static const u64 places[] = {
		KG_ROM, KG_FLASH, KG_HIGH - 16, 0xc0000000, HM_UNIT(HM_RAM_UNITS) - 16,
		KG_HIGH + HM_UNIT(HM_HIGH_UNITS) - 16, KG_HIGH + HM_UNIT(HM_HIGH_UNITS),
		1ULL << 39, 1ULL << 52, 1ULL << 60, 1ULL << 63, -16ULL, -8ULL, -128ULL,
		KG_LOW_END - 16, KG_VGA + 0x100, KG_ROM - 8, KG_RAM - 16, KG_VGA - 16,
	};

	if (chance(r, 50))
		return places[below(r, sizeof(places) / sizeof(*places))];
	/* In and across units that come and go */
	return HM_UNIT(10 + below(r, 32)) + (chance(r, 50) ? 0x12340 : -16ULL);
}

/* Room for an argument in the vCPU's arena: whole, and across a page now and then */
static bool place(u64 *r, struct hm_op *op, u64 *used, bool wrap)
{
	u64 len = op->nr_words * 8ULL, gpa;

	if (chance(r, 10) && (*used & 0xfff) <= 0x1000 - 24)
		*used = (*used | 0xfff) + 1 - 24;
	if (*used + len > ARENA_SIZE) {
		if (!wrap)
			return false;
		*used = 0;
	}
	gpa = ARENA(op->vcpu) + *used;
	*used += (len + 15) & ~15ULL;
	op->rdx = chance(r, 90) ? gpa : chance(r, 25) ? gpa + 1 + below(r, 7) : some_place(r);
	return true;
}

static u64 *room(struct hm_op *op, unsigned int words)
{
	op->words = calloc(words, 8);
	if (!op->words)
		ktap_bail("no memory");
	return op->words;
}

/* Ascending ranges, and one thing wrong with them now and then; returns how many */
static unsigned int some_ranges(u64 *r, u64 *words, bool many)
{
	struct elastic_range *x = (struct elastic_range *)words;
	u64 at = chance(r, 85) ? 8 + below(r, 24) : some_unit(r);
	unsigned int n = chance(r, 65) ? 1 + below(r, 3) : 1 + below(r, 12), i;

	if (many && chance(r, 3)) {
		n = 512;
		for (i = 0; i < n; i++)
			x[i] = (struct elastic_range) { 1 + 2 * i + (chance(r, 1) ? 1 : 0), 1 };
		return n;
	}
	for (i = 0; i < n; i++) {
		x[i].first = at + (chance(r, 60) ? below(r, 3) : 0);
		x[i].nr = 1 + (chance(r, 40) ? below(r, 5) : 0);
		at = x[i].first + x[i].nr;
	}
	if (!chance(r, 25))
		return n;
	i = (unsigned int)below(r, n);
	switch (below(r, 8)) {
	case 0:
		x[i].nr = 0;
		break;
	case 1:
		x[i].nr = 1ULL << (20 + below(r, 44));
		break;
	case 2:
		x[i].nr = -x[i].first + below(r, 3);
		break;
	case 3:
		if (i)
			x[i] = x[i - 1];
		break;
	case 4:
		if (i)
			x[i].first = x[i - 1].first + x[i - 1].nr - 1;
		break;
	case 5:
		if (i)
			x[i].first = x[i - 1].first - 1;
		break;
	default:
		x[i].first = some_unit(r);
		break;
	}
	return n;
}

static void make_hello(u64 *r, struct hm_op *op)
{
	struct elastic_hello *h = (struct elastic_hello *)room(op, HM_ARG_MAX / 8 + 8);
	unsigned int words = chance(r, 90) ? 1 : (unsigned int)below(r, 66), n;
	u64 *held = (u64 *)(h + 1);

	*h = (struct elastic_hello) {
		.version_min = 1, .version_max = 1, .nr_cpu_words = words,
		.features = chance(r, 80) ? HM_FEATURES : hm_rand(r),
	};
	held[0] = chance(r, 60) ? ALL_CPUS : (hm_rand(r) & ALL_CPUS) | 1ULL << op->vcpu;
	n = words <= 64 && chance(r, 60) ? some_ranges(r, held + words, false) : 0;
	h->nr_ranges = n;
	op->nr_words = 4 + words + 2 * n;
	op->rsi = op->nr_words * 8ULL;
	if (!chance(r, 40))
		return;
	switch (below(r, 10)) {
	case 0:
		op->rsi += below(r, 33) - 16;
		break;
	case 1:
		op->rsi = hm_rand(r) >> below(r, 64);
		break;
	case 2:
		h->reserved = 1ULL << below(r, 64);
		break;
	case 3:
		h->version_max = (u32)below(r, 3);
		break;
	case 4:
		h->version_min = (u32)below(r, 4);
		break;
	case 5:
		held[0] = hm_rand(r);
		break;
	case 6:
		h->nr_cpu_words = (u32)hm_rand(r);
		break;
	case 7:
		h->nr_ranges = (u32)(hm_rand(r) >> below(r, 64));
		break;
	case 8:
		op->cookie = (enum hm_cookie)below(r, HM_NR_COOKIES);
		break;
	case 9:
		h->nr_ranges = 513;
		break;
	}
}

static void make_report(u64 *r, struct hm_op *op)
{
	u64 *words = room(op, 16);
	unsigned int i;

	op->nr_words = 16;
	op->rsi = 128;
	words[0] = 1000000000;
	for (i = 0; i < 12; i++)
		if (chance(r, 50))
			words[i] = hm_rand(r) >> below(r, 64);
	if (chance(r, 10))
		words[12 + below(r, 4)] = 1ULL << below(r, 64);
	if (chance(r, 10))
		op->rsi = chance(r, 50) ? 128 + below(r, 17) - 8 : hm_rand(r);
}

static void make_request(u64 *r, struct hm_op *op)
{
	u64 first = some_unit(r), nr = 1 + below(r, 8);

	if (chance(r, 60)) {
		op->rdx = chance(r, 80) ? hm_rand(r) & 31 : hm_rand(r);
		if (chance(r, 30))
			op->rbx |= (u64)(1 + below(r, 5)) << ELASTIC_NCPUS_SHIFT;
		if (chance(r, 5))
			op->rbx |= below(r, 65) << ELASTIC_WORD_SHIFT;
	}
	if (chance(r, 10))
		nr = chance(r, 50) ? ELASTIC_RANGE_NR_MAX : below(r, 2000);
	if (chance(r, 80))
		op->rsi = ELASTIC_RANGE(first, nr);
	if (chance(r, 2))
		op->rsi = hm_rand(r);
	if (chance(r, 25))
		op->rbx |= ELASTIC_F_WHOLE;
}

static void make_take(u64 *r, struct hm_op *op)
{
	u64 *words = room(op, 2 * 512);
	unsigned int n = some_ranges(r, words, true);
	static const u64 counts[] = { 0, 513, 1ULL << 28, 1ULL << 32, 1ULL << 60, ~0ULL };

	op->nr_words = 2 * n;
	op->rsi = n;
	if (chance(r, 6))
		op->rsi = counts[below(r, 6)];
	else if (n > 1 && chance(r, 5))
		op->rsi = n - 1;
}

static void make_call(u64 *r, struct hm_op *op, u64 *used, bool wrap)
{
	static const u8 often[] = { 6, 8, 30, 9, 22, 11, 2, 1 };
	u64 n = below(r, 89), code = 0;

	while (n >= often[code])
		n -= often[code++];
	op->rbx = code;
	op->cookie = chance(r, 92) ? HM_GOOD : (enum hm_cookie)below(r, HM_NR_COOKIES);
	switch (code) {
	case ELASTIC_OP_HELLO:
		make_hello(r, op);
		break;
	case ELASTIC_OP_REPORT:
		make_report(r, op);
		break;
	case ELASTIC_OP_REQUEST:
		make_request(r, op);
		break;
	case ELASTIC_OP_RELEASE_CPU:
		op->rdx = hm_rand(r) & (chance(r, 90) ? ALL_CPUS : ~0ULL);
		if (chance(r, 85))
			op->rdx &= ~(1ULL << op->vcpu);
		if (chance(r, 5))
			op->rsi = hm_rand(r);
		if (chance(r, 5))
			op->rbx |= below(r, 66) << ELASTIC_WORD_SHIFT;
		break;
	case ELASTIC_OP_RELEASE_MEM:
	case ELASTIC_OP_DISCARD:
		make_take(r, op);
		break;
	case ELASTIC_OP_BYE:
		if (chance(r, 20))
			op->rdx = hm_rand(r);
		break;
	default:
		op->rbx = hm_rand(r);
		op->rdx = hm_rand(r);
		op->rsi = hm_rand(r);
		break;
	}
	if (op->nr_words && !place(r, op, used, wrap)) {
		op->nr_words = 0;
		op->rsi = 0;
		op->rbx = ELASTIC_OP_RELEASE_CPU;
		op->rdx = 0;
	}
	if (chance(r, 3))
		op->rbx ^= 1ULL << below(r, 64);
}

static void make_touch(u64 *r, struct hm_op *op)
{
	u64 unit = chance(r, 85) ? 8 + below(r, 34) : HM_HIGH_FIRST + below(r, HM_HIGH_UNITS);

	op->kind = chance(r, 50) ? HM_WRITE : HM_READ;
	op->rdx = HM_UNIT(unit) + HM_MARK;
	if (op->kind == HM_READ && chance(r, 10) && unit != HM_HIGH_FIRST)
		op->rdx = HM_UNIT(unit) - 4;
}

static void make_set(u64 *r, struct hm_op *op)
{
	op->kind = HM_SET;
	op->file = (enum hm_file)below(r, HM_NR_FILES);
	switch (op->file) {
	case HM_CPU_MAX:
		op->rdx = 1 + below(r, HM_CPUS);
		break;
	case HM_MEM_MAX:
		op->rdx = 2 * (chance(r, 50) ? HM_CEILING - below(r, 40) : 1 + below(r, HM_CEILING));
		break;
	case HM_CPU_POOL:
		op->rdx = below(r, 8);
		break;
	default:
		op->rdx = 2 * (HM_CEILING + OTHER_UNITS - OTHER_NR - below(r, 60));
		break;
	}
}

static void make(struct hm_seq *s, u64 index)
{
	u64 r = seed * 0x100000001b3ULL ^ index, used[HM_CPUS] = { 0 };
	unsigned int nr;

	memset(s, 0, sizeof(*s));
	s->together = index % 3 == 2;
	nr = s->together ? 40 + (unsigned int)below(&r, 200) : 10 + (unsigned int)below(&r, 90);
	while (s->nr < nr) {
		struct hm_op *op = &s->op[s->nr++];

		op->vcpu = (unsigned int)(!s->together && chance(&r, 40) ? 0 :
					  below(&r, HM_CPUS));
		if (!s->together && chance(&r, 2))
			make_set(&r, op);
		else if (!s->together && below(&r, 250) == 0)
			op->kind = HM_RESET;
		else if (chance(&r, 14))
			make_touch(&r, op);
		else
			make_call(&r, op, &used[op->vcpu], !s->together);
		if (op->kind == HM_CALL && !s->together && chance(&r, 2))
			op->mode = (enum kg_mode)below(&r, KG_NR_MODES);
		if (s->together && op->kind == HM_READ)
			op->kind = HM_WRITE;
		if (s->together && op->kind == HM_WRITE)
			op->rdx = (op->rdx & ~(ELASTIC_UNIT_SIZE - 1)) + HM_MARK +
				  0x1000 * (op->vcpu + 1);
	}
}

/* Guest memory as the host has it: RAM, and what else can be written */
static void *memory(u64 gpa)
{
	if (gpa >= KG_LOW_END && gpa < KG_RAM)
		return gpa < 0xc0000 ? vm->vga + (gpa - KG_LOW_END) : NULL;
	if (gpa >= KG_VGA && gpa < KG_VGA + KG_VGA_SIZE)
		return vm->vga + (gpa - KG_VGA);
	return kg_hva(vm, gpa);
}

/* The argument of a call, unless a part of it lies where the guest could not write it */
static void put_words(const struct hm *model, const struct hm_op *op)
{
	u64 len = op->nr_words * 8ULL, gpa = op->rdx, n;
	const u8 *from = (const u8 *)op->words;

	if (!hm_readable(model, gpa, len))
		return;
	for (; len; len -= n, gpa += n, from += n) {
		n = 0x1000 - (gpa & 0xfff);
		n = n < len ? n : len;
		memcpy(model->hva(gpa), from, n);
	}
}

/* What the host shows, against the model */

static bool same(const char *what, s64 got, u64 want)
{
	return got == (s64)want ||
	       FAIL("%s is %lld, and the model has %lld", what, (long long)got, (long long)want);
}

static u64 cpu_list(void)
{
	char text[128], *p = text;
	u64 cpus = 0;

	kg_file(vm, "cpu/list", text, sizeof(text));
	while (*p) {
		unsigned long a = strtoul(p, &p, 10), b = a;

		if (*p == '-')
			b = strtoul(p + 1, &p, 10);
		for (; a <= b && a < 64; a++)
			cpus |= 1ULL << a;
		p += *p != 0;
	}
	return cpus;
}

static off_t offset_of(u64 unit)
{
	return (off_t)(unit < HM_RAM_UNITS ? HM_UNIT(unit) :
		       HM_UNIT(HM_RAM_UNITS + unit - HM_HIGH_FIRST));
}

/* Memory outside the grant has no page on the host */
static bool nothing_behind(struct kg_vm *which, off_t from, off_t to)
{
	off_t data = lseek(which->ram_fd, from, SEEK_DATA);

	return data < 0 || data >= to;
}

static bool withheld_is_empty(void)
{
	u64 u, end;

	for (u = 1; u < HM_UNITS; u = end + 1) {
		for (end = u; end < HM_UNITS && hm_withheld(&m, end); end++)
			;
		if (end > u && !nothing_behind(vm, offset_of(u), offset_of(end - 1) +
					       (off_t)ELASTIC_UNIT_SIZE))
			return FAIL("host memory is behind units 0x%llx to 0x%llx, which are not granted",
				    (unsigned long long)u, (unsigned long long)end - 1);
	}
	return true;
}

static bool others_are_well(void)
{
	u64 u;

	if (kg_stat(other, "cpu/grant") != 1 ||
	    kg_stat(other, "memory/grant_mib") != 2 * (OTHER_UNITS - 1 - OTHER_NR))
		return FAIL("another VM's grant has changed");
	for (u = 1; u < OTHER_UNITS; u++) {
		if (u >= OTHER_ABSENT && u < OTHER_ABSENT + OTHER_NR)
			continue;
		if (*(u64 *)kg_hva(other, HM_UNIT(u) + HM_MARK) != ~u)
			return FAIL("another VM's memory has changed");
	}
	return nothing_behind(other, (off_t)HM_UNIT(OTHER_ABSENT),
			      (off_t)HM_UNIT(OTHER_ABSENT + OTHER_NR)) ||
	       FAIL("another VM's memory that is not granted has been populated");
}

static bool counters_agree(void)
{
	char file[64];
	unsigned int i;

	for (i = 0; i < HM_NR_STATS; i++) {
		snprintf(file, sizeof(file), "stats/%s", hm_stats[i]);
		if (!same(file, kg_stat(vm, file), m.stat[i]))
			return false;
	}
	return same("stats/unreclaimed_bytes", kg_stat(vm, "stats/unreclaimed_bytes"), 0);
}

static bool pools_agree(void)
{
	u64 cpus = m.others[0] + (m.enforced ? (u64)__builtin_popcountll(m.cpus) : 0);
	u64 units = m.others[1] + (m.enforced ? m.units : 0);

	/* After a reset the accounts follow a moment later */
	if (!m.enforced)
		kg_until(host_stat("cpu/used") == (s64)cpus &&
			 kg_stat(vm, "memory/grant_mib") == 2 * HM_CEILING &&
			 kg_stat(vm, "cpu/grant") == HM_CPUS, SOON_MS);
	return same("cpu/used", host_stat("cpu/used"), cpus) &&
	       same("memory/used_mib", host_stat("memory/used_mib"), 2 * units);
}

static bool agrees(void)
{
	const char *state = !m.enforced ? "unmanaged" : m.cookie ? "managed" : "detached";
	u64 cpus = (u64)__builtin_popcountll(m.cpus);
	s64 now = kg_stat(vm, "stats/gated");

	if (strcmp(kg_state(vm), state))
		return FAIL("state is %s, and the model's is %s", kg_state(vm), state);
	if (now < gated)
		return FAIL("stats/gated fell");
	gated = now;
	if (!pools_agree() || !same("cpu/grant", kg_stat(vm, "cpu/grant"), cpus) ||
	    !same("memory/grant_mib", kg_stat(vm, "memory/grant_mib"), 2 * m.units) ||
	    !same("cpu/ceiling", kg_stat(vm, "cpu/ceiling"), HM_CPUS) ||
	    !same("memory/ceiling_mib", kg_stat(vm, "memory/ceiling_mib"), 2 * HM_CEILING))
		return false;
	if (m.enforced && !same("cpu/list", (s64)cpu_list(), m.cpus))
		return false;
	if (kg_stat(vm, "cpu/use") > (s64)cpus || kg_stat(vm, "memory/use_mib") > (s64)(2 * m.units))
		return FAIL("more in use than is granted");
	return counters_agree() && withheld_is_empty() && others_are_well();
}

/* A place to begin from */

static int set_file(enum hm_file file, u64 value)
{
	char text[32];

	limits_dirty = true;
	snprintf(text, sizeof(text), "%llu", (unsigned long long)value);
	return file == HM_CPU_MAX || file == HM_MEM_MAX ? kg_write(vm, hm_files[file], text) :
							  host_write(hm_files[file], text);
}

static void set(enum hm_file file, u64 value)
{
	int ret = set_file(file, value);

	if (ret)
		ktap_bail("%s: %s", hm_files[file], strerror(-ret));
}

static void default_limits(void)
{
	set(HM_CPU_POOL, POOL_CPUS);
	set(HM_MEM_POOL, 2 * POOL_UNITS);
	set(HM_CPU_MAX, HM_CPUS);
	set(HM_MEM_MAX, 2 * HM_CEILING);
	m.pool[0] = POOL_CPUS;
	m.pool[1] = POOL_UNITS;
	m.max[0] = HM_CPUS;
	m.max[1] = HM_CEILING;
	m.ample = true;
	limits_dirty = false;
}

static void start_all(void)
{
	unsigned int i;

	for (i = 1; i < HM_CPUS; i++) {
		kg_go(&vm->vcpu[i]);
		kg_start_ap(&vm->vcpu[i]);
		if (kg_wait(&vm->vcpu[i], SOON_MS) != KG_ANSWER)
			ktap_bail("vCPU %u does not start", i);
	}
}

static u64 hello_words(struct hm_op *op, u64 held, const struct elastic_range *r, unsigned int nr)
{
	op->rbx = ELASTIC_OP_HELLO;
	op->rdx = KG_ARGS;
	op->rsi = kg_hello_args(vm, held, r, nr);
	return op->rsi;
}

/* HELLO by the boot CPU, which must be granted */
static bool hello(const struct elastic_range *r, unsigned int nr)
{
	static struct hm_expect x;
	struct hm_op op = { .vcpu = 0 };
	struct kg_answer a;
	const char *wrong;

	hello_words(&op, ALL_CPUS, r, nr);
	hm_expect(&m, &op, &x);
	a = kg_hello(&vm->vcpu[0], ALL_CPUS, r, nr);
	wrong = hm_settle(&m, &op, &x, &a);
	return !wrong || FAIL("the first HELLO: %s", wrong);
}

static bool prepare(void)
{
	kg_reset(vm);
	hm_reset(&m);
	start_all();
	if (!hello(absent, 2))
		return false;
	if (limits_dirty)
		default_limits();
	return true;
}

/* In turn */

static bool call_in_mode(struct kg_vcpu *vcpu, const struct hm_op *op)
{
	struct kg_mailbox *mb = vcpu->mb;
	struct kg_answer a;
	enum kg_end end;
	bool good;

	kg_call_setup(vcpu, op->rbx, hm_cookie(&m, op->cookie), op->rdx, op->rsi);
	end = kg_call_mode(vcpu, op->mode);
	kg_call_answer(vcpu, &a);
	if (op->mode == KG_RING3)
		good = a.status == ELASTIC_E_PERM && a.same && a.kept;
	else
		good = (u32)mb->out.rax == (u32)ELASTIC_E_INVAL &&
		       (u32)mb->out.rsi == (u32)mb->in.rsi && (u32)mb->out.rdi == (u32)mb->in.rdi;
	return (end == KG_ANSWER && good) ||
	       FAIL("from %s: %s, status %lld", kg_mode_name(op->mode), kg_end_name(end),
		    (long long)a.status);
}

static bool call(struct kg_vcpu *vcpu, const struct hm_op *op)
{
	static struct hm_expect x;
	struct kg_answer a;
	const char *wrong;
	enum kg_end end;

	put_words(&m, op);
	if (op->mode != KG_LONG)
		return call_in_mode(vcpu, op);
	hm_expect(&m, op, &x);
	end = kg_try_call(vcpu, op->rbx, x.rcx, op->rdx, op->rsi, &a);
	if (end != KG_ANSWER) {
		kg_abandon(vcpu);
		return FAIL("no answer but %s", kg_end_name(end));
	}
	wrong = hm_settle(&m, op, &x, &a);
	if (wrong)
		return FAIL("%s (status %lld, rbx 0x%llx, rcx 0x%llx, rdx 0x%llx)", wrong,
			    (long long)a.status, (unsigned long long)a.rbx,
			    (unsigned long long)a.rcx, (unsigned long long)a.rdx);
	return true;
}

static bool touch(struct kg_vcpu *vcpu, const struct hm_op *op)
{
	u64 unit = op->rdx >> ELASTIC_UNIT_SHIFT;
	bool refuse = hm_withheld(&m, unit) || hm_withheld(&m, (op->rdx + 7) >> ELASTIC_UNIT_SHIFT);
	u64 value = op->kind == HM_WRITE ? ++marker << 12 | unit : 0;
	enum kg_end end = kg_do(vcpu, op->kind == HM_READ ? KG_CMD_READ : KG_CMD_WRITE, op->rdx,
				value, 0);

	if (end != KG_ANSWER)
		kg_abandon(vcpu);
	done.refused += refuse;
	if (end != (refuse ? KG_EFAULT : KG_ANSWER))
		return FAIL("unit 0x%llx, which is %sgranted, touched: %s", (unsigned long long)unit,
			    refuse ? "not " : "", kg_end_name(end));
	if (refuse || (op->rdx & (ELASTIC_UNIT_SIZE - 1)) != HM_MARK)
		return true;
	if (op->kind == HM_READ) {
		value = vcpu->mb->result;
		if (value != m.mark[unit] && !(m.perhaps[unit] && !value))
			return FAIL("unit 0x%llx reads as 0x%llx and not as 0x%llx%s",
				    (unsigned long long)unit, (unsigned long long)value,
				    (unsigned long long)m.mark[unit],
				    m.perhaps[unit] ? " or 0" : "");
	}
	m.mark[unit] = value;
	m.perhaps[unit] = false;
	return true;
}

/* A vCPU outside the grant does nothing */
static bool stays_held(struct kg_vcpu *vcpu)
{
	enum kg_end end;

	kg_cmd(vcpu, KG_CMD_NOP, 0, 0, 0);
	kg_go(vcpu);
	end = kg_wait(vcpu, HELD_MS);
	if (end == KG_TIMEOUT)
		end = kg_kick(vcpu, SOON_MS);
	kg_abandon(vcpu);
	done.held++;
	return end == KG_EINTR ||
	       FAIL("vCPU %u, which is not granted, was run: %s", vcpu->id, kg_end_name(end));
}

static bool administrate(const struct hm_op *op)
{
	if (set_file(op->file, op->rdx))
		return FAIL("%s cannot be set to %llu", hm_files[op->file],
			    (unsigned long long)op->rdx);
	switch (op->file) {
	case HM_CPU_MAX:
	case HM_CPU_POOL:
		(op->file == HM_CPU_MAX ? m.max : m.pool)[0] = op->rdx;
		break;
	default:
		(op->file == HM_MEM_MAX ? m.max : m.pool)[1] = op->rdx / 2;
		break;
	}
	if (op->file == HM_CPU_POOL || op->file == HM_MEM_POOL)
		m.ample = false;
	return true;
}

static bool step(const struct hm_op *op)
{
	struct kg_vcpu *vcpu = &vm->vcpu[op->vcpu];

	switch (op->kind) {
	case HM_RESET:
		kg_reset(vm);
		hm_reset(&m);
		start_all();
		return true;
	case HM_SET:
		return administrate(op);
	case HM_CALL:
	case HM_READ:
	case HM_WRITE:
		break;
	}
	if (!hm_granted_cpu(&m, op->vcpu))
		return ((op->rbx ^ op->rdx ^ op->rsi) & 7) || stays_held(vcpu);
	done.ops[0]++;
	return op->kind == HM_CALL ? call(vcpu, op) : touch(vcpu, op);
}

static bool run_in_turn(const struct hm_seq *s)
{
	char line[256];
	unsigned int i;

	for (i = 0; i < s->nr; i++) {
		if (step(&s->op[i]))
			continue;
		snprintf(line, sizeof(line), "operation %u: %.200s", i, why);
		return FAIL("%s", line);
	}
	return true;
}

/* Together */

#define FREERS	2	/* calls that set held vCPUs free, behind a vCPU's own list */

struct lane {
	struct kg_vcpu *vcpu;
	struct kg_list_call *list;
	const struct hm_op *op[KG_LIST_MAX];	/* NULL: to set free */
	unsigned int first, nr;		/* what runs: [first, nr) */
	bool running;
};

/* What happened to a unit, as far as the answers tell */
struct tale {
	u32 requested, released, hello, discarded, written, faulted;
};

static struct lane lanes[HM_CPUS];
static struct tale tales[HM_UNITS];
static u64 cpus_released, cpus_requested;
static u64 hellos, byes;

static void clear_list(struct lane *l, unsigned int i)
{
	memset((void *)&l->list[i], 0x5a, sizeof(l->list[i]));
}

static void add_call(struct lane *l, const struct hm_op *op, u64 rbx, u64 rcx, u64 rdx, u64 rsi)
{
	struct kg_list_call *c = &l->list[l->nr];

	clear_list(l, l->nr);
	l->op[l->nr++] = op;
	c->rbx = rbx;
	c->rcx = rcx;
	c->rdx = rdx;
	c->rsi = rsi;
}

/*
 * An argument outside the arena may lie in another's: then it would not be known what
 * was said.
 */
static bool overlaps(const struct hm_seq *s, unsigned int nr)
{
	const struct hm_op *op = &s->op[nr], *o;
	u64 len = op->nr_words * 8ULL;

	if (!len || (op->rdx >= ARENA(0) && op->rdx < KG_LOW_END))
		return false;
	for (o = s->op; o < op; o++)
		if (o->nr_words && op->rdx < o->rdx + o->nr_words * 8ULL &&
		    o->rdx < op->rdx + len)
			return true;
	return false;
}

static void fill_lanes(const struct hm_seq *s)
{
	unsigned int i;

	for (i = 0; i < HM_CPUS; i++) {
		lanes[i].vcpu = &vm->vcpu[i];
		lanes[i].list = kg_hva(vm, KG_LISTS + i * 0x1000ULL);
		lanes[i].first = lanes[i].nr = 0;
		lanes[i].running = false;
	}
	for (i = 0; i < s->nr; i++) {
		const struct hm_op *op = &s->op[i];
		struct lane *l = &lanes[op->vcpu];
		u64 code = op->rbx & ELASTIC_OP_MASK, rcx;

		if (l->nr >= LIST_OPS || op->kind == HM_READ || op->kind == HM_RESET ||
		    op->kind == HM_SET || overlaps(s, i))
			continue;
		done.ops[1]++;
		if (op->kind == HM_WRITE) {
			/* Beside the marker: what becomes of that, the model has to know */
			add_call(l, op, LIVE, ++marker << 12 | 0xfff,
				 op->rdx % ELASTIC_UNIT_SIZE == HM_MARK ? op->rdx + 8 : op->rdx, 0);
			continue;
		}
		put_words(&m, op);
		rcx = op->cookie != HM_GOOD ? hm_cookie(&m, op->cookie) :
		      code == ELASTIC_OP_HELLO ? 0 : KG_COOKIE_LIVE;
		add_call(l, op, op->rbx == LIVE ? op->rbx - 1 : op->rbx, rcx, op->rdx, op->rsi);
	}
}

static void run_lane(struct lane *l)
{
	l->vcpu->mb->counter = l->first;
	kg_cmd(l->vcpu, KG_CMD_CALLS, KG_LISTS + l->vcpu->index * 0x1000ULL +
	       l->first * KG_LIST_SIZE, l->nr - l->first, 0);
	l->running = true;
	kg_go(l->vcpu);
}

static void tell(size_t field, u64 first, u64 nr)
{
	u64 u;

	for (u = first; u - first < nr && u < HM_UNITS; u++)
		++*(u32 *)((u8 *)&tales[u] + field);
}

#define TELL(field, first, nr) tell(offsetof(struct tale, field), first, nr)

/* A call that was answered with success */
static void note_success(const struct hm_op *op, const struct kg_answer *a)
{
	const struct elastic_range *r = (const struct elastic_range *)op->words;
	const struct elastic_hello *h = (const struct elastic_hello *)op->words;
	u64 code = op->rbx & ELASTIC_OP_MASK, i;

	if (!op->words && code != ELASTIC_OP_REQUEST && code != ELASTIC_OP_RELEASE_CPU &&
	    code != ELASTIC_OP_BYE)
		return;
	switch (code) {
	case ELASTIC_OP_HELLO:
		if (a->status)
			break;
		hellos++;
		cpus_released |= ~op->words[4];
		r = (const struct elastic_range *)(op->words + 4 + h->nr_cpu_words);
		for (i = 0; i < h->nr_ranges; i++)
			TELL(hello, r[i].first, r[i].nr);
		break;
	case ELASTIC_OP_REQUEST:
		cpus_requested |= a->rcx;
		if (a->status != ELASTIC_REFUSED)
			TELL(requested, ELASTIC_RANGE_FIRST(op->rsi), a->rdx);
		break;
	case ELASTIC_OP_RELEASE_CPU:
		cpus_released |= op->rdx;
		break;
	case ELASTIC_OP_RELEASE_MEM:
		for (i = 0; i < op->rsi; i++)
			TELL(released, r[i].first, r[i].nr);
		break;
	case ELASTIC_OP_DISCARD:
		for (i = 0; i < op->rsi; i++)
			TELL(discarded, r[i].first, r[i].nr);
		break;
	case ELASTIC_OP_BYE:
		byes++;
		break;
	}
}

static bool note_answer(struct lane *l, unsigned int i)
{
	static const struct hm_op freer[FREERS] = {
		{ .rbx = ELASTIC_OP_HELLO }, { .rbx = ELASTIC_OP_REQUEST },
	};
	const struct kg_list_call *c = &l->list[i];
	struct kg_answer a = { .status = (s64)c->out[0], .rbx = c->out[1], .rcx = c->out[2],
			       .rdx = c->out[3] };
	struct hm_op op = l->op[i] ? *l->op[i] : freer[c->rbx == ELASTIC_OP_REQUEST];
	unsigned int row = op.rbx & ELASTIC_OP_MASK;
	int status = optable_status(a.status);

	if (op.kind == HM_WRITE) {
		TELL(written, op.rdx >> ELASTIC_UNIT_SHIFT, 1);
		return true;
	}
	row = row < ELASTIC_OP_NR ? row : OPTABLE_UNKNOWN;
	if (status < 0 || !(table.allowed[row][status] || table.common[status]))
		return FAIL("vCPU %u, call %u: %s answers %lld", l->vcpu->id, i,
			    optable_ops[row].name, (long long)a.status);
	if (a.status < 0 && a.rdx)
		return FAIL("vCPU %u, call %u: an error with RDX 0x%llx", l->vcpu->id, i,
			    (unsigned long long)a.rdx);
	hm_count(&m, &op, &a);
	if (a.status < 0)
		return true;
	if (l->op[i])
		note_success(&op, &a);
	else if (row == ELASTIC_OP_REQUEST)
		cpus_requested |= a.rcx;
	else
		hellos++;
	return true;
}

/* Write down what has been answered; a write that the gate stopped is passed over */
static bool lane_ended(struct lane *l, enum kg_end end)
{
	unsigned int made = (unsigned int)l->vcpu->mb->counter;

	l->running = false;
	for (; l->first < made; l->first++)
		if (!note_answer(l, l->first))
			return false;
	if (end == KG_ANSWER)
		return l->first == l->nr || FAIL("vCPU %u did not make all calls", l->vcpu->id);
	if (end != KG_EFAULT || l->first >= l->nr || !l->op[l->first] ||
	    l->op[l->first]->kind != HM_WRITE) {
		unsigned int at = l->first;

		kg_abandon(l->vcpu);
		return FAIL("vCPU %u, call %u: %s (errno %d, exit %u)", l->vcpu->id, at,
			    kg_end_name(end), l->vcpu->error, l->vcpu->run->exit_reason);
	}
	TELL(faulted, l->op[l->first]->rdx >> ELASTIC_UNIT_SHIFT, 1);
	done.refused++;
	kg_abandon(l->vcpu);
	l->first++;
	if (l->first < l->nr)
		run_lane(l);
	return true;
}

/* The vCPUs that still run are held: one that is not asks for them */
static void set_free(void)
{
	u64 cpus = cpu_list(), length;
	struct hm_op op;
	unsigned int i;

	for (i = 0; i < HM_CPUS; i++) {
		struct lane *l = &lanes[i];

		if (l->running || !(cpus >> i & 1))
			continue;
		length = hello_words(&op, ALL_CPUS, NULL, 0);
		l->first = l->nr = LIST_OPS;
		add_call(l, NULL, ELASTIC_OP_HELLO, 0, KG_ARGS, length);
		add_call(l, NULL, ELASTIC_OP_REQUEST, KG_COOKIE_LIVE, ALL_CPUS, 0);
		run_lane(l);
		return;
	}
}

static u64 progress(unsigned int *running)
{
	u64 sum = 0;
	unsigned int i;

	*running = 0;
	for (i = 0; i < HM_CPUS; i++) {
		sum += lanes[i].vcpu->mb->counter;
		*running += lanes[i].running;
	}
	return sum;
}

static bool run_lanes(void)
{
	u64 end_ms = kg_now_ms() + SOON_MS, moved_ms = kg_now_ms(), last = 0, sum;
	unsigned int i, running;

	for (i = 0; i < HM_CPUS; i++)
		if (lanes[i].nr)
			run_lane(&lanes[i]);
	for (sum = progress(&running); running; sum = progress(&running)) {
		if (sum != last) {
			last = sum;
			moved_ms = kg_now_ms();
		}
		for (i = 0; i < HM_CPUS; i++) {
			enum kg_end end;

			if (!lanes[i].running)
				continue;
			end = kg_wait(lanes[i].vcpu, 1);
			if (end != KG_TIMEOUT) {
				moved_ms = kg_now_ms();
				if (!lane_ended(&lanes[i], end))
					return false;
			}
		}
		if (kg_now_ms() - moved_ms > 15) {
			set_free();
			moved_ms = kg_now_ms();
		}
		if (kg_now_ms() > end_ms)
			return FAIL("vCPUs that are granted do not come to an end");
	}
	return true;
}

/* Ask for nothing that can be had: the answer says what is granted from @first on */
static u64 granted_from(struct kg_vcpu *vcpu, u64 first, u64 nr, u64 *cpus)
{
	struct hm_op op = {
		.rbx = KG_OP(ELASTIC_OP_REQUEST, 0, 0, ELASTIC_F_WHOLE),
		.rdx = ALL_CPUS | 1ULL << 63, .rsi = ELASTIC_RANGE(first, nr),
	};
	struct kg_answer a = kg_call(vcpu, op.rbx, vm->cookie, op.rdx, op.rsi);

	hm_count(&m, &op, &a);
	*cpus = a.rcx;
	return a.rdx;
}

/* The state that it came to, as the interface tells it */
static bool learn(struct hm *now)
{
	u64 list = cpu_list(), cpus = 0, u, n;
	struct kg_vcpu *vcpu = &vm->vcpu[list ? __builtin_ctzll(list) : 0];
	struct hm_op op = { .rbx = ELASTIC_OP_HELLO };
	struct kg_answer a;

	*now = m;
	/* The cookie is the guest's own affair, and may be void */
	a = kg_hello(vcpu, ALL_CPUS, NULL, 0);
	if (a.status)
		return FAIL("HELLO after all answers %lld", (long long)a.status);
	hm_count(&m, &op, &a);
	hellos++;
	memset(now->held_back, 0, sizeof(now->held_back));
	now->units = 0;
	for (u = 1; u < HM_UNITS; u++) {
		if (u == HM_RAM_UNITS)
			u = HM_HIGH_FIRST;
		n = granted_from(vcpu, u, (u < HM_RAM_UNITS ? HM_RAM_UNITS : HM_UNITS) - u, &cpus);
		now->units += n;
		u += n;
		if (hm_ceiling(u))
			now->held_back[u] = true;
		else
			u--;
	}
	memcpy(now->stat, m.stat, sizeof(m.stat));
	now->cpus = cpus;
	now->cookie = a.rbx;
	now->old = m.cookie;
	now->features = a.rcx;
	return true;
}

/* Is there an order of events that leads there? */
static bool possible(u64 u, bool before, bool after)
{
	const struct tale *t = &tales[u];
	/* Comings: as many as there were goings, and one more or less for the states */
	s64 least = (s64)after - before + t->released, most = least + t->hello;

	return least <= t->requested && most >= 0 &&
	       (!t->written || before || t->requested) &&
	       (!t->faulted || !before || t->released || t->hello);
}

static bool story_holds(const struct hm *now)
{
	u64 u, cpu, least = 0, most = 0, discarded = 0;

	for (u = 1; u < HM_UNITS; u++) {
		const struct tale *t = &tales[u];

		if (!hm_ceiling(u))
			continue;
		if (!possible(u, !m.held_back[u], !now->held_back[u]))
			return FAIL("unit 0x%llx, %sgranted: %u times requested, %u given up, %u in HELLO, %u written, %u faults, then %sgranted",
				    (unsigned long long)u, m.held_back[u] ? "not " : "",
				    t->requested, t->released, t->hello, t->written, t->faulted,
				    now->held_back[u] ? "not " : "");
		least += t->released;
		most += t->hello;
		discarded += t->discarded;
	}
	for (cpu = 0; cpu < HM_CPUS; cpu++) {
		u64 bit = 1ULL << cpu;

		if ((m.cpus & ~now->cpus & bit && !(cpus_released & bit)) ||
		    (~m.cpus & now->cpus & bit && !(cpus_requested & bit)))
			return FAIL("vCPU %llu came or went by itself", (unsigned long long)cpu);
	}
	if (byes > hellos + 1)
		return FAIL("%llu sessions ended, and %llu began", (unsigned long long)byes,
			    (unsigned long long)hellos + 1);
	least = m.stat[HM_TAKEN] + least * ELASTIC_UNIT_SIZE;
	most = least + most * ELASTIC_UNIT_SIZE;
	m.stat[HM_TAKEN] = (u64)kg_stat(vm, "stats/taken_bytes");
	if (m.stat[HM_TAKEN] < least || m.stat[HM_TAKEN] > most)
		return FAIL("stats/taken_bytes is %llu, not between %llu and %llu",
			    (unsigned long long)m.stat[HM_TAKEN], (unsigned long long)least,
			    (unsigned long long)most);
	m.stat[HM_DISCARDED] += discarded * ELASTIC_UNIT_SIZE;
	return true;
}

static bool run_together(const struct hm_seq *s)
{
	static struct hm now;
	u64 u;

	memset(tales, 0, sizeof(tales));
	cpus_released = cpus_requested = hellos = byes = 0;
	fill_lanes(s);
	*(volatile u64 *)kg_hva(vm, KG_COOKIE) = m.cookie;
	if (!run_lanes() || !learn(&now) || !story_holds(&now))
		return false;
	memcpy(now.stat, m.stat, sizeof(m.stat));
	for (u = 1; u < HM_UNITS; u++)
		if (tales[u].released || tales[u].hello || tales[u].discarded)
			now.perhaps[u] = true;
	m = now;
	return true;
}

/* The grant as the guest finds it: by touching */
static bool try_memory(void)
{
	u64 u, r = marker;
	unsigned int i;
	struct hm_op op = { .kind = HM_READ };

	if (!hm_granted_cpu(&m, 0))
		return true;
	for (i = 0; i < 4; i++) {
		u = 8 + below(&r, 34);
		op.rdx = HM_UNIT(u) + HM_MARK;
		if (!touch(&vm->vcpu[0], &op))
			return false;
	}
	return true;
}

/* After a failure the counters are what the host says */
static void resync(void)
{
	char file[64];
	unsigned int i;
	u64 u;

	for (i = 0; i < HM_CPUS; i++) {
		if (kg_is_running(&vm->vcpu[i]))
			kg_kick(&vm->vcpu[i], SOON_MS);
		kg_abandon(&vm->vcpu[i]);
	}
	for (i = 0; i < HM_NR_STATS; i++) {
		snprintf(file, sizeof(file), "stats/%s", hm_stats[i]);
		m.stat[i] = (u64)kg_stat(vm, file);
	}
	kg_reset(vm);
	hm_reset(&m);
	for (u = 1; u < HM_UNITS; u++) {
		if (!hm_ceiling(u))
			continue;
		m.mark[u] = *(u64 *)kg_hva(vm, HM_UNIT(u) + HM_MARK);
		m.perhaps[u] = false;
	}
	limits_dirty = true;
}

static bool run_real(const struct hm_seq *s)
{
	bool good;

	if (!prepare()) {
		resync();
		return false;
	}
	good = s->together ? run_together(s) : run_in_turn(s);
	good = good && agrees() && try_memory();
	if (!good)
		resync();
	return good;
}

/* The same with the model as host, and a fault in it */

static struct hm fake;
static enum hm_fault fault;
static u8 *fake_ram;

static void *fake_memory(u64 gpa)
{
	if (gpa >= KG_LOW_END && gpa < KG_RAM)
		return gpa < 0xc0000 ? fake_ram + gpa : NULL;
	if (gpa < HM_UNIT(HM_RAM_UNITS))
		return fake_ram + gpa;
	if (gpa >= KG_HIGH && gpa < KG_HIGH + HM_UNIT(HM_HIGH_UNITS))
		return fake_ram + HM_UNIT(HM_RAM_UNITS) + (gpa - KG_HIGH);
	return NULL;
}

static void fake_prepare(void)
{
	static struct hm_expect x;
	u64 *p = fake_memory(KG_ARGS);
	struct elastic_hello h = { 1, 1, 1, 2, HM_FEATURES, 0 };
	struct hm_op op = { .rdx = KG_ARGS, .rsi = sizeof(h) + 8 + sizeof(absent) };
	struct kg_answer a;
	s64 off = 0;

	memset(&m, 0, sizeof(m));
	m.hva = fake_memory;
	m.other = 0xabcdef;
	m.cookie = 0x1234;
	hm_reset(&m);
	m.max[0] = HM_CPUS;
	m.max[1] = HM_CEILING;
	m.pool[0] = m.pool[1] = 1 << 20;
	m.ample = true;
	fake = m;
	memcpy(p, &h, sizeof(h));
	p[4] = ALL_CPUS;
	memcpy(p + 5, absent, sizeof(absent));
	hm_expect(&m, &op, &x);
	a = hm_fake(&fake, &op, HM_SOUND, &off);
	hm_settle(&m, &op, &x, &a);
}

static bool run_fake(const struct hm_seq *s)
{
	static struct hm_expect x;
	const char *wrong;
	struct kg_answer a;
	unsigned int i;
	s64 off = 0;

	fake_prepare();
	for (i = 0; i < s->nr; i++) {
		const struct hm_op *op = &s->op[i];

		if (op->kind == HM_RESET) {
			hm_reset(&m);
			hm_reset(&fake);
		}
		if (op->kind == HM_SET && (op->file == HM_CPU_MAX || op->file == HM_MEM_MAX)) {
			u64 n = op->file == HM_CPU_MAX ? op->rdx : op->rdx / 2;

			m.max[op->file == HM_MEM_MAX] = fake.max[op->file == HM_MEM_MAX] = n;
		}
		if (op->kind != HM_CALL || op->mode != KG_LONG || !hm_granted_cpu(&m, op->vcpu))
			continue;
		put_words(&m, op);
		hm_expect(&m, op, &x);
		a = hm_fake(&fake, op, fault, &off);
		wrong = hm_settle(&m, op, &x, &a);
		if (wrong)
			return FAIL("operation %u: %s (status %lld)", i, wrong,
				    (long long)a.status);
	}
	if (fake.units + (u64)off != m.units || fake.cpus != m.cpus)
		return FAIL("%llu units granted, and the model has %llu",
			    (unsigned long long)(fake.units + (u64)off), (unsigned long long)m.units);
	return true;
}

/* A failing sequence, made as short as it goes */

typedef bool run_fn(const struct hm_seq *s);

static u64 shrink_until;

static bool still_fails(run_fn *run, const struct hm_seq *s, unsigned int *left)
{
	unsigned int tries = s->together ? 8 : 1;

	while (tries-- && *left && kg_now_ms() < shrink_until) {
		--*left;
		if (!run(s))
			return true;
	}
	return false;
}

/* Without @nr operations from @at on */
static void without(struct hm_seq *to, const struct hm_seq *s, unsigned int at, unsigned int nr)
{
	*to = *s;
	memmove(&to->op[at], &to->op[at + nr], (s->nr - at - nr) * sizeof(*to->op));
	to->nr -= nr;
}

static void shrink_ops(run_fn *run, struct hm_seq *s, unsigned int *left)
{
	static struct hm_seq less;
	unsigned int chunk = s->nr / 2, at;

	while (chunk) {
		bool shorter = false;

		for (at = 0; at < s->nr && *left;) {
			without(&less, s, at, chunk < s->nr - at ? chunk : s->nr - at);
			if (still_fails(run, &less, left)) {
				*s = less;
				shorter = true;
			} else {
				at += chunk;
			}
		}
		if (!shorter || chunk > s->nr)
			chunk /= 2;
		if (!*left || kg_now_ms() >= shrink_until)
			break;
	}
}

/* Ranges of a batch, one after the other; the words are the original's, so they are copied */
static void shrink_ranges(run_fn *run, struct hm_seq *s, struct hm_op *op, unsigned int *left)
{
	u64 *was = op->words;
	unsigned int chunk = op->nr_words / 4 * 2, at;

	for (; chunk >= 2; chunk = chunk / 4 * 2) {
		for (at = 0; at + chunk < op->nr_words && *left;) {
			u64 *words = room(op, op->nr_words);

			memcpy(words, was, at * 8ULL);
			memcpy(words + at, was + at + chunk, (op->nr_words - at - chunk) * 8ULL);
			op->nr_words -= chunk;
			op->rsi -= chunk / 2;
			if (still_fails(run, s, left)) {
				was = words;
			} else {
				free(words);
				op->words = was;
				op->nr_words += chunk;
				op->rsi += chunk / 2;
				at += chunk;
			}
		}
	}
	op->words = was;
}

static void shrink(run_fn *run, struct hm_seq *s, unsigned int runs)
{
	unsigned int i;

	shrink_until = kg_now_ms() + SHRINK_MS;
	shrink_ops(run, s, &runs);
	for (i = 0; i < s->nr && runs; i++) {
		struct hm_op *op = &s->op[i];
		u64 code = op->rbx & ELASTIC_OP_MASK;

		if (op->kind == HM_CALL && op->nr_words == 2 * op->rsi && op->rsi > 1 &&
		    (code == ELASTIC_OP_RELEASE_MEM || code == ELASTIC_OP_DISCARD))
			shrink_ranges(run, s, op, &runs);
	}
	/* So that the last reason is that of what is printed */
	shrink_until = kg_now_ms() + SHRINK_MS;
	still_fails(run, s, &(unsigned int) { 8 });
}

static void report(run_fn *run, struct hm_seq *s, const char *what, unsigned int runs)
{
	unsigned int was = s->nr;

	ktap_diag("%s: %s", what, why);
	shrink(run, s, runs);
	ktap_diag("%u operations of %u are left, and fail so: %s", s->nr, was, why);
	hm_print(stdout, s, "#   ");
}

/* The oracle, and what shortens, against faults that are known */
static void self_check(void)
{
	static struct hm_seq s;
	u64 i, n;

	fake_ram = mmap(NULL, HM_UNIT(HM_RAM_UNITS + HM_HIGH_UNITS), PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (fake_ram == MAP_FAILED)
		ktap_bail("mmap: %s", strerror(errno));
	for (fault = HM_SOUND; fault < HM_NR_FAULTS; fault++) {
		bool found = false;

		for (i = 0, n = 0; n < 20000 && !found; i++) {
			make(&s, i);
			n += s.nr;
			found = !run_fake(&s);
			if (!found)
				hm_free(&s);
		}
		if (fault == HM_SOUND) {
			if (found)
				report(run_fake, &s, "a sound host", 2000);
			ktap_ok(!found, "the model agrees with itself over %llu operations",
				(unsigned long long)n);
			continue;
		}
		if (found)
			report(run_fake, &s, hm_faults[fault], 2000);
		ktap_ok(found && s.nr <= 4, "a host with a fault (%s): found after %llu operations, shortened to %u",
			hm_faults[fault], (unsigned long long)n, s.nr);
		hm_free(&s);
	}
	munmap(fake_ram, HM_UNIT(HM_RAM_UNITS + HM_HIGH_UNITS));
}

/* Text */

static bool parse(struct hm_seq *s, const char *text)
{
	char *copy = strdup(text), *line, *state;
	bool good = copy;

	memset(s, 0, sizeof(*s));
	for (line = strtok_r(copy, "\n", &state); line && good; line = strtok_r(NULL, "\n", &state))
		good = hm_parse_line(s, line);
	free(copy);
	return good;
}

static void replay(const char *name, const char *text)
{
	static struct hm_seq s;
	unsigned int i, tries;
	bool good = true;

	if (!parse(&s, text))
		ktap_bail("%s: cannot be read", name);
	tries = s.together ? 5 : 1;
	for (i = 0; i < tries && good; i++)
		good = run_real(&s);
	if (!good)
		report(run_real, &s, name, SHRINK_RUNS);
	ktap_ok(good, "%s (%u operations)", name, s.nr);
	hm_free(&s);
}

static void replay_file(const char *path)
{
	FILE *file = fopen(path, "re");
	char *text = NULL;
	size_t size = 0;

	if (!file || getdelim(&text, &size, 0, file) < 0)
		ktap_bail("%s: %s", path, strerror(errno));
	fclose(file);
	replay(path, text);
	free(text);
}

/*
 * Three vCPUs touch page after page of units that the fourth gives up, gets back and gives
 * up: whose access is on its way when its unit goes must not bring a page back behind it.
 */
static void populate_behind(void)
{
	static struct hm_seq s;
	unsigned int i, k, round;
	const u64 unit = 20;
	bool good = true;

	s.together = true;
	for (i = 0; i < 20; i++) {
		struct hm_op *op = &s.op[s.nr++];

		*op = (struct hm_op) { .rdx = ARENA(0) + 16 * i, .rsi = 1, .nr_words = 2 };
		op->rbx = i & 1 ? ELASTIC_OP_RELEASE_MEM : ELASTIC_OP_REQUEST;
		room(op, 2);
		op->words[0] = unit;
		op->words[1] = 4;
		if (op->rbx == ELASTIC_OP_REQUEST) {
			op->nr_words = 0;
			op->rdx = 0;
			op->rsi = ELASTIC_RANGE(unit, 4);
		}
	}
	for (k = 1; k < HM_CPUS; k++)
		for (i = 0; i < 50; i++)
			s.op[s.nr++] = (struct hm_op) {
				.kind = HM_WRITE, .vcpu = k,
				.rdx = HM_UNIT(unit + i % 4) + 0x1000 * (1 + 4 * i + k),
			};
	for (round = 0; round < 12 && good; round++)
		good = run_real(&s);
	if (!good)
		ktap_diag("round %u: %s", round, why);
	ktap_ok(good, "memory that is touched in the moment in which it is given up, %u times: nothing is left behind",
		round);
	hm_free(&s);
}

/* Random sequences */

static void random_ones(void)
{
	static struct hm_seq s;
	u64 index, begin = kg_now_ms();
	bool good = true;
	char what[64];

	ktap_diag("--seed %llu", (unsigned long long)seed);
	memset(&done, 0, sizeof(done));
	for (index = 0; good && done.ops[0] + done.ops[1] < ops_wanted; index++) {
		make(&s, index);
		good = run_real(&s);
		if (!good) {
			snprintf(what, sizeof(what), "sequence %llu of seed %llu",
				 (unsigned long long)index, (unsigned long long)seed);
			report(run_real, &s, what, SHRINK_RUNS);
		}
		hm_free(&s);
	}
	ktap_ok(good, "%llu operations in %llu random sequences: sysfs, KVM and the model agree after each",
		(unsigned long long)(done.ops[0] + done.ops[1]), (unsigned long long)index);
	ktap_diag("%llu in turn, %llu together, in %llu s; accesses that the gate stopped: %llu; times that a vCPU had to stay held: %llu",
		  (unsigned long long)done.ops[0], (unsigned long long)done.ops[1],
		  (unsigned long long)(kg_now_ms() - begin) / 1000,
		  (unsigned long long)done.refused, (unsigned long long)done.held);
	ktap_ok(others_are_well(), "the other VM has its grant and its memory");
}

/* All vCPUs of a VM that nobody knows say HELLO at once, each for itself alone */
static void first_hellos(void)
{
	struct kg_config cfg = { .nr_vcpus = HM_CPUS, .ram = HM_UNIT(64) };
	unsigned int round, i, wrong = 0;
	char dir[256];

	for (round = 0; round < 5; round++) {
		unsigned int good = 0;

		vm = kg_new(&cfg);
		start_all();
		for (i = 0; i < HM_CPUS; i++) {
			struct lane *l = &lanes[i];
			struct elastic_hello *h = kg_hva(vm, ARENA(i));

			*h = (struct elastic_hello) { 1, 1, 1, 0, HM_FEATURES, 0 };
			*(u64 *)(h + 1) = 1ULL << i;
			l->vcpu = &vm->vcpu[i];
			l->list = kg_hva(vm, KG_LISTS + i * 0x1000ULL);
			l->first = l->nr = 0;
			add_call(l, NULL, ELASTIC_OP_HELLO, 0, ARENA(i), sizeof(*h) + 8);
		}
		for (i = 0; i < HM_CPUS; i++)
			run_lane(&lanes[i]);
		for (i = 0; i < HM_CPUS; i++) {
			enum kg_end end = kg_wait(lanes[i].vcpu, 60);

			/* Held in the end; what was answered is in its registers */
			if (end == KG_TIMEOUT)
				kg_kick(lanes[i].vcpu, SOON_MS);
		}
		for (i = 0; i < HM_CPUS; i++) {
			struct kvm_regs regs;

			kg_get_regs(lanes[i].vcpu, &regs);
			if (lanes[i].vcpu->mb->counter)
				good += lanes[i].list[0].out[0] == ELASTIC_OK;
			else
				good += regs.rax == ELASTIC_OK && regs.rdx == ELASTIC_VERSION;
		}
		/* The directory is named by this process; only this VM has one */
		snprintf(vm->dir, sizeof(vm->dir), KG_SYSFS "/vms/%d", (int)getpid());
		if (good != 1 || kg_stat(vm, "cpu/grant") != 1) {
			ktap_diag("%u HELLOs succeeded, %lld vCPUs are granted", good,
				  (long long)kg_stat(vm, "cpu/grant"));
			wrong++;
		}
		snprintf(dir, sizeof(dir), "%s", vm->dir);
		kg_free(vm);
		kg_until(access(dir, F_OK), SOON_MS);
	}
	ktap_eq(wrong, 0, "first HELLOs of all vCPUs at once, each for itself alone, in %u VMs: where not just one came through",
		round);
}

/* Killed at any instruction, with all vCPUs in calls */

static __attribute__((noreturn)) void victim(u64 number)
{
	struct kg_config cfg = {
		.nr_vcpus = HM_CPUS, .ram = HM_UNIT(HM_RAM_UNITS), .high = HM_UNIT(HM_HIGH_UNITS),
	};
	static struct hm_seq s;
	u64 index;

	if (!freopen("/dev/null", "w", stdout))
		_exit(1);
	vm = kg_new(&cfg);
	memset(&m, 0, sizeof(m));
	m.hva = memory;
	hm_reset(&m);
	start_all();
	kg_must_hello(&vm->vcpu[0], ALL_CPUS, absent, 2);
	for (index = number * 1000;; index++) {
		make(&s, 3 * index + 2);
		fill_lanes(&s);
		*(volatile u64 *)kg_hva(vm, KG_COOKIE) = vm->cookie;
		run_lanes();
		hm_free(&s);
	}
}

static void killed(void)
{
	s64 cpus = host_stat("cpu/used"), units = host_stat("memory/used_mib");
	unsigned int round, bad = 0;
	char dir[128];
	u64 r = seed;

	for (round = 0; round < 6; round++) {
		pid_t pid = fork();
		int status = 0;

		if (!pid)
			victim(round);
		snprintf(dir, sizeof(dir), KG_SYSFS "/vms/%d", (int)pid);
		if (!kg_until(!access(dir, F_OK), SOON_MS))
			ktap_diag("the VM does not appear");
		usleep((useconds_t)(5000 + below(&r, 80000)));
		kill(pid, SIGKILL);
		waitpid(pid, &status, 0);
		if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL ||
		    !kg_until(access(dir, F_OK), SOON_MS) ||
		    !kg_until(host_stat("cpu/used") == cpus &&
			      host_stat("memory/used_mib") == units, SOON_MS)) {
			ktap_diag("status 0x%x, cpu/used %lld, memory/used_mib %lld", status,
				  (long long)host_stat("cpu/used"),
				  (long long)host_stat("memory/used_mib"));
			bad++;
		}
	}
	ktap_eq(bad, 0, "%u VMMs killed with all vCPUs in calls: how many left something", round);
}

/* The host's own settings, and back */

static const char *const host_files[] = {
	"cpu/pool", "memory/pool_mib", "cpu/deadline_ms", "memory/deadline_ms",
};
static s64 host_was[4];
static pid_t owner;

static void host_restore(void)
{
	char text[32];
	unsigned int i;

	for (i = 0; i < 4 && getpid() == owner; i++) {
		snprintf(text, sizeof(text), "%lld", (long long)host_was[i]);
		host_write(host_files[i], text);
	}
}

static void host_prepare(void)
{
	unsigned int i;

	for (i = 0; i < 4; i++)
		host_was[i] = host_stat(host_files[i]);
	owner = getpid();
	atexit(host_restore);
	/* No vCPU is to be seized because a maximum is below the grant for long */
	if (host_write("cpu/deadline_ms", "3600000") || host_write("memory/deadline_ms", "3600000") ||
	    host_write("cpu/pool", "64") || host_write("memory/pool_mib", "8192"))
		ktap_bail("the pools cannot be set");
}

static void vms_prepare(void)
{
	struct kg_config cfg = { .ram = HM_UNIT(OTHER_UNITS) };
	const struct elastic_range away = { OTHER_ABSENT, OTHER_NR };
	u64 u;

	other = kg_new(&cfg);
	kg_must_hello(&other->vcpu[0], 1, &away, 1);
	for (u = 1; u < OTHER_UNITS; u++)
		if (u < OTHER_ABSENT || u >= OTHER_ABSENT + OTHER_NR)
			*(u64 *)kg_hva(other, HM_UNIT(u) + HM_MARK) = ~u;
	cfg = (struct kg_config) {
		.nr_vcpus = HM_CPUS, .ram = HM_UNIT(HM_RAM_UNITS), .high = HM_UNIT(HM_HIGH_UNITS),
	};
	vm = kg_new(&cfg);
	vm->more_features = ELASTIC_FEAT_HINT;
	memset(&m, 0, sizeof(m));
	m.hva = memory;
	m.other = other->cookie;
	m.others[0] = 1;
	m.others[1] = OTHER_UNITS - 1 - OTHER_NR;
	hm_reset(&m);
	start_all();
	if (!hello(absent, 2))
		ktap_bail("%s", why);
	default_limits();
}

static void from_environment(const char *name, u64 *value)
{
	const char *text = getenv(name);

	if (text)
		*value = strtoull(text, NULL, 0);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "seed", required_argument, NULL, 's' }, { "ops", required_argument, NULL, 'o' },
		{ "replay", required_argument, NULL, 'r' }, { "model", no_argument, NULL, 'm' },
		{ NULL, 0, NULL, 0 },
	};
	const char *file = NULL, *error = optable_parse(optable_spec, &table);
	bool model_only = false;
	unsigned int i;
	int opt;

	from_environment("ELASTIC_SEED", &seed);
	from_environment("ELASTIC_OPS", &ops_wanted);
	while ((opt = getopt_long(argc, argv, "", options, NULL)) >= 0) {
		switch (opt) {
		case 's':
			seed = strtoull(optarg, NULL, 0);
			break;
		case 'o':
			ops_wanted = strtoull(optarg, NULL, 0);
			break;
		case 'r':
			file = optarg;
			break;
		case 'm':
			model_only = true;
			break;
		default:
			fprintf(stderr, "hostile [--seed N] [--ops N] [--replay FILE] [--model]\n");
			return 2;
		}
	}
	if (error)
		ktap_bail("the table of statuses: %s", error);
	if (!file)
		self_check();
	if (model_only)
		return ktap_finish();
	host_module_need();
	host_prepare();
	if (!file) {
		killed();
		first_hellos();
	}
	vms_prepare();
	if (file) {
		replay_file(file);
	} else {
		for (i = 0; i < sizeof(kept) / sizeof(*kept); i++)
			replay(kept[i].name, kept[i].text);
		populate_behind();
		if (ops_wanted)
			random_ones();
	}
	kg_free(vm);
	kg_free(other);
	return ktap_finish();
}
