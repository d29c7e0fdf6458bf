/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What a guest may do to the host's ledger, as the specification has it, written a
 * second time: the oracle of hostile.c. Nothing here knows of KVM or sysfs, so a host
 * that is made of the same code, with a fault put in, tests the oracle itself.
 *
 * A call with several things wrong may be answered for any of them: all that apply are
 * collected, and the answer has to be one of these. A call with nothing wrong has one
 * answer, and that is computed.
 */
#ifndef SELFTESTS_HOSTILE_MODEL_H
#define SELFTESTS_HOSTILE_MODEL_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kvm_guest.h"

#define HM_CPUS		4
#define HM_RAM_UNITS	1024
#define HM_HIGH_UNITS	16
#define HM_HIGH_FIRST	(KG_HIGH >> ELASTIC_UNIT_SHIFT)
#define HM_UNITS	(HM_HIGH_FIRST + HM_HIGH_UNITS)	/* numbers are below */
#define HM_CEILING	(HM_RAM_UNITS - 1 + HM_HIGH_UNITS)
#define HM_UNIT(n)	((u64)(n) << ELASTIC_UNIT_SHIFT)
#define HM_MARK		0x8000		/* where in a unit the marker is */
#define HM_MAX_OPS	256
#define HM_FEATURES	(ELASTIC_FEAT_CPU | ELASTIC_FEAT_MEM | ELASTIC_FEAT_DISCARD | \
			 ELASTIC_FEAT_HINT)

enum hm_kind { HM_CALL, HM_READ, HM_WRITE, HM_RESET, HM_SET };
enum hm_cookie { HM_GOOD, HM_OLD, HM_ZERO, HM_OTHER, HM_FLIP, HM_ONES, HM_NR_COOKIES };
enum hm_file { HM_CPU_MAX, HM_MEM_MAX, HM_CPU_POOL, HM_MEM_POOL, HM_NR_FILES };

static const char *const hm_cookies[HM_NR_COOKIES] = {
	"good", "old", "zero", "other", "flip", "ones",
};
static const char *const hm_modes[KG_NR_MODES] = {
	"long", "ring3", "compat", "prot", "real",
};
static const char *const hm_files[HM_NR_FILES] = {
	"cpu/max", "memory/max_mib", "cpu/pool", "memory/pool_mib",
};

/* One thing that the guest, its VMM (reset) or the administrator (a file) does */
struct hm_op {
	enum hm_kind kind;
	unsigned int vcpu;
	enum kg_mode mode;
	enum hm_cookie cookie;
	enum hm_file file;
	u64 rbx, rdx, rsi;	/* READ, WRITE: RDX the address; SET: the value */
	unsigned int nr_words;	/* written at RDX before the call */
	u64 *words;
};

struct hm_seq {
	bool together;		/* all vCPUs at once, each in its own order */
	unsigned int nr;
	struct hm_op op[HM_MAX_OPS];
};

/* stats/: the operations come first */
enum hm_stat {
	HM_STALE = ELASTIC_OP_NR, HM_INVALID, HM_FAULT, HM_NOSYS,
	HM_REF_MAX, HM_REF_POOL, HM_REF_CEILING, HM_REF_RATE, HM_TAKEN, HM_DISCARDED,
	HM_NR_STATS
};

static const char *const hm_stats[HM_NR_STATS] = {
	"hello", "report", "request", "release_cpu", "release_mem", "discard", "bye",
	"stale", "invalid", "fault", "nosys", "refused_max", "refused_pool",
	"refused_ceiling", "refused_rate", "taken_bytes", "discarded_bytes",
};

struct hm {
	bool enforced;		/* HELLO since the last reset */
	u64 cookie, old;	/* of the session, of the one before */
	u64 other;		/* another VM's */
	u64 features;
	u64 cpus;		/* granted */
	bool held_back[HM_UNITS];	/* units outside the grant */
	u64 units;		/* granted */
	u64 max[2];		/* vCPUs, units */
	u64 pool[2];
	bool ample;		/* the pools limit nothing, so an answer is exact */
	u64 others[2];		/* what other VMs have */
	u64 stat[HM_NR_STATS];
	u64 mark[HM_UNITS];	/* what is at HM_MARK of a unit */
	bool perhaps[HM_UNITS];	/* or 0 */
	void *(*hva)(u64 gpa);	/* guest memory, NULL: no RAM */
};

static inline u64 hm_rand(u64 *state)
{
	u64 z = (*state += 0x9e3779b97f4a7c15ULL);

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ z >> 27) * 0x94d049bb133111ebULL;
	return z ^ z >> 31;
}

static inline bool hm_ceiling(u64 unit)
{
	return (unit >= 1 && unit < HM_RAM_UNITS) ||
	       (unit >= HM_HIGH_FIRST && unit < HM_HIGH_FIRST + HM_HIGH_UNITS);
}

static inline bool hm_withheld(const struct hm *m, u64 unit)
{
	return m->enforced && unit < HM_UNITS && m->held_back[unit];
}

static inline bool hm_granted_cpu(const struct hm *m, unsigned int cpu)
{
	return !m->enforced || (m->cpus >> cpu & 1);
}

/* The VM has its whole ceiling, and no session */
static inline void hm_reset(struct hm *m)
{
	m->enforced = false;
	if (m->cookie)
		m->old = m->cookie;
	m->cookie = 0;
	m->cpus = (1ULL << HM_CPUS) - 1;
	memset(m->held_back, 0, sizeof(m->held_back));
	m->units = HM_CEILING;
}

/* In granted, writable guest RAM from end to end? */
static inline bool hm_readable(const struct hm *m, u64 gpa, u64 len)
{
	u64 end = gpa + len;

	if (end < gpa)
		return false;
	for (; gpa < end; gpa = (gpa | 0xfff) + 1)
		if (hm_withheld(m, gpa >> ELASTIC_UNIT_SHIFT) || !m->hva(gpa))
			return false;
	return true;
}

static inline void hm_copy(const struct hm *m, void *to, u64 gpa, u64 len)
{
	u64 n;

	for (; len; len -= n, gpa += n, to = (u8 *)to + n) {
		n = 0x1000 - (gpa & 0xfff);
		n = n < len ? n : len;
		memcpy(to, m->hva(gpa), n);
	}
}

static inline u64 hm_cookie(const struct hm *m, enum hm_cookie cookie)
{
	switch (cookie) {
	case HM_GOOD: return m->cookie;
	case HM_OLD: return m->old;
	case HM_OTHER: return m->other;
	case HM_FLIP: return m->cookie ^ 1ULL << 17;
	case HM_ONES: return ~0ULL;
	case HM_ZERO:
	case HM_NR_COOKIES:
		break;
	}
	return 0;
}

/* What may be answered, found out before the call: it may give its own argument away */

#define HM_ARG_MAX	(32 + 64 * 8 + 512 * 16)

struct hm_expect {
	unsigned int nr;	/* things wrong; 0: it has to be done */
	struct { s64 status; u64 rbx, rcx; } may[24];
	u64 rcx;		/* the cookie that goes in */
	u64 arg[HM_ARG_MAX / 8];
};

static inline void hm_wrong(struct hm_expect *x, s64 status, u64 rbx, u64 rcx)
{
	if (x->nr == sizeof(x->may) / sizeof(*x->may))
		return;
	x->may[x->nr].status = status;
	x->may[x->nr].rbx = rbx;
	x->may[x->nr++].rcx = rcx;
}

#define HM_INVAL(reason) hm_wrong(x, ELASTIC_E_INVAL, reason, 0)

/* The argument, if it is where it may be */
static inline bool hm_fetch(const struct hm *m, const struct hm_op *op, u64 len,
			    struct hm_expect *x)
{
	bool good = true;

	if (op->rdx & 7) {
		HM_INVAL(ELASTIC_R_LENGTH);
		good = false;
	}
	if (!hm_readable(m, op->rdx, len)) {
		hm_wrong(x, ELASTIC_E_FAULT, ELASTIC_R_NONE, 0);
		good = false;
	}
	if (good)
		hm_copy(m, x->arg, op->rdx, len);
	return good;
}

static inline const struct elastic_range *hm_ranges(const struct hm_expect *x, bool hello)
{
	const struct elastic_hello *h = (const struct elastic_hello *)x->arg;

	return (const struct elastic_range *)(x->arg + (hello ? 4 + h->nr_cpu_words : 0));
}

static inline bool hm_disorder(const struct elastic_range *r, unsigned int nr, struct hm_expect *x)
{
	u64 end = 0;
	unsigned int i;

	for (i = 0; i < nr; i++) {
		if (!r[i].nr || r[i].first < end || r[i].first >= ELASTIC_MAX_UNIT ||
		    r[i].nr > ELASTIC_MAX_UNIT - r[i].first) {
			hm_wrong(x, ELASTIC_E_INVAL, ELASTIC_R_ORDER, i);
			return true;
		}
		end = r[i].first + r[i].nr;
	}
	return false;
}

static inline void hm_expect_hello(const struct hm *m, const struct hm_op *op, struct hm_expect *x)
{
	const struct elastic_hello *h = (const struct elastic_hello *)x->arg;

	if (x->rcx)
		HM_INVAL(ELASTIC_R_RESERVED);
	if (op->rsi < sizeof(*h) || op->rsi > HM_ARG_MAX) {
		HM_INVAL(ELASTIC_R_LENGTH);
		return;
	}
	if (!hm_fetch(m, op, op->rsi, x))
		return;
	if (h->reserved)
		HM_INVAL(ELASTIC_R_RESERVED);
	if (h->version_min > h->version_max)
		HM_INVAL(ELASTIC_R_VERSION);
	else if (h->version_min > ELASTIC_VERSION || h->version_max < ELASTIC_VERSION)
		hm_wrong(x, ELASTIC_REFUSED, ELASTIC_R_VERSION, 0);
	if (h->nr_cpu_words > ELASTIC_MAX_CPU_WORDS || h->nr_ranges > ELASTIC_MAX_RANGES ||
	    op->rsi != sizeof(*h) + h->nr_cpu_words * 8 + h->nr_ranges * 16) {
		HM_INVAL(ELASTIC_R_LENGTH);
		return;
	}
	if (!h->nr_cpu_words || !(x->arg[4] >> op->vcpu & 1))
		HM_INVAL(ELASTIC_R_SELF);
	hm_disorder(hm_ranges(x, true), h->nr_ranges, x);
}

static inline void hm_expect_report(const struct hm *m, const struct hm_op *op,
				    struct hm_expect *x)
{
	const struct elastic_report *r = (const struct elastic_report *)x->arg;
	unsigned int i;

	if (op->rsi != sizeof(*r)) {
		HM_INVAL(ELASTIC_R_LENGTH);
		return;
	}
	if (!hm_fetch(m, op, op->rsi, x))
		return;
	for (i = 0; i < 4; i++)
		if (r->reserved[i])
			HM_INVAL(ELASTIC_R_RESERVED);
}

static inline unsigned int hm_nr_cpus(const struct hm_op *op)
{
	unsigned int nr = op->rbx >> ELASTIC_NCPUS_SHIFT & ELASTIC_NCPUS_MASK;

	return nr ? nr : (unsigned int)__builtin_popcountll(op->rdx);
}

static inline void hm_expect_request(const struct hm *m, const struct hm_op *op,
				     struct hm_expect *x)
{
	u64 first = ELASTIC_RANGE_FIRST(op->rsi), nr = ELASTIC_RANGE_NR(op->rsi);

	if (hm_nr_cpus(op) > (unsigned int)__builtin_popcountll(op->rdx) ||
	    first >= ELASTIC_MAX_UNIT || (first && !nr))
		HM_INVAL(ELASTIC_R_LENGTH);
	if ((op->rdx && !(m->features & ELASTIC_FEAT_CPU)) ||
	    (nr && !(m->features & ELASTIC_FEAT_MEM)))
		HM_INVAL(ELASTIC_R_RESERVED);
}

static inline void hm_expect_take(const struct hm *m, const struct hm_op *op, struct hm_expect *x)
{
	const struct elastic_range *r = hm_ranges(x, false);
	u64 i, u;

	if (!op->rsi || op->rsi > ELASTIC_MAX_RANGES) {
		HM_INVAL(ELASTIC_R_LENGTH);
		return;
	}
	if (!hm_fetch(m, op, op->rsi * sizeof(*r), x))
		return;
	hm_disorder(r, (unsigned int)op->rsi, x);
	/* The first range with something else wrong; it may be wrong in both ways */
	for (i = 0; i < op->rsi; i++) {
		bool beyond = false, not_granted = false;

		for (u = r[i].first; u - r[i].first < r[i].nr && u < HM_UNITS && !beyond; u++) {
			beyond = !hm_ceiling(u);
			not_granted |= hm_withheld(m, u);
		}
		if (beyond || r[i].first >= HM_UNITS || r[i].nr > HM_UNITS - r[i].first)
			hm_wrong(x, ELASTIC_E_INVAL, ELASTIC_R_CEILING, i);
		if (not_granted)
			hm_wrong(x, ELASTIC_E_INVAL, ELASTIC_R_NOT_GRANTED, i);
		if (x->nr)
			break;
	}
}

/* A call in 64-bit mode from the guest's kernel, by a vCPU that is granted */
static inline void hm_expect(const struct hm *m, const struct hm_op *op, struct hm_expect *x)
{
	u64 code = op->rbx & ELASTIC_OP_MASK;
	u64 word = op->rbx >> ELASTIC_WORD_SHIFT & ELASTIC_WORD_MASK;
	u64 ncpus = op->rbx >> ELASTIC_NCPUS_SHIFT & ELASTIC_NCPUS_MASK;

	x->nr = 0;
	x->rcx = code == ELASTIC_OP_HELLO && op->cookie == HM_GOOD ? 0 : hm_cookie(m, op->cookie);
	if (code >= ELASTIC_OP_NR)
		hm_wrong(x, ELASTIC_E_NOSYS, ELASTIC_R_NONE, 0);
	if (op->rbx & ELASTIC_RESERVED_MASK || word >= ELASTIC_MAX_CPU_WORDS ||
	    (word && code != ELASTIC_OP_REQUEST && code != ELASTIC_OP_RELEASE_CPU) ||
	    ((ncpus || op->rbx & ELASTIC_F_WHOLE) && code != ELASTIC_OP_REQUEST))
		HM_INVAL(ELASTIC_R_RESERVED);
	if (code != ELASTIC_OP_HELLO && code < ELASTIC_OP_NR &&
	    (!m->cookie || x->rcx != m->cookie))
		hm_wrong(x, ELASTIC_E_STALE, ELASTIC_R_NONE, 0);
	switch (code) {
	case ELASTIC_OP_HELLO:
		hm_expect_hello(m, op, x);
		break;
	case ELASTIC_OP_REPORT:
		hm_expect_report(m, op, x);
		break;
	case ELASTIC_OP_REQUEST:
		hm_expect_request(m, op, x);
		break;
	case ELASTIC_OP_RELEASE_CPU:
		if (op->rsi)
			HM_INVAL(ELASTIC_R_RESERVED);
		if (!word && (op->rdx >> op->vcpu & 1))
			HM_INVAL(ELASTIC_R_SELF);
		break;
	case ELASTIC_OP_DISCARD:
		if (!(m->features & ELASTIC_FEAT_DISCARD))
			hm_wrong(x, ELASTIC_E_NOSYS, ELASTIC_R_NONE, 0);
		/* fall through */
	case ELASTIC_OP_RELEASE_MEM:
		hm_expect_take(m, op, x);
		break;
	case ELASTIC_OP_BYE:
		if (op->rdx || op->rsi)
			HM_INVAL(ELASTIC_R_RESERVED);
		break;
	}
}

/* What comes of an answer. All return NULL, or what is wrong with it. */

static inline void hm_withhold(struct hm *m, u64 unit, bool taken)
{
	if (!m->held_back[unit]) {
		m->held_back[unit] = true;
		m->units--;
	}
	if (taken) {
		m->mark[unit] = 0;
		m->perhaps[unit] = false;
		m->stat[HM_TAKEN] += ELASTIC_UNIT_SIZE;
	}
}

static inline const char *hm_hello(struct hm *m, const struct hm_expect *x,
				   const struct kg_answer *a)
{
	const struct elastic_hello *h = (const struct elastic_hello *)x->arg;
	const struct elastic_range *r = hm_ranges(x, true);
	u64 i, u;

	if (!a->rbx || a->rbx == m->cookie || a->rbx == m->old || a->rbx == m->other)
		return "the cookie is not a new one";
	if (a->rcx != (h->features & HM_FEATURES) || a->rdx != ELASTIC_VERSION)
		return "features or version";
	if (!m->enforced)
		hm_reset(m);
	m->enforced = true;
	m->old = m->cookie ? m->cookie : m->old;
	m->cookie = a->rbx;
	m->features = a->rcx;
	m->cpus &= x->arg[4];
	for (i = 0; i < h->nr_ranges; i++)
		for (u = r[i].first; u - r[i].first < r[i].nr && u < HM_UNITS; u++)
			if (hm_ceiling(u) && !m->held_back[u])
				hm_withhold(m, u, true);
	return NULL;
}

static inline const char *hm_report(const struct hm *m, const struct kg_answer *a)
{
	u64 hint = a->rdx >> ELASTIC_HINT_SHIFT;

	if (a->rbx >> 32 != (u64)__builtin_popcountll(m->cpus) ||
	    (a->rdx & ELASTIC_REPORT_UNITS_MASK) != m->units)
		return "REPORT: what is granted";
	if ((u32)a->rbx > m->max[0] || a->rcx > m->max[1] || (m->ample && !(u32)a->rbx))
		return "REPORT: a target above the maximum, or none";
	if (hint && (!(m->features & ELASTIC_FEAT_HINT) || hint == 1 || hint > HM_CPUS))
		return "REPORT: the hint";
	return NULL;
}

/* How far from @first units reach of which no more than @n are withheld */
static inline u64 hm_reach(const struct hm *m, u64 first, u64 nr, u64 n)
{
	u64 i;

	for (i = 0; i < nr; i++)
		if (m->held_back[first + i] && !n--)
			break;
	return i;
}

static inline u64 hm_less(u64 a, u64 b)
{
	return a > b ? a - b : 0;
}

/* One half of a REQUEST */
struct hm_half {
	u64 need;	/* more, within the ceiling */
	u64 most;	/* of it, by the maximum */
	u64 got;
	bool beyond;	/* more is wanted than the ceiling has */
	bool wanted;
	u64 reason;
};

/* Is the reason one for having got so much? */
static inline bool hm_reasonable(const struct hm *m, const struct hm_half *h, u64 got)
{
	if (got > h->most || (m->ample && got != h->most))
		return false;
	if (got == h->need)
		return h->reason == (h->beyond ? ELASTIC_R_CEILING : ELASTIC_R_NONE);
	if (m->ample)
		return h->reason == ELASTIC_R_MAX;
	return h->reason == ELASTIC_R_MAX || h->reason == ELASTIC_R_POOL ||
	       h->reason == ELASTIC_R_RATE;
}

struct hm_request {
	struct hm_half cpu, mem;
	u64 there, have;	/* vCPUs */
	u64 first, units;	/* up to the first that is not there */
};

static inline struct hm_request hm_request_of(const struct hm *m, const struct hm_op *op)
{
	u64 word = op->rbx >> ELASTIC_WORD_SHIFT & ELASTIC_WORD_MASK, i;
	u64 nr = ELASTIC_RANGE_NR(op->rsi), wanted = hm_nr_cpus(op), n;
	struct hm_request q = { .first = ELASTIC_RANGE_FIRST(op->rsi) };

	q.there = word ? 0 : op->rdx & ((1ULL << HM_CPUS) - 1);
	q.have = q.there & m->cpus;
	n = (u64)__builtin_popcountll(q.there);
	q.cpu.wanted = wanted != 0;
	if ((u64)__builtin_popcountll(q.have) < wanted) {
		q.cpu.beyond = n < wanted;
		q.cpu.need = (n < wanted ? n : wanted) - (u64)__builtin_popcountll(q.have);
	}
	q.cpu.most = hm_less(m->max[0], (u64)__builtin_popcountll(m->cpus));
	while (q.units < nr && q.first + q.units < HM_UNITS && hm_ceiling(q.first + q.units))
		q.units++;
	q.mem.wanted = nr != 0;
	q.mem.beyond = q.units < nr;
	for (i = 0; i < q.units; i++)
		q.mem.need += m->held_back[q.first + i];
	q.mem.most = hm_less(m->max[1], m->units);
	q.cpu.most = q.cpu.need < q.cpu.most ? q.cpu.need : q.cpu.most;
	q.mem.most = q.mem.need < q.mem.most ? q.mem.need : q.mem.most;
	return q;
}

/* What it could have had, and that the reasons are those of that */
static inline const char *hm_refused_whole(const struct hm *m, struct hm_request *q,
					   const struct kg_answer *a)
{
	u64 cpus = a->rbx >> ELASTIC_COULD_CPUS_SHIFT & ELASTIC_COULD_MASK;
	u64 units = a->rbx >> ELASTIC_COULD_UNITS_SHIFT, reach;

	if (q->cpu.reason == ELASTIC_R_WHOLE)
		q->cpu.reason = q->cpu.wanted ? ELASTIC_R_NONE : ELASTIC_R_NR;
	else if (q->cpu.reason == ELASTIC_R_NONE && q->cpu.wanted)
		return "WHOLE refused without a reason";
	if (q->mem.reason == ELASTIC_R_WHOLE)
		q->mem.reason = q->mem.wanted ? ELASTIC_R_NONE : ELASTIC_R_NR;
	else if (q->mem.reason == ELASTIC_R_NONE && q->mem.wanted)
		return "WHOLE refused without a reason";
	if (q->cpu.reason == ELASTIC_R_NONE && q->mem.reason == ELASTIC_R_NONE)
		return "WHOLE refused although all was to be had";
	if (a->status != ELASTIC_REFUSED || a->rcx != q->have ||
	    a->rdx != hm_reach(m, q->first, q->units, 0))
		return "WHOLE refused: what is granted";
	if (!hm_reasonable(m, &q->cpu, hm_less(cpus, (u64)__builtin_popcountll(q->have))))
		return "WHOLE refused: the vCPUs that could be had";
	reach = hm_reach(m, q->first, q->units, q->mem.most);
	if (m->ample ? units != (reach < ELASTIC_COULD_MASK ? reach : ELASTIC_COULD_MASK) :
		       units > reach)
		return "WHOLE refused: the units that could be had";
	if (m->ample && !hm_reasonable(m, &q->mem, q->mem.most))
		return "WHOLE refused: the reason for memory";
	return NULL;
}

static inline const char *hm_request(struct hm *m, const struct hm_op *op,
				     const struct kg_answer *a)
{
	struct hm_request q = hm_request_of(m, op);
	u64 i, cpus;
	bool all;

	q.cpu.reason = a->rbx & 0xffff;
	q.mem.reason = a->rbx >> 16 & 0xffff;
	all = q.cpu.reason == ELASTIC_R_NONE && q.mem.reason == ELASTIC_R_NONE;
	if (!all && op->rbx & ELASTIC_F_WHOLE)
		return hm_refused_whole(m, &q, a);
	if (a->rbx >> 32)
		return "REQUEST: RBX above the reasons";
	if (a->rcx & ~q.there || ~a->rcx & q.have)
		return "REQUEST: the vCPUs granted";
	q.cpu.got = (u64)__builtin_popcountll(a->rcx ^ q.have);
	if (a->rdx > q.units || (a->rdx < q.units && !m->held_back[q.first + a->rdx]))
		return "REQUEST: the units granted";
	for (i = 0; i < a->rdx; i++)
		q.mem.got += m->held_back[q.first + i];
	if (!hm_reasonable(m, &q.cpu, q.cpu.got))
		return "REQUEST: number of vCPUs, or its reason";
	if (!hm_reasonable(m, &q.mem, q.mem.got))
		return "REQUEST: number of units, or its reason";
	if (a->status != (all ? ELASTIC_OK : a->rcx || a->rdx ? ELASTIC_PARTIAL : ELASTIC_REFUSED))
		return "REQUEST: the status";
	cpus = (u64)__builtin_popcountll(m->cpus) + q.cpu.got;
	if ((q.cpu.got && cpus + m->others[0] > m->pool[0]) ||
	    (q.mem.got && m->units + q.mem.got + m->others[1] > m->pool[1]))
		return "REQUEST: more than the pool has";
	m->cpus |= a->rcx;
	for (i = 0; i < a->rdx; i++)
		m->held_back[q.first + i] = false;
	m->units += q.mem.got;
	return NULL;
}

static inline const char *hm_take(struct hm *m, const struct hm_op *op, const struct hm_expect *x,
				  const struct kg_answer *a, bool release)
{
	const struct elastic_range *r = hm_ranges(x, false);
	u64 i, u, n = 0;

	for (i = 0; i < op->rsi; i++) {
		for (u = r[i].first; u < r[i].first + r[i].nr; u++, n++) {
			if (release) {
				hm_withhold(m, u, true);
			} else {
				m->mark[u] = 0;
				m->perhaps[u] = false;
				m->stat[HM_DISCARDED] += ELASTIC_UNIT_SIZE;
			}
		}
	}
	if (a->rbx != ELASTIC_R_NONE || a->rcx || a->rdx != n)
		return "the host has not taken all of the batch";
	return NULL;
}

static inline void hm_count(struct hm *m, const struct hm_op *op, const struct kg_answer *a)
{
	u64 code = op->rbx & ELASTIC_OP_MASK, i;

	if (a->status >= 0 && code < ELASTIC_OP_NR)
		m->stat[code]++;
	else if (a->status == ELASTIC_E_STALE)
		m->stat[HM_STALE]++;
	else if (a->status == ELASTIC_E_INVAL)
		m->stat[HM_INVALID]++;
	else if (a->status == ELASTIC_E_FAULT)
		m->stat[HM_FAULT]++;
	else if (a->status == ELASTIC_E_NOSYS)
		m->stat[HM_NOSYS]++;
	for (i = 0; code == ELASTIC_OP_REQUEST && a->status >= 0 && i < 32; i += 16) {
		u64 reason = a->rbx >> i & 0xffff;

		m->stat[HM_REF_MAX] += reason == ELASTIC_R_MAX;
		m->stat[HM_REF_POOL] += reason == ELASTIC_R_POOL;
		m->stat[HM_REF_CEILING] += reason == ELASTIC_R_CEILING;
		m->stat[HM_REF_RATE] += reason == ELASTIC_R_RATE;
	}
}

static inline const char *hm_settle(struct hm *m, const struct hm_op *op,
				    const struct hm_expect *x, const struct kg_answer *a)
{
	unsigned int i;

	hm_count(m, op, a);
	if (!a->kept)
		return "a register that must be preserved is not";
	for (i = 0; i < x->nr; i++)
		if (a->status == x->may[i].status && a->rbx == x->may[i].rbx &&
		    a->rcx == x->may[i].rcx && !a->rdx)
			return NULL;
	if (x->nr)
		return "none of the answers that it may have";
	if (a->status < 0)
		return "an error, and nothing was wrong";
	switch (op->rbx & ELASTIC_OP_MASK) {
	case ELASTIC_OP_HELLO:
		return a->status ? "HELLO is refused" : hm_hello(m, x, a);
	case ELASTIC_OP_REPORT:
		return a->status ? "REPORT's status" : hm_report(m, a);
	case ELASTIC_OP_REQUEST:
		return hm_request(m, op, a);
	case ELASTIC_OP_RELEASE_CPU:
		if (!(op->rbx >> ELASTIC_WORD_SHIFT & ELASTIC_WORD_MASK)) {
			m->cpus &= ~op->rdx;
			if (a->rcx != m->cpus)
				return "RELEASE_CPU: what is left";
		} else if (a->rcx) {
			return "RELEASE_CPU: what is left in a word without vCPUs";
		}
		return a->status || a->rbx || a->rdx ? "RELEASE_CPU's answer" : NULL;
	case ELASTIC_OP_RELEASE_MEM:
		return a->status ? "RELEASE_MEM's status" : hm_take(m, op, x, a, true);
	case ELASTIC_OP_DISCARD:
		return a->status ? "DISCARD's status" : hm_take(m, op, x, a, false);
	case ELASTIC_OP_BYE:
		m->old = m->cookie;
		m->cookie = 0;
		return a->status || a->rbx || a->rcx || a->rdx ? "BYE's answer" : NULL;
	}
	return "an answer to what is no operation";
}

/* A host made of this, with a fault: what the oracle has to find */

enum hm_fault {
	HM_SOUND,
	HM_MISCOUNT,	/* a batch of several ranges is charged for one unit less */
	HM_OVERLAP,	/* overlapping ranges are not noticed */
	HM_REPLAY,	/* the last session's cookie still opens */
	HM_UNCHECKED,	/* the first range decides for the whole batch */
	HM_NR_FAULTS
};

static const char *const hm_faults[HM_NR_FAULTS] = {
	"none", "a wrong count", "overlapping ranges pass", "the old cookie passes",
	"only the first range is checked",
};

/* The answer of a host with the fault; *@off is by how much its count is wrong */
static inline struct kg_answer hm_fake(struct hm *h, const struct hm_op *op,
				       enum hm_fault fault, s64 *off)
{
	static struct hm_expect x;
	struct kg_answer a = { .kept = true };
	u64 code = op->rbx & ELASTIC_OP_MASK, i, n = 0;
	const struct elastic_range *r = hm_ranges(&x, false);
	struct hm_request q;

	hm_expect(h, op, &x);
	if (x.nr == 1 &&
	    ((fault == HM_OVERLAP && x.may[0].rbx == ELASTIC_R_ORDER &&
	      code == ELASTIC_OP_RELEASE_MEM && r[x.may[0].rcx].nr && x.may[0].rcx &&
	      r[x.may[0].rcx].first >= r[x.may[0].rcx - 1].first) ||
	     (fault == HM_REPLAY && x.may[0].status == ELASTIC_E_STALE && h->cookie &&
	      x.rcx == h->old) ||
	     (fault == HM_UNCHECKED && code == ELASTIC_OP_RELEASE_MEM && x.may[0].rcx &&
	      x.may[0].rbx == ELASTIC_R_NOT_GRANTED)))
		x.nr = 0;
	if (x.nr) {
		a.status = x.may[0].status;
		a.rbx = x.may[0].rbx;
		a.rcx = x.may[0].rcx;
		hm_settle(h, op, &x, &a);
		return a;
	}
	switch (code) {
	case ELASTIC_OP_HELLO:
		a.rbx = (h->cookie ? h->cookie : h->old) + 0x10001;
		a.rcx = x.arg[2] & HM_FEATURES;
		a.rdx = 1;
		break;
	case ELASTIC_OP_REPORT:
		a.rbx = 1 | (u64)__builtin_popcountll(h->cpus) << 32;
		a.rdx = h->units;
		break;
	case ELASTIC_OP_REQUEST:
		q = hm_request_of(h, op);
		q.cpu.reason = q.cpu.most < q.cpu.need ? ELASTIC_R_MAX :
			       q.cpu.beyond ? ELASTIC_R_CEILING : 0;
		q.mem.reason = q.mem.most < q.mem.need ? ELASTIC_R_MAX :
			       q.mem.beyond ? ELASTIC_R_CEILING : 0;
		a.rcx = q.have;
		if ((q.cpu.reason || q.mem.reason) && op->rbx & ELASTIC_F_WHOLE) {
			a.status = ELASTIC_REFUSED;
			a.rdx = hm_reach(h, q.first, q.units, 0);
			a.rbx = ((u64)__builtin_popcountll(q.have) + q.cpu.most) <<
				ELASTIC_COULD_CPUS_SHIFT |
				hm_reach(h, q.first, q.units, q.mem.most) <<
				ELASTIC_COULD_UNITS_SHIFT;
			if (!q.cpu.reason && q.cpu.wanted)
				q.cpu.reason = ELASTIC_R_WHOLE;
			if (!q.mem.reason && q.mem.wanted)
				q.mem.reason = ELASTIC_R_WHOLE;
			a.rbx |= q.cpu.reason | q.mem.reason << 16;
			break;
		}
		for (i = 0; i < HM_CPUS && n < q.cpu.most; i++) {
			if (q.there & ~q.have & 1ULL << i) {
				a.rcx |= 1ULL << i;
				n++;
			}
		}
		a.rdx = hm_reach(h, q.first, q.units, q.mem.most);
		a.rbx = q.cpu.reason | q.mem.reason << 16;
		a.status = !a.rbx ? ELASTIC_OK : a.rcx || a.rdx ? ELASTIC_PARTIAL :
			   ELASTIC_REFUSED;
		break;
	case ELASTIC_OP_RELEASE_CPU:
		if (!(op->rbx >> ELASTIC_WORD_SHIFT & ELASTIC_WORD_MASK))
			a.rcx = h->cpus & ~op->rdx;
		break;
	case ELASTIC_OP_RELEASE_MEM:
	case ELASTIC_OP_DISCARD:
		for (i = 0; i < op->rsi; i++)
			a.rdx += r[i].nr;
		if (fault == HM_MISCOUNT && code == ELASTIC_OP_RELEASE_MEM && op->rsi > 2)
			++*off;
		break;
	}
	hm_settle(h, op, &x, &a);
	return a;
}

/* The text form: one operation a line, numbers in hexadecimal */

static inline void hm_print_op(FILE *out, const struct hm_op *op)
{
	static const char *const names[] = {
		"HELLO", "REPORT", "REQUEST", "RELEASE_CPU", "RELEASE_MEM", "DISCARD", "BYE",
	};
	u64 code = op->rbx & ELASTIC_OP_MASK;
	unsigned int i;

	switch (op->kind) {
	case HM_RESET:
		fprintf(out, "reset\n");
		return;
	case HM_SET:
		fprintf(out, "set %s %llu\n", hm_files[op->file], (unsigned long long)op->rdx);
		return;
	case HM_READ:
	case HM_WRITE:
		fprintf(out, "%u %s %llx\n", op->vcpu, op->kind == HM_READ ? "read" : "write",
			(unsigned long long)op->rdx);
		return;
	case HM_CALL:
		break;
	}
	fprintf(out, "%u %s %llx %s %llx %llx", op->vcpu, hm_modes[op->mode],
		(unsigned long long)op->rbx, hm_cookies[op->cookie],
		(unsigned long long)op->rdx, (unsigned long long)op->rsi);
	for (i = 0; i < op->nr_words; i++)
		fprintf(out, " %llx", (unsigned long long)op->words[i]);
	fprintf(out, " ; %s\n", code < ELASTIC_OP_NR ? names[code] : "unknown");
}

static inline void hm_print(FILE *out, const struct hm_seq *s, const char *lead)
{
	unsigned int i;

	if (s->together)
		fprintf(out, "%stogether\n", lead);
	for (i = 0; i < s->nr; i++) {
		fprintf(out, "%s", lead);
		hm_print_op(out, &s->op[i]);
	}
}

static inline int hm_find(const char *const *names, int nr, const char *name)
{
	int i;

	for (i = 0; i < nr; i++)
		if (!strcmp(names[i], name))
			return i;
	return -1;
}

static inline bool hm_parse_call(struct hm_op *op, char *rest)
{
	static const char blank[] = " \t\n";
	char *word, *state;
	u64 number[3];
	int i, cookie = -1;

	for (i = 0, word = strtok_r(rest, blank, &state); i < 4 && word; i++) {
		if (i == 1)
			cookie = hm_find(hm_cookies, HM_NR_COOKIES, word);
		else
			number[i ? i - 1 : 0] = strtoull(word, NULL, 16);
		word = strtok_r(NULL, blank, &state);
	}
	if (i < 4 || cookie < 0)
		return false;
	op->cookie = (enum hm_cookie)cookie;
	op->rbx = number[0];
	op->rdx = number[1];
	op->rsi = number[2];
	op->words = calloc(HM_ARG_MAX / 8 + 16, 8);
	for (; word && op->words && op->nr_words < HM_ARG_MAX / 8 + 16;
	     word = strtok_r(NULL, blank, &state))
		op->words[op->nr_words++] = strtoull(word, NULL, 16);
	return true;
}

/* One line; false: not understood */
static inline bool hm_parse_line(struct hm_seq *s, char *line)
{
	struct hm_op *op = &s->op[s->nr];
	char what[32];
	unsigned long long value;
	unsigned int vcpu;
	int len = 0, mode;

	line[strcspn(line, ";#\n")] = 0;
	if (!line[strspn(line, " \t")])
		return true;
	memset(op, 0, sizeof(*op));
	if (sscanf(line, "%31s", what) == 1 && !strcmp(what, "together")) {
		s->together = true;
		return true;
	}
	if (s->nr == HM_MAX_OPS)
		return false;
	if (!strcmp(what, "reset")) {
		op->kind = HM_RESET;
	} else if (sscanf(line, " set %31s %llu", what, &value) == 2) {
		mode = hm_find(hm_files, HM_NR_FILES, what);
		if (mode < 0)
			return false;
		op->kind = HM_SET;
		op->file = (enum hm_file)mode;
		op->rdx = value;
	} else if (sscanf(line, " %u %31s %n", &vcpu, what, &len) >= 2 && vcpu < HM_CPUS) {
		op->vcpu = vcpu;
		mode = hm_find(hm_modes, KG_NR_MODES, what);
		if (mode >= 0) {
			op->mode = (enum kg_mode)mode;
			if (!hm_parse_call(op, line + len))
				return false;
		} else if (!strcmp(what, "read") || !strcmp(what, "write")) {
			op->kind = *what == 'r' ? HM_READ : HM_WRITE;
			op->rdx = strtoull(line + len, NULL, 16);
		} else {
			return false;
		}
	} else {
		return false;
	}
	s->nr++;
	return true;
}

static inline void hm_free(struct hm_seq *s)
{
	unsigned int i;

	for (i = 0; i < s->nr; i++)
		free(s->op[i].words);
	s->nr = 0;
	s->together = false;
}

#endif /* SELFTESTS_HOSTILE_MODEL_H */
