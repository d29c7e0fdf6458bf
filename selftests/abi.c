// SPDX-License-Identifier: GPL-2.0-only
/*
 * The interface between guest and host: what the compiler makes of the header,
 * against numbers written down here once more, and the header's prose against
 * its code. Whoever changes a number breaks guests that are out there: this
 * test is to be changed only together with a new version.
 */
#include <stddef.h>
#include <stdint.h>

#include "optable.h"

#define SIZE(type, want) \
	ktap_eq((long long)sizeof(type), want, "sizeof(" #type ")")
#define OFFSET(type, field, want) \
	ktap_ok(offsetof(type, field) == (want), \
		#type "." #field " at %zu, want %d", offsetof(type, field), (want))
#define VALUE(name, want) \
	ktap_ok((name) == (want), #name " is " #want)

static void layout(void)
{
	SIZE(struct elastic_range, 16);
	OFFSET(struct elastic_range, first, 0);
	OFFSET(struct elastic_range, nr, 8);

	SIZE(struct elastic_hello, 32);
	OFFSET(struct elastic_hello, version_min, 0);
	OFFSET(struct elastic_hello, version_max, 4);
	OFFSET(struct elastic_hello, nr_cpu_words, 8);
	OFFSET(struct elastic_hello, nr_ranges, 12);
	OFFSET(struct elastic_hello, features, 16);
	OFFSET(struct elastic_hello, reserved, 24);

	SIZE(struct elastic_report, 128);
	OFFSET(struct elastic_report, period_ns, 0);
	OFFSET(struct elastic_report, busy_ns, 8);
	OFFSET(struct elastic_report, steal_ns, 16);
	OFFSET(struct elastic_report, runnable_milli, 24);
	OFFSET(struct elastic_report, cpus_online, 32);
	OFFSET(struct elastic_report, cpus_wanted, 36);
	OFFSET(struct elastic_report, units_online, 40);
	OFFSET(struct elastic_report, units_wanted, 48);
	OFFSET(struct elastic_report, mem_total, 56);
	OFFSET(struct elastic_report, mem_available, 64);
	OFFSET(struct elastic_report, mem_free, 72);
	OFFSET(struct elastic_report, mem_cached, 80);
	OFFSET(struct elastic_report, reclaims, 88);
	OFFSET(struct elastic_report, ooms, 92);
	OFFSET(struct elastic_report, reserved, 96);
}

static void values(void)
{
	VALUE(ELASTIC_HC_NR, 0x454c4153);
	VALUE(ELASTIC_VERSION, 1);

	VALUE(ELASTIC_OP_HELLO, 0);
	VALUE(ELASTIC_OP_REPORT, 1);
	VALUE(ELASTIC_OP_REQUEST, 2);
	VALUE(ELASTIC_OP_RELEASE_CPU, 3);
	VALUE(ELASTIC_OP_RELEASE_MEM, 4);
	VALUE(ELASTIC_OP_DISCARD, 5);
	VALUE(ELASTIC_OP_BYE, 6);

	VALUE(ELASTIC_OK, 0);
	VALUE(ELASTIC_PARTIAL, 1);
	VALUE(ELASTIC_REFUSED, 2);
	VALUE(ELASTIC_E_PERM, -1);
	VALUE(ELASTIC_E_INTR, -4);
	VALUE(ELASTIC_E_NOMEM, -12);
	VALUE(ELASTIC_E_FAULT, -14);
	VALUE(ELASTIC_E_INVAL, -22);
	VALUE(ELASTIC_E_NOSYS, -38);
	VALUE(ELASTIC_E_STALE, -116);

	VALUE(ELASTIC_R_NONE, 0);
	VALUE(ELASTIC_R_MAX, 1);
	VALUE(ELASTIC_R_POOL, 2);
	VALUE(ELASTIC_R_CEILING, 3);
	VALUE(ELASTIC_R_RATE, 4);
	VALUE(ELASTIC_R_NOT_GRANTED, 5);
	VALUE(ELASTIC_R_ORDER, 6);
	VALUE(ELASTIC_R_SELF, 7);
	VALUE(ELASTIC_R_PINNED, 8);
	VALUE(ELASTIC_R_VERSION, 9);
	VALUE(ELASTIC_R_LENGTH, 10);
	VALUE(ELASTIC_R_RESERVED, 11);
	VALUE(ELASTIC_R_ADMISSION, 12);
	VALUE(ELASTIC_R_WHOLE, 13);

	VALUE(ELASTIC_FEAT_CPU, 1ULL);
	VALUE(ELASTIC_FEAT_MEM, 2ULL);
	VALUE(ELASTIC_FEAT_DISCARD, 4ULL);
	VALUE(ELASTIC_FEAT_HINT, 8ULL);

	VALUE(ELASTIC_UNIT_SHIFT, 21);
	VALUE(ELASTIC_UNIT_SIZE, 2097152ULL);
	VALUE(ELASTIC_MAX_RANGES, 512);
	VALUE(ELASTIC_MAX_CPU_WORDS, 64);
	VALUE(ELASTIC_MAX_UNIT, 2147483648ULL);
	/* KVM's own and its neighbours' hypercalls are all below 2^30 */
	ktap_ok(ELASTIC_HC_NR > 1U << 30 && ELASTIC_HC_NR <= INT32_MAX,
		"ELASTIC_HC_NR is no number of KVM, Hyper-V or Xen");
}

/* The parts of RBX, and of RSI in REQUEST */
static void bits(void)
{
	const unsigned long long parts[] = {
		ELASTIC_OP_MASK, ELASTIC_WORD_MASK << ELASTIC_WORD_SHIFT,
		ELASTIC_NCPUS_MASK << ELASTIC_NCPUS_SHIFT, ELASTIC_RESERVED_MASK,
		ELASTIC_F_WHOLE,
	};
	unsigned long long all = 0;
	bool disjoint = true;
	unsigned int i;

	for (i = 0; i < sizeof(parts) / sizeof(*parts); i++) {
		disjoint = disjoint && !(all & parts[i]);
		all |= parts[i];
	}
	ktap_ok(disjoint, "the parts of RBX do not overlap");
	ktap_ok(all == ~0ULL, "the parts of RBX are all of it");
	VALUE(ELASTIC_WORD_SHIFT, 16);
	VALUE(ELASTIC_NCPUS_SHIFT, 32);
	VALUE(ELASTIC_COULD_CPUS_SHIFT, 32);
	VALUE(ELASTIC_COULD_UNITS_SHIFT, 48);
	VALUE(ELASTIC_COULD_MASK, 0xffffULL);
	VALUE(ELASTIC_RESERVED_MASK, 0x7fff000000000000ULL);
	VALUE(ELASTIC_F_WHOLE, 0x8000000000000000ULL);

	ktap_ok(ELASTIC_RANGE(5, 7) == 0x5000007ULL, "ELASTIC_RANGE(5, 7)");
	ktap_ok(ELASTIC_RANGE_FIRST(ELASTIC_RANGE(ELASTIC_MAX_UNIT - 1, 1)) ==
		ELASTIC_MAX_UNIT - 1, "ELASTIC_RANGE holds the last unit");
	ktap_ok(ELASTIC_RANGE_NR(ELASTIC_RANGE(ELASTIC_MAX_UNIT - 1, ELASTIC_RANGE_NR_MAX)) ==
		ELASTIC_RANGE_NR_MAX, "ELASTIC_RANGE holds the largest number");
	ktap_ok((ELASTIC_MAX_UNIT << ELASTIC_UNIT_SHIFT) == 4ULL << 50, "4 PiB of units");
	ktap_ok(ELASTIC_RANGE_NR_MAX << ELASTIC_UNIT_SHIFT >= 1ULL << 44,
		"one REQUEST can ask for more than 1 TiB");
}

/*
 * The enumerators in the text: "NAME = VALUE," after "enum TYPE {". Checks
 * that names are documented, and that values are unique, and returns how many.
 */
static unsigned int read_enum(const char *type, char names[][40], long long *values,
			      unsigned int max)
{
	char head[64], doc[64];
	const char *p, *stop;
	bool unique = true, documented = true;
	unsigned int nr = 0, i;

	snprintf(head, sizeof(head), "\nenum %s {", type);
	p = strstr(optable_spec, head);
	if (!p) {
		ktap_ok(false, "enum %s is in the header", type);
		return 0;
	}
	p += strlen(head);
	stop = strchr(p, '}');
	while (nr < max && p < stop) {
		int used = 0;

		if (sscanf(p, " %39[A-Z0-9_] = %lld,%n", names[nr], &values[nr], &used) != 2 ||
		    !used)
			break;
		p += used;
		for (i = 0; i < nr; i++)
			unique = unique && values[i] != values[nr];
		snprintf(doc, sizeof(doc), " * @%s: ", names[nr]);
		if (!strstr(optable_spec, doc)) {
			ktap_diag("%s is not documented", names[nr]);
			documented = false;
		}
		nr++;
	}
	ktap_ok(nr > 0 && strspn(p, " \t\n") == (size_t)(stop - p),
		"enum %s: %u enumerators can be read", type, nr);
	ktap_ok(unique, "enum %s: no value twice", type);
	ktap_ok(documented, "enum %s: each has a line of documentation", type);
	return nr;
}

/* In @names each name of the table that the tests use, with its value? */
static void compare(const char *type, const struct optable_name *table, unsigned int nr_table,
		    char names[][40], const long long *values, unsigned int nr)
{
	unsigned int i, k;

	for (i = 0; i < nr_table; i++) {
		for (k = 0; k < nr; k++)
			if (!strcmp(table[i].symbol, names[k]))
				break;
		ktap_ok(k < nr && values[k] == table[i].value,
			"enum %s: %s is %lld in text and code", type, table[i].symbol,
			table[i].value);
	}
	ktap_ok(nr == nr_table, "enum %s: the tests know all %u", type, nr);
}

/* "ELASTIC_OP_NR" and "ELASTIC_R_NR": first value that is free */
static void check_nr(const char *type, const char *last, char names[][40],
		     const long long *values, unsigned int nr)
{
	bool dense = nr > 1 && !strcmp(names[nr - 1], last);
	unsigned int i;

	for (i = 0; i < nr; i++)
		dense = dense && values[i] == i;
	ktap_ok(dense, "enum %s: values from 0 on without a gap, %s at the end", type, last);
}

static void prose(void)
{
	char names[40][40];
	long long values[40];
	unsigned int nr;

	nr = read_enum("elastic_op", names, values, 40);
	compare("elastic_op", optable_ops, ELASTIC_OP_NR + 1, names, values, nr);
	check_nr("elastic_op", "ELASTIC_OP_NR", names, values, nr);
	nr = read_enum("elastic_status", names, values, 40);
	compare("elastic_status", optable_statuses, OPT_NR, names, values, nr);
	nr = read_enum("elastic_reason", names, values, 40);
	check_nr("elastic_reason", "ELASTIC_R_NR", names, values, nr);
	ktap_eq(nr, ELASTIC_R_NR + 1, "enum elastic_reason: as many as ELASTIC_R_NR says");
}

static void table(void)
{
	struct optable t;
	const char *error = optable_parse(optable_spec, &t);
	unsigned int op, status;

	if (error)
		ktap_diag("%s", error);
	if (!ktap_ok(!error, "the table of statuses can be read"))
		return;
	for (op = 0; op <= ELASTIC_OP_NR; op++)
		ktap_ok(t.has_row[op], "the table has a row %s", optable_ops[op].name);
	for (status = 0; status < OPT_NR; status++)
		ktap_ok(t.has_column[status] != t.common[status],
			"%s is either in the table or common to all", optable_statuses[status].name);
	/* What holds for any table */
	for (op = 0; op <= ELASTIC_OP_NR; op++) {
		bool any = false;

		for (status = 0; status < OPT_NR; status++)
			any = any || t.allowed[op][status];
		ktap_ok(any, "%s can be answered", optable_ops[op].name);
	}
	ktap_ok(!t.allowed[ELASTIC_OP_HELLO][OPT_STALE], "HELLO knows no stale cookie");
	ktap_ok(!t.allowed[OPTABLE_UNKNOWN][OPT_OK], "an unknown operation does nothing");
}

/* A parser that takes anything would let any table pass */
static void parser(void)
{
	static const char *const bad[] = {
		"nothing",
		"Statuses by operation\n * All return ELASTIC_E_PERM.\n * none\n",
		"Statuses by operation\n * All return ELASTIC_E_WRONG.\n * OK STALE\n",
		"Statuses by operation\n * All return ELASTIC_E_PERM.\n * OK WRONG\n * HELLO x x\n *\n",
		"Statuses by operation\n * All return ELASTIC_E_PERM.\n * OK OK\n * HELLO x x\n *\n",
		"Statuses by operation\n * All return ELASTIC_E_PERM.\n * OK STALE\n * HI x x\n *\n",
		"Statuses by operation\n * All return ELASTIC_E_PERM.\n * OK STALE\n * HELLO x\n *\n",
		"Statuses by operation\n * All return ELASTIC_E_PERM.\n * OK STALE\n * HELLO x y\n *\n",
		"Statuses by operation\n * All return ELASTIC_E_PERM.\n * OK STALE\n * BYE x x x\n *\n",
		"Statuses by operation\n * All return ELASTIC_E_PERM.\n * OK STALE\n * BYE x x\n * BYE x x\n *\n",
	};
	static const char good[] =
		"Statuses by operation\n * All return ELASTIC_E_PERM.\n * OK STALE\n * BYE - x\n *\n";
	struct optable t;
	unsigned int i, refused = 0;

	for (i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		if (optable_parse(bad[i], &t))
			refused++;
		else
			ktap_diag("taken: %s", bad[i]);
	}
	ktap_eq(refused, sizeof(bad) / sizeof(*bad), "malformed tables are not taken");
	ktap_ok(!optable_parse(good, &t) && t.allowed[ELASTIC_OP_BYE][OPT_STALE] &&
		!t.allowed[ELASTIC_OP_BYE][OPT_OK] && t.common[OPT_PERM] &&
		!t.common[OPT_INTR] && !t.has_row[ELASTIC_OP_HELLO],
		"a good table is read right");
}

int main(void)
{
	layout();
	values();
	bits();
	prose();
	table();
	parser();
	return ktap_finish();
}
