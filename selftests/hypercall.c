// SPDX-License-Identifier: GPL-2.0-only
/*
 * Every operation with good, malformed, out-of-range, out-of-order and
 * wrong-cookie arguments, from every mode of the processor. Each call is held
 * against three things: the answer that is expected, the table of the
 * specification (a status that the table does not allow fails; one that it
 * allows and no call has seen fails, too), and the host's sysfs: an error
 * changes nothing but its counter, and any other answer counts its operation.
 */
#include <unistd.h>

#include "ktap.h"
#include "kvm_guest.h"
#include "optable.h"

#define RAM_UNITS	1024	/* 2 GiB: unit 0 is not in the ceiling */
#define HIGH_UNITS	16
#define HIGH_FIRST	(KG_HIGH >> ELASTIC_UNIT_SHIFT)
#define CEILING		(RAM_UNITS - 1 + HIGH_UNITS)
#define UNIT(n)		((u64)(n) << ELASTIC_UNIT_SHIFT)
#define FLASH_UNIT	(KG_FLASH >> ELASTIC_UNIT_SHIFT)

/* Not granted after hello(): units [16, 32), and all above 4 GiB */
#define ABSENT_FIRST	16
#define ABSENT_NR	16

#define ANY		(-1)
#define OK		ELASTIC_OK
#define PARTIAL		ELASTIC_PARTIAL
#define REFUSED		ELASTIC_REFUSED
#define INVAL		ELASTIC_E_INVAL
#define FAULT		ELASTIC_E_FAULT
#define NOSYS		ELASTIC_E_NOSYS
#define STALE		ELASTIC_E_STALE

static const struct elastic_range absent[] = {
	{ ABSENT_FIRST, ABSENT_NR }, { HIGH_FIRST, HIGH_UNITS },
};

static const char *const counters[] = {
	"hello", "report", "request", "release_cpu", "release_mem", "discard", "bye",
	"stale", "invalid", "fault", "nosys",
};

#define NR_COUNTERS (sizeof(counters) / sizeof(*counters))

static struct optable table;
static bool seen[ELASTIC_OP_NR + 1][OPT_NR];
static struct kg_vm *vm;
static struct kg_vcpu *bsp;

static void put(u64 gpa, const void *data, size_t size)
{
	memcpy(kg_hva(vm, gpa), data, size);
}

static unsigned int row_of(u64 rbx)
{
	u64 op = rbx & ELASTIC_OP_MASK;

	return op < ELASTIC_OP_NR ? (unsigned int)op : OPTABLE_UNKNOWN;
}

/* Remember what was answered; false: the table does not allow it */
static bool note(u64 rbx, s64 value)
{
	unsigned int op = row_of(rbx);
	int status = optable_status(value);

	if (status < 0) {
		ktap_diag("%lld is no status", (long long)value);
		return false;
	}
	seen[op][status] = true;
	if (table.allowed[op][status] || table.common[status])
		return true;
	ktap_diag("the specification does not let %s answer %s",
		  optable_ops[op].name, optable_statuses[status].name);
	return false;
}

static void read_counters(s64 *values)
{
	char file[64];
	unsigned int i;

	for (i = 0; i < NR_COUNTERS; i++) {
		snprintf(file, sizeof(file), "stats/%s", counters[i]);
		values[i] = vm->dir[0] ? kg_stat(vm, file) : 0;
	}
}

/* The counter that an answer moves; NULL: none */
static const char *counter_of(u64 rbx, s64 status)
{
	switch (status) {
	case STALE: return "stale";
	case INVAL: return "invalid";
	case FAULT: return "fault";
	case NOSYS: return "nosys";
	}
	return status >= 0 ? counters[row_of(rbx)] : NULL;
}

static bool check_counters(u64 rbx, s64 status, const s64 *before)
{
	const char *mover = counter_of(rbx, status);
	s64 after[NR_COUNTERS];
	bool good = true;
	unsigned int i;

	/* A VM that never said HELLO has no record to count in */
	if (!vm->dir[0])
		return true;
	read_counters(after);
	for (i = 0; i < NR_COUNTERS; i++) {
		s64 want = before[i] + (mover && !strcmp(mover, counters[i]));

		if (after[i] == want)
			continue;
		ktap_diag("stats/%s went from %lld to %lld", counters[i],
			  (long long)before[i], (long long)after[i]);
		good = false;
	}
	return good;
}

static void show(const struct kg_answer *a)
{
	ktap_diag("status %lld, rbx 0x%llx, rcx 0x%llx, rdx 0x%llx%s", (long long)a->status,
		  (unsigned long long)a->rbx, (unsigned long long)a->rcx,
		  (unsigned long long)a->rdx, a->kept ? "" : ", other registers changed");
}

/*
 * One call, one result. @reason: RBX, @rcx: RCX, as far as they are not ANY; an
 * error has 0 in RDX, and in RCX but for the index of a bad range.
 */
static struct kg_answer expect(struct kg_vcpu *vcpu, const char *what, u64 rbx, u64 cookie,
			       u64 rdx, u64 rsi, s64 status, s64 reason, s64 rcx)
{
	char *before = kg_snapshot(vm), *after;
	s64 counts[NR_COUNTERS];
	struct kg_answer a;
	bool good;

	read_counters(counts);
	a = kg_call(vcpu, rbx, cookie, rdx, rsi);
	after = kg_snapshot(vm);
	good = note(rbx, a.status) && a.kept && a.status == status &&
	       (reason == ANY || a.rbx == (u64)reason) && (rcx == ANY || a.rcx == (u64)rcx);
	good = good && (a.status >= 0 || !a.rdx);
	if (!good)
		show(&a);
	if (a.status < 0 && strcmp(before, after)) {
		ktap_diag("an error changed something:");
		ktap_diag("before: %s", before);
		ktap_diag("after: %s", after);
		good = false;
	}
	if (!check_counters(rbx, a.status, counts))
		good = false;
	ktap_ok(good, "%s: %s", optable_ops[row_of(rbx)].name, what);
	free(before);
	free(after);
	return a;
}

static void hello(void)
{
	kg_must_hello(bsp, 1, absent, 2);
	note(ELASTIC_OP_HELLO, OK);
}

/* Back to a VM that was just reset and has said HELLO */
static void afresh(void)
{
	kg_reset(vm);
	hello();
}

/* HELLO's argument */

struct hello_args {
	struct elastic_hello h;
	u64 words[80];
	struct elastic_range ranges[520];
	unsigned int nr_words, nr_ranges;	/* that are really there */
	u64 rbx, cookie, address;
	s64 more;	/* RSI says this much more than there is */
	bool length_set;
	u64 length;
};

static struct hello_args good_hello(void)
{
	struct hello_args g = {
		.h = { .version_min = 1, .version_max = 1, .nr_cpu_words = 1, .nr_ranges = 2,
		       .features = ELASTIC_FEAT_CPU | ELASTIC_FEAT_MEM },
		.words = { 1 },
		.ranges = { absent[0], absent[1] },
		.nr_words = 1, .nr_ranges = 2,
		.address = KG_ARGS,
	};

	return g;
}

static struct kg_answer hello_case(struct kg_vcpu *vcpu, const char *what,
				   const struct hello_args *g, s64 status, s64 reason, s64 rcx)
{
	static u8 buffer[KG_ARGS_SIZE];
	size_t size = 0;
	void *hva = kg_hva(vm, g->address);
	struct kg_answer a;

	memcpy(buffer, &g->h, sizeof(g->h));
	size += sizeof(g->h);
	memcpy(buffer + size, g->words, g->nr_words * sizeof(u64));
	size += g->nr_words * sizeof(u64);
	memcpy(buffer + size, g->ranges, g->nr_ranges * sizeof(*g->ranges));
	size += g->nr_ranges * sizeof(*g->ranges);
	/* What no RAM is behind cannot be written, and need not be */
	if (hva && kg_hva(vm, g->address + size))
		memcpy(hva, buffer, size);
	a = expect(vcpu, what, g->rbx, g->cookie, g->address,
		   g->length_set ? g->length : size + (u64)g->more, status, reason, rcx);
	return a;
}

#define HELLO_CASE(what, status, reason, rcx, ...) ({			\
	struct hello_args g = good_hello();				\
	__VA_ARGS__;							\
	hello_case(bsp, what, &g, status, reason, rcx); })

/* Malformed whatever the state of the VM */
static void hello_malformed(const char *state)
{
	unsigned int i;

	ktap_diag("HELLO, malformed, %s", state);
	HELLO_CASE("length 0", INVAL, ELASTIC_R_LENGTH, 0, g.length_set = true);
	HELLO_CASE("length below the struct's", INVAL, ELASTIC_R_LENGTH, 0,
		   g.length_set = true, g.length = 31);
	HELLO_CASE("length without the arrays", INVAL, ELASTIC_R_LENGTH, 0,
		   g.length_set = true, g.length = 32);
	HELLO_CASE("8 bytes too short", INVAL, ELASTIC_R_LENGTH, 0, g.more = -8);
	HELLO_CASE("1 byte too long", INVAL, ELASTIC_R_LENGTH, 0, g.more = 1);
	HELLO_CASE("16 bytes too long", INVAL, ELASTIC_R_LENGTH, 0, g.more = 16);
	HELLO_CASE("length 1 GiB", INVAL, ELASTIC_R_LENGTH, 0,
		   g.length_set = true, g.length = 1 << 30);
	HELLO_CASE("length 2^64 - 1", INVAL, ELASTIC_R_LENGTH, 0,
		   g.length_set = true, g.length = ~0ULL);
	HELLO_CASE("65 words of vCPUs", INVAL, ELASTIC_R_LENGTH, 0,
		   g.h.nr_cpu_words = g.nr_words = 65);
	HELLO_CASE("513 ranges", INVAL, ELASTIC_R_LENGTH, 0,
		   g.h.nr_ranges = g.nr_ranges = 513;
		   for (i = 0; i < 513; i++)
			   g.ranges[i] = (struct elastic_range) { 1 + 2 * i, 1 });
	HELLO_CASE("2^32 - 1 words", INVAL, ELASTIC_R_LENGTH, 0, g.h.nr_cpu_words = ~0U);
	HELLO_CASE("2^32 - 1 ranges", INVAL, ELASTIC_R_LENGTH, 0, g.h.nr_ranges = ~0U);
	/* Lengths that would wrap around in 32 bits */
	HELLO_CASE("2^29 + 1 words", INVAL, ELASTIC_R_LENGTH, 0,
		   g.h.nr_cpu_words = (1U << 29) + 1);
	HELLO_CASE("2^28 + 2 ranges", INVAL, ELASTIC_R_LENGTH, 0,
		   g.h.nr_ranges = (1U << 28) + 2);
	HELLO_CASE("address not a multiple of 8", INVAL, ELASTIC_R_LENGTH, 0, g.address += 4);
	HELLO_CASE("address odd", INVAL, ELASTIC_R_LENGTH, 0, g.address += 1);
	HELLO_CASE("reserved field", INVAL, ELASTIC_R_RESERVED, 0, g.h.reserved = 1);
	HELLO_CASE("reserved field, last bit", INVAL, ELASTIC_R_RESERVED, 0,
		   g.h.reserved = 1ULL << 63);
	HELLO_CASE("a cookie", INVAL, ELASTIC_R_RESERVED, 0, g.cookie = 1);
	HELLO_CASE("a word index", INVAL, ELASTIC_R_RESERVED, 0,
		   g.rbx = KG_OP(ELASTIC_OP_HELLO, 1, 0, 0));
	HELLO_CASE("a number of vCPUs", INVAL, ELASTIC_R_RESERVED, 0,
		   g.rbx = KG_OP(ELASTIC_OP_HELLO, 0, 1, 0));
	HELLO_CASE("the flag WHOLE", INVAL, ELASTIC_R_RESERVED, 0,
		   g.rbx = KG_OP(ELASTIC_OP_HELLO, 0, 0, ELASTIC_F_WHOLE));
	HELLO_CASE("the caller is not held", INVAL, ANY, 0, g.words[0] = 2);
	HELLO_CASE("no vCPU is held", INVAL, ANY, 0, g.words[0] = 0);
	HELLO_CASE("no words of vCPUs", INVAL, ANY, 0, g.h.nr_cpu_words = g.nr_words = 0);
	HELLO_CASE("lowest version above highest", INVAL, ANY, 0,
		   g.h.version_min = 2, g.h.version_max = 1);
	HELLO_CASE("an empty range", INVAL, ELASTIC_R_ORDER, 1, g.ranges[1].nr = 0);
	HELLO_CASE("descending ranges", INVAL, ELASTIC_R_ORDER, 1,
		   g.ranges[0].first = 40, g.ranges[1].first = 10, g.ranges[1].nr = 4);
	HELLO_CASE("overlapping ranges", INVAL, ELASTIC_R_ORDER, 1, g.ranges[1].first = 31);
	HELLO_CASE("the same range twice", INVAL, ELASTIC_R_ORDER, 1, g.ranges[1] = g.ranges[0]);
	HELLO_CASE("a range that begins at ELASTIC_MAX_UNIT", INVAL, ELASTIC_R_ORDER, 1,
		   g.ranges[1].first = ELASTIC_MAX_UNIT, g.ranges[1].nr = 1);
	HELLO_CASE("a range that ends behind ELASTIC_MAX_UNIT", INVAL, ELASTIC_R_ORDER, 1,
		   g.ranges[1].first = ELASTIC_MAX_UNIT - 1, g.ranges[1].nr = 2);
	HELLO_CASE("a range that wraps around", INVAL, ELASTIC_R_ORDER, 1,
		   g.ranges[1].first = 64, g.ranges[1].nr = -32ULL);
	HELLO_CASE("a range of 2^64 - 1 units", INVAL, ELASTIC_R_ORDER, 0,
		   g.ranges[0].first = 1, g.ranges[0].nr = ~0ULL);
	HELLO_CASE("version 2 and up", REFUSED, ELASTIC_R_VERSION, 0,
		   g.h.version_min = 2, g.h.version_max = 9);
	HELLO_CASE("version 0", REFUSED, ELASTIC_R_VERSION, 0,
		   g.h.version_min = 0, g.h.version_max = 0);
}

/* Addresses that are not guest RAM: [address, address + size) is asked for */
static const struct {
	const char *what;
	u64 address;
	u64 back;	/* the argument begins as much before it */
	bool managed;	/* only when the grant is enforced */
} bad_places[] = {
	{ "in ROM", KG_ROM, 0, false },
	{ "in flash", KG_FLASH, 0, false },
	{ "across the end of flash", KG_HIGH, 16, false },
	{ "in a hole", 0xc0000000, 0, false },
	{ "across the end of RAM", UNIT(RAM_UNITS), 16, false },
	{ "across the end of RAM above 4 GiB", KG_HIGH + UNIT(HIGH_UNITS), 16, false },
	{ "behind all RAM", KG_HIGH + UNIT(HIGH_UNITS), 0, false },
	{ "at 512 GiB", 1ULL << 39, 0, false },
	{ "at 2^60", 1ULL << 60, 0, false },
	{ "at 2^63", 1ULL << 63, 0, false },
	{ "across 2^64", 0, 16, false },
	{ "in a unit that is not granted", UNIT(ABSENT_FIRST), 0, true },
	{ "in the middle of one", UNIT(ABSENT_FIRST + 3) + 0x12340, 0, true },
	{ "at the end of one", UNIT(ABSENT_FIRST + ABSENT_NR), 160, true },
	{ "across into one", UNIT(ABSENT_FIRST), 16, true },
	{ "across out of one", UNIT(ABSENT_FIRST + ABSENT_NR), 16, true },
};

static void bad_memory(u64 rbx, u64 cookie, u64 length, bool managed)
{
	char what[80];
	unsigned int i;

	for (i = 0; i < sizeof(bad_places) / sizeof(*bad_places); i++) {
		if (bad_places[i].managed && !managed)
			continue;
		snprintf(what, sizeof(what), "argument %s", bad_places[i].what);
		expect(bsp, what, rbx, cookie, bad_places[i].address - bad_places[i].back, length,
		       FAULT, ELASTIC_R_NONE, 0);
	}
}

#define HELLO_LEN (sizeof(struct elastic_hello) + 8 + 2 * sizeof(struct elastic_range))

static void before_hello(void)
{
	char path[64];
	u64 op;

	ktap_diag("a VM that never said HELLO");
	for (op = ELASTIC_OP_REPORT; op < ELASTIC_OP_NR; op++) {
		u64 rsi = op == ELASTIC_OP_REPORT ? 128 : op == ELASTIC_OP_RELEASE_MEM ? 1 : 0;
		u64 rdx = rsi ? KG_ARGS : 0;

		expect(bsp, "cookie 0", op, 0, rdx, rsi, STALE, ELASTIC_R_NONE, 0);
		expect(bsp, "some cookie", op, 0x123456789abcdef, rdx, rsi, STALE,
		       ELASTIC_R_NONE, 0);
	}
	expect(bsp, "number 7", 7, 0, 0, 0, NOSYS, ELASTIC_R_NONE, 0);
	expect(bsp, "number 0xffff", 0xffff, 0, 0, 0, NOSYS, ELASTIC_R_NONE, 0);
	hello_malformed("before any HELLO");
	bad_memory(ELASTIC_OP_HELLO, 0, HELLO_LEN, false);
	snprintf(path, sizeof(path), KG_SYSFS "/vms/%d", (int)getpid());
	ktap_ok(!access(KG_SYSFS "/vms", F_OK) && access(path, F_OK),
		"none of them made a directory for the VM");
}

static void hello_good(void)
{
	struct kg_answer a;
	u64 cookie;
	char list[64];

	ktap_diag("HELLO, good");
	a = kg_hello(bsp, 1, absent, 2);
	note(ELASTIC_OP_HELLO, a.status);
	if (!ktap_ok(a.status == OK && a.kept, "HELLO: the first one")) {
		show(&a);
		ktap_bail("no session");
	}
	cookie = a.rbx;
	ktap_ok(cookie != 0, "HELLO: the cookie is not 0");
	ktap_ok(a.rcx == (ELASTIC_FEAT_CPU | ELASTIC_FEAT_MEM | ELASTIC_FEAT_DISCARD),
		"HELLO: the features hold");
	ktap_eq((long long)a.rdx, 1, "HELLO: version 1");
	ktap_ok(!strcmp(kg_state(vm), "managed"), "state: %s", kg_state(vm));
	ktap_eq(kg_stat(vm, "cpu/ceiling"), 4, "cpu/ceiling");
	ktap_eq(kg_stat(vm, "cpu/grant"), 1, "cpu/grant");
	kg_file(vm, "cpu/list", list, sizeof(list));
	ktap_ok(!strcmp(list, "0"), "cpu/list: %s", list);
	ktap_eq(kg_stat(vm, "memory/ceiling_mib"), 2 * CEILING,
		"memory/ceiling_mib: RAM in whole units; no ROM, flash or VGA memory");
	ktap_eq(kg_stat(vm, "memory/grant_mib"), 2 * (CEILING - ABSENT_NR - HIGH_UNITS),
		"memory/grant_mib: without what is absent");

	HELLO_CASE("versions 0 to 5", OK, ANY, ANY, g.h.version_min = 0, g.h.version_max = 5);
	a = HELLO_CASE("versions 1 to 2^32 - 1", OK, ANY, ANY, g.h.version_max = ~0U);
	ktap_eq((long long)a.rdx, 1, "HELLO: version 1 is the highest both know");
	a = HELLO_CASE("all features", OK, ANY,
		       ELASTIC_FEAT_CPU | ELASTIC_FEAT_MEM | ELASTIC_FEAT_DISCARD |
		       ELASTIC_FEAT_HINT, g.h.features = ~0ULL);
	ktap_ok(a.rbx && a.rbx != cookie, "HELLO: another cookie");
	expect(bsp, "the old session's cookie", ELASTIC_OP_REQUEST, cookie, 0, 0, STALE,
	       ELASTIC_R_NONE, 0);
	HELLO_CASE("one feature", OK, ANY, ELASTIC_FEAT_MEM, g.h.features = ELASTIC_FEAT_MEM);
	HELLO_CASE("no feature", OK, ANY, 0, g.h.features = 0);
	HELLO_CASE("ranges that touch", OK, ANY, ANY,
		   g.ranges[0].nr = 8, g.ranges[1].first = 24, g.ranges[1].nr = 8);
	HELLO_CASE("ranges outside the ceiling", OK, ANY, ANY,
		   g.ranges[0].first = FLASH_UNIT, g.ranges[0].nr = 2,
		   g.ranges[1].first = ELASTIC_MAX_UNIT - 1, g.ranges[1].nr = 1);
	HELLO_CASE("vCPUs that the VMM did not create", OK, ANY, ANY, g.words[0] = ~0ULL);
	HELLO_CASE("64 words of vCPUs", OK, ANY, ANY, g.h.nr_cpu_words = g.nr_words = 64);
	HELLO_CASE("argument across a page", OK, ANY, ANY, g.address = KG_ARGS + 0x1000 - 40);
	HELLO_CASE("argument in unit 1", OK, ANY, ANY, g.address = UNIT(1) + 0x200);
	ktap_eq(kg_stat(vm, "cpu/grant"), 1, "none of them granted a vCPU");
	ktap_eq(kg_stat(vm, "memory/grant_mib"), 2 * (CEILING - ABSENT_NR - HIGH_UNITS),
		"none of them granted a unit");
}

/* A VM that is enforced cannot get more by another HELLO */
static void hello_again(void)
{
	struct elastic_range less = { 64, 4 };
	u64 cookie;

	ktap_diag("HELLO, again");
	afresh();
	HELLO_CASE("claims all vCPUs, lists no unit", OK, ANY, ANY,
		   g.words[0] = 0xf, g.h.nr_ranges = g.nr_ranges = 0);
	ktap_eq(kg_stat(vm, "cpu/grant"), 1, "managed: HELLO grants no vCPU");
	ktap_eq(kg_stat(vm, "memory/grant_mib"), 2 * (CEILING - ABSENT_NR - HIGH_UNITS),
		"managed: HELLO grants no unit");
	kg_must_hello(bsp, 1, &less, 1);
	ktap_eq(kg_stat(vm, "memory/grant_mib"), 2 * (CEILING - ABSENT_NR - HIGH_UNITS - 4),
		"managed: HELLO takes what is not held any more");
	cookie = vm->cookie;
	expect(bsp, "the session's end", ELASTIC_OP_BYE, cookie, 0, 0, OK, ELASTIC_R_NONE, 0);
	ktap_ok(!strcmp(kg_state(vm), "detached"), "state: %s", kg_state(vm));
	expect(bsp, "a second time", ELASTIC_OP_BYE, cookie, 0, 0, STALE, ELASTIC_R_NONE, 0);
	expect(bsp, "cookie after BYE", ELASTIC_OP_REQUEST, cookie, 2, 0, STALE,
	       ELASTIC_R_NONE, 0);
	expect(bsp, "cookie 0 after BYE", ELASTIC_OP_REQUEST, 0, 2, 0, STALE, ELASTIC_R_NONE, 0);
	HELLO_CASE("claims all, detached", OK, ANY, ANY,
		   g.words[0] = 0xf, g.h.nr_ranges = g.nr_ranges = 0);
	ktap_eq(kg_stat(vm, "cpu/grant"), 1, "detached: HELLO grants no vCPU");
	ktap_eq(kg_stat(vm, "memory/grant_mib"), 2 * (CEILING - ABSENT_NR - HIGH_UNITS - 4),
		"detached: HELLO grants no unit");
	expect(bsp, "cookie of before BYE", ELASTIC_OP_REQUEST, cookie, 2, 0, STALE,
	       ELASTIC_R_NONE, 0);
}

/* Bits that mean nothing, for every operation */
static void reserved_bits(void)
{
	u64 op;
	unsigned int bit;

	ktap_diag("reserved bits of RBX");
	afresh();
	for (op = ELASTIC_OP_REPORT; op < ELASTIC_OP_NR; op++) {
		bool cpus = op == ELASTIC_OP_REQUEST || op == ELASTIC_OP_RELEASE_CPU;
		u64 cookie = vm->cookie;

		for (bit = 48; bit < 63; bit += 7) {
			char what[32];

			snprintf(what, sizeof(what), "bit %u", bit);
			expect(bsp, what, op | 1ULL << bit, cookie, 0, 0, INVAL,
			       ELASTIC_R_RESERVED, 0);
		}
		expect(bsp, "all reserved bits", op | ELASTIC_RESERVED_MASK, cookie, 0, 0, INVAL,
		       ELASTIC_R_RESERVED, 0);
		expect(bsp, cpus ? "word 64" : "a word", KG_OP(op, cpus ? 64 : 1, 0, 0), cookie,
		       0, 0, INVAL, ANY, 0);
		expect(bsp, "word 0xffff", KG_OP(op, 0xffff, 0, 0), cookie, 0, 0, INVAL, ANY, 0);
		if (op == ELASTIC_OP_REQUEST)
			continue;
		expect(bsp, "a number of vCPUs", KG_OP(op, 0, 1, 0), cookie, 0, 0, INVAL,
		       ELASTIC_R_RESERVED, 0);
		expect(bsp, "the flag WHOLE", KG_OP(op, 0, 0, ELASTIC_F_WHOLE), cookie, 0, 0,
		       INVAL, ELASTIC_R_RESERVED, 0);
	}
}

static void cookies(void)
{
	u64 op, cookie;
	unsigned int i;

	ktap_diag("wrong cookies");
	afresh();
	cookie = vm->cookie;
	for (op = ELASTIC_OP_REPORT; op < ELASTIC_OP_NR; op++) {
		const u64 wrong[] = { 0, ~0ULL, cookie ^ 1, cookie ^ 1ULL << 63, cookie << 32 };
		u64 rsi = op == ELASTIC_OP_REPORT ? 128 : op == ELASTIC_OP_RELEASE_MEM ? 1 : 0;

		for (i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
			char what[40];

			snprintf(what, sizeof(what), "cookie 0x%llx", (unsigned long long)wrong[i]);
			expect(bsp, what, op, wrong[i], rsi ? KG_ARGS : 0, rsi, STALE,
			       ELASTIC_R_NONE, 0);
		}
	}
	expect(bsp, "cookie of before the reset", ELASTIC_OP_REQUEST, cookie, 0, 0, OK, 0, 0);
	kg_reset(vm);
	/* The accounts follow a moment later */
	kg_until(kg_stat(vm, "cpu/grant") == 4 && !host_stat("cpu/used") &&
		 kg_stat(vm, "memory/grant_mib") == kg_stat(vm, "memory/ceiling_mib") &&
		 kg_stat(vm, "memory/use_mib") == kg_stat(vm, "memory/ceiling_mib") &&
		 !host_stat("memory/used_mib"), 30000);
	expect(bsp, "the same after the reset", ELASTIC_OP_REQUEST, cookie, 0, 0, STALE, 0, 0);
	hello();
	expect(bsp, "and after the next HELLO", ELASTIC_OP_REQUEST, cookie, 0, 0, STALE, 0, 0);
}

static void reports(void)
{
	struct elastic_report r = {
		.period_ns = 1000000000, .cpus_online = 1, .units_online = 100,
	};
	const u64 granted = CEILING - ABSENT_NR - HIGH_UNITS;
	struct kg_answer a;
	char what[40];
	unsigned int i;

	ktap_diag("REPORT");
	afresh();
	put(KG_ARGS, &r, sizeof(r));
	a = expect(bsp, "good", ELASTIC_OP_REPORT, vm->cookie, KG_ARGS, sizeof(r), OK,
		   (s64)(1ULL << 32 | 4), CEILING);
	ktap_eq((long long)a.rdx, granted, "REPORT: units granted now");
	ktap_eq(kg_stat(vm, "cpu/use"), 1, "cpu/use");
	ktap_eq(kg_stat(vm, "memory/use_mib"), 200, "memory/use_mib");
	expect(bsp, "the same again", ELASTIC_OP_REPORT, vm->cookie, KG_ARGS, sizeof(r), OK,
	       (s64)(1ULL << 32 | 4), CEILING);
	/* A claim may not bring the use above the grant */
	r.cpus_online = 4000000000U;
	r.units_online = ~0ULL;
	put(KG_ARGS, &r, sizeof(r));
	expect(bsp, "more in use than there is", ELASTIC_OP_REPORT, vm->cookie, KG_ARGS,
	       sizeof(r), OK, (s64)(1ULL << 32 | 4), CEILING);
	ktap_ok(kg_stat(vm, "cpu/use") <= 1, "cpu/use stays within the grant");
	ktap_ok(kg_stat(vm, "memory/use_mib") <= (s64)(2 * granted),
		"memory/use_mib stays within the grant");
	memset(&r, 0xff, sizeof(r) - sizeof(r.reserved));
	put(KG_ARGS, &r, sizeof(r));
	expect(bsp, "nonsense in every field", ELASTIC_OP_REPORT, vm->cookie, KG_ARGS,
	       sizeof(r), OK, (s64)(1ULL << 32 | 4), CEILING);
	for (i = 0; i < 4; i++) {
		memset(&r, 0, sizeof(r));
		r.reserved[i] = 1ULL << (i * 21);
		put(KG_ARGS, &r, sizeof(r));
		snprintf(what, sizeof(what), "reserved word %u", i);
		expect(bsp, what, ELASTIC_OP_REPORT, vm->cookie, KG_ARGS, sizeof(r), INVAL,
		       ELASTIC_R_RESERVED, 0);
	}
	memset(&r, 0, sizeof(r));
	put(KG_ARGS, &r, sizeof(r));
	for (i = 0; i < 6; i++) {
		static const u64 lengths[] = { 0, 1, 120, 127, 136, ~0ULL };

		snprintf(what, sizeof(what), "length %lld", (long long)lengths[i]);
		expect(bsp, what, ELASTIC_OP_REPORT, vm->cookie, KG_ARGS, lengths[i], INVAL,
		       ELASTIC_R_LENGTH, 0);
	}
	expect(bsp, "address not a multiple of 8", ELASTIC_OP_REPORT, vm->cookie, KG_ARGS + 4,
	       sizeof(r), INVAL, ELASTIC_R_LENGTH, 0);
	bad_memory(ELASTIC_OP_REPORT, vm->cookie, sizeof(r), true);
	/* The last bytes before the units that are not granted */
	put(UNIT(ABSENT_FIRST) - sizeof(r), &r, sizeof(r));
	expect(bsp, "argument up to the end of a granted unit", ELASTIC_OP_REPORT, vm->cookie,
	       UNIT(ABSENT_FIRST) - sizeof(r), sizeof(r), OK, ANY, ANY);
}

/* REQUEST, with what is granted afterwards */
static struct kg_answer ask(const char *what, u64 flags, u64 ncpus, u64 word, u64 cpus, u64 first,
			    u64 nr, s64 status, u64 cpu_reason, u64 mem_reason, u64 got_cpus,
			    u64 got_units)
{
	struct kg_answer a;

	a = expect(bsp, what, KG_OP(ELASTIC_OP_REQUEST, word, ncpus, flags), vm->cookie, cpus,
		   nr ? ELASTIC_RANGE(first, nr) : 0, status,
		   (s64)(cpu_reason | mem_reason << 16), (s64)got_cpus);
	if (a.status >= 0)
		ktap_eq((long long)a.rdx, (long long)got_units, "REQUEST: %s: units", what);
	return a;
}

static void requests(void)
{
	const u64 base = CEILING - ABSENT_NR - HIGH_UNITS;
	const u64 last = ELASTIC_MAX_UNIT - 1;
	struct kg_answer a;

	ktap_diag("REQUEST");
	afresh();
	ask("nothing", 0, 0, 0, 0, 0, 0, OK, 0, 0, 0, 0);
	ask("what is granted", 0, 0, 0, 1, 1, 15, OK, 0, 0, 1, 15);
	ask("a vCPU", 0, 0, 0, 2, 0, 0, OK, 0, 0, 2, 0);
	ktap_eq(kg_stat(vm, "cpu/grant"), 2, "cpu/grant");
	ask("the same again", 0, 0, 0, 2, 0, 0, OK, 0, 0, 2, 0);
	ktap_eq(kg_stat(vm, "cpu/grant"), 2, "cpu/grant is the same");
	ask("one of two that are granted", 0, 1, 0, 3, 0, 0, OK, 0, 0, 3, 0);
	a = kg_call(bsp, KG_OP(ELASTIC_OP_REQUEST, 0, 3, 0), vm->cookie, 0xf, 0);
	note(ELASTIC_OP_REQUEST, a.status);
	ktap_ok(a.status == OK && !a.rbx && __builtin_popcountll(a.rcx) == 3 && (a.rcx & 3) == 3,
		"REQUEST: three of four, two of them granted: 0x%llx", (unsigned long long)a.rcx);
	ktap_eq(kg_stat(vm, "cpu/grant"), 3, "cpu/grant");
	ask("units", 0, 0, 0, 0, 16, 4, OK, 0, 0, 0, 4);
	ktap_eq(kg_stat(vm, "memory/grant_mib"), (long long)(2 * (base + 4)), "memory/grant_mib");
	ask("the same and more", 0, 0, 0, 0, 14, 8, OK, 0, 0, 0, 8);
	ktap_eq(kg_stat(vm, "memory/grant_mib"), (long long)(2 * (base + 6)), "memory/grant_mib");
	ask("units above 4 GiB, and a vCPU", 0, 0, 0, 0xf, HIGH_FIRST, HIGH_UNITS, OK, 0, 0, 0xf,
	    HIGH_UNITS);

	ktap_diag("REQUEST, beyond the ceiling");
	afresh();
	ask("a vCPU that is not there", 0, 0, 0, 1 << 10, 0, 0, REFUSED, ELASTIC_R_CEILING, 0, 0,
	    0);
	ask("word 1", 0, 0, 1, 1, 0, 0, REFUSED, ELASTIC_R_CEILING, 0, 0, 0);
	ask("word 63", 0, 0, 63, 1ULL << 63, 0, 0, REFUSED, ELASTIC_R_CEILING, 0, 0, 0);
	ask("one vCPU that is there and one that is not", 0, 0, 0, 1 << 10 | 2, 0, 0, PARTIAL,
	    ELASTIC_R_CEILING, 0, 2, 0);
	ask("unit 0", 0, 0, 0, 0, 0, 1, REFUSED, 0, ELASTIC_R_CEILING, 0, 0);
	ask("a unit of flash", 0, 0, 0, 0, FLASH_UNIT, 1, REFUSED, 0, ELASTIC_R_CEILING, 0, 0);
	ask("the last unit there can be", 0, 0, 0, 0, last, 1, REFUSED, 0, ELASTIC_R_CEILING, 0,
	    0);
	ask("across the end of RAM", 0, 0, 0, 0, RAM_UNITS - 4, 8, PARTIAL, 0, ELASTIC_R_CEILING,
	    0, 4);
	ask("as many units as can be asked for", 0, 0, 0, 0, HIGH_FIRST, ELASTIC_RANGE_NR_MAX,
	    PARTIAL, 0, ELASTIC_R_CEILING, 0, HIGH_UNITS);
	ask("vCPU beyond, units within", 0, 0, 0, 1 << 10, 16, 1, PARTIAL, ELASTIC_R_CEILING, 0,
	    0, 1);
	ask("vCPU within, units beyond", 0, 0, 0, 4, FLASH_UNIT, 1, PARTIAL, 0,
	    ELASTIC_R_CEILING, 4, 0);

	ktap_diag("REQUEST, malformed");
	expect(bsp, "more vCPUs than are in the set", KG_OP(ELASTIC_OP_REQUEST, 0, 3, 0),
	       vm->cookie, 3, 0, INVAL, ANY, 0);
	expect(bsp, "65535 vCPUs", KG_OP(ELASTIC_OP_REQUEST, 0, 0xffff, 0), vm->cookie, ~0ULL, 0,
	       INVAL, ANY, 0);
	expect(bsp, "no units, from unit 5 on", ELASTIC_OP_REQUEST, vm->cookie, 0,
	       ELASTIC_RANGE(5, 0), INVAL, ANY, 0);
	expect(bsp, "a unit at ELASTIC_MAX_UNIT", ELASTIC_OP_REQUEST, vm->cookie, 0,
	       ELASTIC_RANGE(ELASTIC_MAX_UNIT, 1), INVAL, ANY, 0);
	expect(bsp, "the highest first unit", ELASTIC_OP_REQUEST, vm->cookie, 0,
	       ELASTIC_RANGE((1ULL << 40) - 1, 1), INVAL, ANY, 0);
}

/* What a REQUEST without WHOLE would have got, beside the reason for memory */
#define COULD(cpus, units) \
	((u64)(cpus) << (ELASTIC_COULD_CPUS_SHIFT - 16) | \
	 (u64)(units) << (ELASTIC_COULD_UNITS_SHIFT - 16))

static void whole_requests(void)
{
	const u64 w = ELASTIC_F_WHOLE;
	const u64 base = CEILING - ABSENT_NR - HIGH_UNITS;

	ktap_diag("REQUEST, all or nothing");
	afresh();
	ask("whole: both halves", w, 0, 0, 3, 16, 2, OK, 0, 0, 3, 2);
	ask("whole: vCPU not there", w, 0, 0, 1 << 10 | 4, 20, 2, REFUSED, ELASTIC_R_CEILING,
	    ELASTIC_R_WHOLE | COULD(1, 2), 0, 0);
	ask("whole: unit not there", w, 0, 0, 4, 0, 1, REFUSED, ELASTIC_R_WHOLE,
	    ELASTIC_R_CEILING | COULD(1, 0), 0, 0);
	ask("whole: no more units than there are", w, 0, 0, 4, RAM_UNITS - 2, 4, REFUSED,
	    ELASTIC_R_WHOLE, ELASTIC_R_CEILING | COULD(1, 2), 0, 2);
	ask("whole: one of the vCPUs granted before", w, 0, 0, 1 << 10 | 2, 0, 0, REFUSED,
	    ELASTIC_R_CEILING, COULD(1, 0), 2, 0);
	ask("whole: some of the units granted before", w, 0, 0, 1 << 10, 14, 8, REFUSED,
	    ELASTIC_R_CEILING, ELASTIC_R_WHOLE | COULD(0, 8), 0, 4);
	ktap_eq(kg_stat(vm, "cpu/grant"), 2, "refused as a whole: cpu/grant is the same");
	ktap_eq(kg_stat(vm, "memory/grant_mib"), (long long)(2 * (base + 2)),
		"refused as a whole: memory/grant_mib is the same");
}

static void set(const char *file, s64 value)
{
	char text[32];
	int ret;

	snprintf(text, sizeof(text), "%lld", (long long)value);
	ret = kg_write(vm, file, text);
	if (ret)
		ktap_bail("writing %s to %s: %s", text, file, strerror(-ret));
}

static void set_pool(const char *file, s64 value)
{
	char text[32];
	int ret;

	snprintf(text, sizeof(text), "%lld", (long long)value);
	ret = host_write(file, text);
	if (ret)
		ktap_bail("writing %s to %s: %s", text, file, strerror(-ret));
}

static s64 pool_was;

static void restore_pool(void)
{
	set_pool("memory/pool_mib", pool_was);
}

/* The VM's ceiling costs nothing, so the host may have less: its pool is not to matter */
static void need_pool(void)
{
	pool_was = host_stat("memory/pool_mib");
	if (pool_was >= 2 * CEILING)
		return;
	set_pool("memory/pool_mib", 2 * CEILING);
	atexit(restore_pool);
}

static void limits(void)
{
	const u64 base = CEILING - ABSENT_NR - HIGH_UNITS;
	s64 cpu_pool = host_stat("cpu/pool"), mem_pool = host_stat("memory/pool_mib");
	s64 max, pool, ceiling;
	struct kg_answer a;

	ktap_diag("REQUEST, limits");
	afresh();
	max = kg_stat(vm, "stats/refused_max");
	pool = kg_stat(vm, "stats/refused_pool");
	ceiling = kg_stat(vm, "stats/refused_ceiling");
	set("cpu/max", 2);
	ask("three vCPUs of at most two", 0, 3, 0, 7, 0, 0, PARTIAL, ELASTIC_R_MAX, 0, 3, 0);
	ask("a vCPU at the maximum", 0, 0, 0, 4, 0, 0, REFUSED, ELASTIC_R_MAX, 0, 0, 0);
	ask("whole: over the maximum", ELASTIC_F_WHOLE, 0, 0, 4, 16, 1, REFUSED, ELASTIC_R_MAX,
	    ELASTIC_R_WHOLE | COULD(0, 1), 0, 0);
	set("memory/max_mib", (s64)(2 * (base + 3)));
	ask("five units of at most three more", 0, 0, 0, 0, 16, 5, PARTIAL, 0, ELASTIC_R_MAX, 0,
	    3);
	ask("one more", 0, 0, 0, 0, 19, 1, REFUSED, 0, ELASTIC_R_MAX, 0, 0);
	a = kg_report(bsp);
	note(ELASTIC_OP_REPORT, a.status);
	ktap_ok((a.rbx & 0xffffffff) == 2 && a.rcx == base + 3,
		"REPORT: the targets are the maximums");
	set("cpu/max", 1);
	a = kg_report(bsp);
	ktap_ok((a.rbx & 0xffffffff) == 1 && a.rbx >> 32 == 2,
		"REPORT: a maximum below the grant is the target");
	ktap_eq(kg_stat(vm, "cpu/grant"), 2, "and takes nothing away");
	set("cpu/max", 4);
	set("memory/max_mib", 2 * CEILING);
	ktap_eq(kg_stat(vm, "stats/refused_max") - max, 5, "stats/refused_max");

	set_pool("cpu/pool", host_stat("cpu/used") + 1);
	ask("two vCPUs of a pool of one", 0, 0, 0, 0xc, 0, 0, PARTIAL, ELASTIC_R_POOL, 0, 4, 0);
	ask("a vCPU of an empty pool", 0, 0, 0, 8, 0, 0, REFUSED, ELASTIC_R_POOL, 0, 0, 0);
	set_pool("memory/pool_mib", host_stat("memory/used_mib") + 4);
	ask("four units of a pool of two", 0, 0, 0, 0, 20, 4, PARTIAL, 0, ELASTIC_R_POOL, 0, 2);
	ask("a unit of an empty pool", 0, 0, 0, 0, 22, 1, REFUSED, 0, ELASTIC_R_POOL, 0, 0);
	set_pool("cpu/pool", 0);
	ask("a vCPU of an overdrawn pool", 0, 0, 0, 8, 0, 0, REFUSED, ELASTIC_R_POOL, 0, 0, 0);
	set_pool("cpu/pool", cpu_pool);
	set_pool("memory/pool_mib", mem_pool);
	ktap_eq(kg_stat(vm, "stats/refused_pool") - pool, 5, "stats/refused_pool");
	ask("when the pool is full again", 0, 0, 0, 8, 20, 4, OK, 0, 0, 8, 4);
	ktap_eq(kg_stat(vm, "stats/refused_ceiling") - ceiling, 0, "stats/refused_ceiling");
	ask("beyond the ceiling", 0, 0, 0, 1 << 10, 0, 1, REFUSED, ELASTIC_R_CEILING,
	    ELASTIC_R_CEILING, 0, 0);
	ktap_eq(kg_stat(vm, "stats/refused_ceiling") - ceiling, 2,
		"stats/refused_ceiling counts both halves");
}

static void release_cpus(void)
{
	const u64 op = ELASTIC_OP_RELEASE_CPU;

	ktap_diag("RELEASE_CPU");
	afresh();
	kg_request(bsp, 0xf, 0, 0);
	expect(bsp, "itself", op, vm->cookie, 1, 0, INVAL, ELASTIC_R_SELF, 0);
	expect(bsp, "itself and others", op, vm->cookie, 0xf, 0, INVAL, ELASTIC_R_SELF, 0);
	expect(bsp, "all vCPUs there can be", op, vm->cookie, ~0ULL, 0, INVAL, ELASTIC_R_SELF, 0);
	expect(bsp, "a vCPU", op, vm->cookie, 4, 0, OK, ELASTIC_R_NONE, 0xb);
	ktap_eq(kg_stat(vm, "cpu/grant"), 3, "cpu/grant");
	expect(bsp, "the same again", op, vm->cookie, 4, 0, OK, ELASTIC_R_NONE, 0xb);
	ktap_eq(kg_stat(vm, "cpu/grant"), 3, "cpu/grant is the same");
	expect(bsp, "none", op, vm->cookie, 0, 0, OK, ELASTIC_R_NONE, 0xb);
	expect(bsp, "vCPUs that are not there", op, vm->cookie, ~0xfULL, 0, OK, ELASTIC_R_NONE,
	       0xb);
	expect(bsp, "word 1", KG_OP(op, 1, 0, 0), vm->cookie, ~0ULL, 0, OK, ELASTIC_R_NONE, 0);
	expect(bsp, "word 63", KG_OP(op, 63, 0, 0), vm->cookie, ~0ULL, 0, OK, ELASTIC_R_NONE, 0);
	expect(bsp, "granted ones and others", op, vm->cookie, 0xe, 0, OK, ELASTIC_R_NONE, 1);
	ktap_eq(kg_stat(vm, "cpu/grant"), 1, "cpu/grant");
}

#define RANGES(op, what, status, reason, index, ...) ({				\
	const struct elastic_range r_[] = { __VA_ARGS__ };			\
	put(KG_ARGS, r_, sizeof(r_));						\
	expect(bsp, what, op, vm->cookie, KG_ARGS, sizeof(r_) / sizeof(*r_),	\
	       status, reason, index); })
#define RELEASE(...)	RANGES(ELASTIC_OP_RELEASE_MEM, __VA_ARGS__)
#define DISCARD(...)	RANGES(ELASTIC_OP_DISCARD, __VA_ARGS__)

/* Refused as a whole, with the index of the first bad range. */
static void malformed_ranges(u64 op)
{
	const u64 base = CEILING - ABSENT_NR - HIGH_UNITS;
	unsigned int i;

	afresh();
	put(KG_ARGS, &(struct elastic_range) { 64, 1 }, sizeof(struct elastic_range));
	for (i = 0; i < 5; i++) {
		static const u64 counts[] = { 0, 513, 1ULL << 32, 1ULL << 60, ~0ULL };
		char what[40];

		snprintf(what, sizeof(what), "%llu ranges", (unsigned long long)counts[i]);
		expect(bsp, what, op, vm->cookie, KG_ARGS, counts[i], INVAL,
		       ELASTIC_R_LENGTH, 0);
	}
	expect(bsp, "address not a multiple of 8", op, vm->cookie,
	       KG_ARGS + 4, 1, INVAL, ELASTIC_R_LENGTH, 0);
	bad_memory(op, vm->cookie, 2, true);
	RANGES(op, "an empty range", INVAL, ELASTIC_R_ORDER, 0, { 64, 0 });
	RANGES(op, "an empty range at the end", INVAL, ELASTIC_R_ORDER, 2, { 64, 1 }, { 66, 1 },
		{ 70, 0 });
	RANGES(op, "descending ranges", INVAL, ELASTIC_R_ORDER, 1, { 64, 1 }, { 60, 1 });
	RANGES(op, "overlapping ranges", INVAL, ELASTIC_R_ORDER, 1, { 64, 4 }, { 67, 1 });
	RANGES(op, "the same range twice", INVAL, ELASTIC_R_ORDER, 1, { 64, 1 }, { 64, 1 });
	RANGES(op, "a range at ELASTIC_MAX_UNIT", INVAL, ANY, 1, { 64, 1 }, { ELASTIC_MAX_UNIT, 1 });
	RANGES(op, "a range across it", INVAL, ANY, 0, { ELASTIC_MAX_UNIT - 1, 2 });
	RANGES(op, "a range that wraps around", INVAL, ANY, 1, { 64, 1 }, { 70, -60ULL });
	RANGES(op, "2^64 - 1 units", INVAL, ANY, 0, { 64, ~0ULL });
	RANGES(op, "unit 0", INVAL, ANY, 0, { 0, 1 });
	RANGES(op, "a unit of flash", INVAL, ANY, 1, { 64, 1 }, { FLASH_UNIT, 1 });
	RANGES(op, "across the end of RAM", INVAL, ANY, 0, { RAM_UNITS - 1, 2 });
	RANGES(op, "a unit that is not granted", INVAL, ELASTIC_R_NOT_GRANTED, 0, { 16, 1 });
	RANGES(op, "granted ones and others", INVAL, ELASTIC_R_NOT_GRANTED, 1, { 8, 1 }, { 14, 4 });
	ktap_eq(kg_stat(vm, "memory/grant_mib"), (long long)(2 * base),
		"refused as a whole: memory/grant_mib is the same");
}

static void release_mem(void)
{
	static struct elastic_range many[513];
	const u64 base = CEILING - ABSENT_NR - HIGH_UNITS;
	struct kg_answer a;
	unsigned int i;

	ktap_diag("RELEASE_MEM, malformed");
	malformed_ranges(ELASTIC_OP_RELEASE_MEM);
	ktap_diag("RELEASE_MEM");
	a = RELEASE("a unit", OK, ELASTIC_R_NONE, 0, { 64, 1 });
	ktap_eq((long long)a.rdx, 1, "RELEASE_MEM: units that the host took back");
	ktap_eq(kg_stat(vm, "memory/grant_mib"), (long long)(2 * (base - 1)), "memory/grant_mib");
	RELEASE("the same again", INVAL, ELASTIC_R_NOT_GRANTED, 0, { 64, 1 });
	a = RELEASE("ranges that touch", OK, ELASTIC_R_NONE, 0, { 70, 2 }, { 72, 2 });
	ktap_eq((long long)a.rdx, 4, "RELEASE_MEM: units that the host took back");
	RELEASE("one of them among others", INVAL, ELASTIC_R_NOT_GRANTED, 1, { 65, 1 },
		{ 73, 1 });

	/* The argument lies in what is released: it is granted until then */
	put(UNIT(80), &(struct elastic_range) { 80, 1 }, sizeof(struct elastic_range));
	expect(bsp, "the unit of the argument itself", ELASTIC_OP_RELEASE_MEM, vm->cookie,
	       UNIT(80), 1, OK, ELASTIC_R_NONE, 0);
	expect(bsp, "an argument in a unit just released", ELASTIC_OP_RELEASE_MEM, vm->cookie,
	       UNIT(80), 1, FAULT, ELASTIC_R_NONE, 0);

	afresh();
	for (i = 0; i < 513; i++)
		many[i] = (struct elastic_range) { 1 + 2 * i, 1 };
	put(KG_ARGS, many, sizeof(many));
	expect(bsp, "512 ranges, one of them not granted", ELASTIC_OP_RELEASE_MEM, vm->cookie,
	       KG_ARGS, 512, INVAL, ELASTIC_R_NOT_GRANTED, 8);
	kg_request(bsp, 0, ABSENT_FIRST, ABSENT_NR);
	a = expect(bsp, "512 ranges", ELASTIC_OP_RELEASE_MEM, vm->cookie, KG_ARGS, 512, OK,
		   ELASTIC_R_NONE, 0);
	ktap_eq((long long)a.rdx, 512, "RELEASE_MEM: units that the host took back");
	ktap_eq(kg_stat(vm, "memory/grant_mib"), (long long)(2 * (CEILING - HIGH_UNITS - 512)),
		"memory/grant_mib");
}

static void discard(void)
{
	const u64 base = CEILING - ABSENT_NR - HIGH_UNITS;
	struct kg_answer a;
	s64 taken;

	ktap_diag("DISCARD, malformed");
	malformed_ranges(ELASTIC_OP_DISCARD);

	ktap_diag("DISCARD");
	afresh();
	taken = kg_stat(vm, "stats/taken_bytes");
	a = DISCARD("a unit", OK, ELASTIC_R_NONE, 0, { 64, 1 });
	ktap_eq((long long)a.rdx, 1, "DISCARD: units that the host took");
	DISCARD("the same again", OK, ELASTIC_R_NONE, 0, { 64, 1 });
	a = DISCARD("ranges that touch, and one that does not", OK, ELASTIC_R_NONE, 0, { 60, 2 },
		    { 62, 2 }, { 70, 3 });
	ktap_eq((long long)a.rdx, 7, "DISCARD: units that the host took");
	ktap_eq(kg_stat(vm, "memory/grant_mib"), (long long)(2 * base), "the grant stays");
	ktap_eq(kg_stat(vm, "stats/taken_bytes") - taken, 0, "and none counts as taken");
	RELEASE("one of them: it is granted", OK, ELASTIC_R_NONE, 0, { 64, 1 });
	DISCARD("it is not any more", INVAL, ELASTIC_R_NOT_GRANTED, 0, { 64, 1 });
	a = HELLO_CASE("without the feature", OK, ANY, ELASTIC_FEAT_CPU | ELASTIC_FEAT_MEM,
		       g.h.features = ELASTIC_FEAT_CPU | ELASTIC_FEAT_MEM);
	put(KG_ARGS, &(struct elastic_range) { 66, 1 }, sizeof(struct elastic_range));
	expect(bsp, "without the feature", ELASTIC_OP_DISCARD, a.rbx, KG_ARGS, 1, NOSYS,
	       ELASTIC_R_NONE, 0);
}

static void unknown(void)
{
	static const u64 ops[] = { ELASTIC_OP_NR, 8, 64, 255, 256, 0x7fff, 0x8000, 0xffff };
	char what[40];
	unsigned int i;

	ktap_diag("unknown operations");
	afresh();
	for (i = 0; i < sizeof(ops) / sizeof(*ops); i++) {
		snprintf(what, sizeof(what), "number %llu", (unsigned long long)ops[i]);
		expect(bsp, what, ops[i], vm->cookie, 0, 0, NOSYS, ELASTIC_R_NONE, 0);
	}
	expect(bsp, "with a wrong cookie", ELASTIC_OP_NR, 1, 0, 0, NOSYS, ELASTIC_R_NONE, 0);
	expect(bsp, "with everything set", ~0ULL, ~0ULL, ~0ULL, ~0ULL, NOSYS, ELASTIC_R_NONE, 0);
}

/* The guest's user space and 32-bit code are not heard */
static void modes(void)
{
	enum kg_mode mode;
	u64 op;

	ktap_diag("modes");
	afresh();
	kg_request(bsp, 2, 0, 0);
	for (mode = KG_RING3; mode < KG_NR_MODES; mode++) {
		for (op = 0; op <= ELASTIC_OP_NR; op++) {
			struct kg_mailbox *mb = bsp->mb;
			char *before = kg_snapshot(vm), *after;
			u64 length = kg_hello_args(vm, 1, absent, 2);
			struct kg_answer a;
			enum kg_end end;
			bool good;

			/* Arguments that would work */
			kg_call_setup(bsp, op, op ? vm->cookie : 0,
				      op == ELASTIC_OP_RELEASE_CPU ? 2 :
				      op == ELASTIC_OP_BYE ? 0 : KG_ARGS,
				      op == ELASTIC_OP_HELLO ? length :
				      op == ELASTIC_OP_REPORT ? 128 :
				      op == ELASTIC_OP_RELEASE_MEM ? 1 : 0);
			end = kg_call_mode(bsp, mode);
			kg_call_answer(bsp, &a);
			after = kg_snapshot(vm);
			if (mode == KG_RING3) {
				good = end == KG_ANSWER && a.status == ELASTIC_E_PERM &&
				       a.same && a.kept;
				if (end == KG_ANSWER)
					good = note(op, a.status) && good;
			} else {
				/*
				 * Not accepted. Registers with results are not
				 * specified there; the others are.
				 */
				good = end == KG_ANSWER && (u32)mb->out.rax == (u32)INVAL &&
				       (u32)mb->out.rsi == (u32)mb->in.rsi &&
				       (u32)mb->out.rdi == (u32)mb->in.rdi &&
				       (u32)mb->out.rbp == (u32)mb->in.rbp;
			}
			if (strcmp(before, after)) {
				ktap_diag("it changed something: %s", after);
				good = false;
			}
			if (!good) {
				ktap_diag("%s", kg_end_name(end));
				show(&a);
			}
			ktap_ok(good, "%s: from %s: %s", optable_ops[op].name,
				kg_mode_name(mode), mode == KG_RING3 ? "PERM" : "INVAL");
			free(before);
			free(after);
		}
	}
	expect(bsp, "the session went on", ELASTIC_OP_REQUEST, vm->cookie, 3, 0, OK, 0, 3);
}

/* Any vCPU may call */
static void other_vcpu(void)
{
	struct kg_vcpu *ap = &vm->vcpu[1];
	struct hello_args g = good_hello();

	ktap_diag("from another vCPU");
	afresh();
	kg_request(bsp, 2, 0, 0);
	kg_go(ap);
	kg_start_ap(ap);
	if (kg_wait(ap, 60000) != KG_ANSWER)
		ktap_bail("vCPU 1 does not start");
	expect(ap, "from vCPU 1", ELASTIC_OP_REQUEST, vm->cookie, 4, 0, OK, 0, 4);
	expect(ap, "itself, from vCPU 1", ELASTIC_OP_RELEASE_CPU, vm->cookie, 2, 0, INVAL,
	       ELASTIC_R_SELF, 0);
	expect(ap, "another, from vCPU 1", ELASTIC_OP_RELEASE_CPU, vm->cookie, 4, 0, OK, 0, 3);
	hello_case(ap, "from vCPU 1, which is not held", &g, INVAL, ANY, 0);
	g.words[0] = 3;
	hello_case(ap, "from vCPU 1, which is held", &g, OK, ANY, ANY);
}

/* The specification's table against what was seen */
static void compare(void)
{
	unsigned int op, status;

	for (op = 0; op <= ELASTIC_OP_NR; op++) {
		for (status = 0; status < OPT_NR; status++) {
			bool allowed = table.allowed[op][status] || table.common[status];

			/*
			 * Not to be had from here: the host would have to be out
			 * of memory, or the thread that sees the answer be dead.
			 */
			if (status == OPT_NOMEM || status == OPT_INTR)
				continue;
			/* Which bits an operation reserves is known with the operation */
			if (op == OPTABLE_UNKNOWN && status == OPT_INVAL)
				continue;
			if (seen[op][status] || allowed)
				ktap_ok(seen[op][status] && allowed, "table: %s, %s: %s, %s",
					optable_ops[op].name, optable_statuses[status].name,
					allowed ? "in the specification" : "not in the specification",
					seen[op][status] ? "seen" : "never seen");
		}
	}
}

int main(void)
{
	struct kg_config cfg = {
		.nr_vcpus = 4, .ram = UNIT(RAM_UNITS), .high = UNIT(HIGH_UNITS),
	};
	const char *error = optable_parse(optable_spec, &table);

	host_module_need();
	if (error)
		ktap_bail("the table of statuses: %s", error);
	need_pool();
	vm = kg_new(&cfg);
	bsp = &vm->vcpu[0];

	before_hello();
	hello_good();
	hello_malformed("managed");
	bad_memory(ELASTIC_OP_HELLO, 0, HELLO_LEN, true);
	hello_again();
	reserved_bits();
	cookies();
	reports();
	requests();
	whole_requests();
	limits();
	release_cpus();
	release_mem();
	discard();
	unknown();
	modes();
	other_vcpu();
	compare();
	kg_free(vm);
	return ktap_finish();
}
