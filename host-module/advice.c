// SPDX-License-Identifier: GPL-2.0
// Copyright (C) the kvm-elastic authors
/*
 * What the host cannot satisfy at all it says: which resource is short, by how
 * much, for how long, and which VMs had best be moved to another host. An
 * orchestrator polls a file or listens for an uevent.
 */
#include <linux/kernel.h>

#include "elastic_host.h"
#include "trace.h"

#define NR_CANDIDATES	3
#define TEXT_LEN	160

static struct elastic_candidate candidate_of(struct elastic_vm *vm,
					     const struct elastic_pool *pool)
{
	bool cpu = pool == &elastic_cpu_pool;

	return (struct elastic_candidate) {
		.grant = cpu ? vm->cpu.grant : vm->mem.grant,
		.cost = vm->mem.demand,
		.uncooperative = cpu ? vm->cpu.uncooperative :
				       vm->mem.uncooperative,
	};
}

static bool is_better(struct elastic_vm *a, struct elastic_vm *b,
		      const struct elastic_pool *pool)
{
	struct elastic_candidate ca = candidate_of(a, pool);
	struct elastic_candidate cb = candidate_of(b, pool);

	return elastic_policy_move_first(&ca, &cb, pool->missing);
}

/* The best VMs to move, best first. Return: how many. */
static unsigned int candidates(const struct elastic_pool *pool,
			       struct elastic_vm **best)
{
	struct elastic_candidate c;
	struct elastic_vm *vm;
	unsigned int n = 0, i;

	lockdep_assert_held(&elastic_ledger_lock);

	list_for_each_entry(vm, &elastic_charged, ledger) {
		c = candidate_of(vm, pool);
		if (elastic_policy_move(&c, pool->missing) == ELASTIC_MOVE_NO)
			continue;
		i = n;
		while (i && is_better(vm, best[i - 1], pool)) {
			if (i < NR_CANDIDATES)
				best[i] = best[i - 1];
			i--;
		}
		if (i < NR_CANDIDATES)
			best[i] = vm;
		n = min_t(unsigned int, n + 1, NR_CANDIDATES);
	}
	return n;
}

static const char *reason(struct elastic_vm *vm,
			  const struct elastic_pool *pool)
{
	static const char * const names[] = {
		[ELASTIC_MOVE_UNCOOPERATIVE] = "uncooperative",
		[ELASTIC_MOVE_ENOUGH] = "enough",
		[ELASTIC_MOVE_PART] = "part",
		[ELASTIC_MOVE_NO] = "no",
	};
	struct elastic_candidate c = candidate_of(vm, pool);

	return names[elastic_policy_move(&c, pool->missing)];
}

static u64 missing(const struct elastic_pool *pool)
{
	return pool == &elastic_cpu_pool ? pool->missing :
	       pool->missing * ELASTIC_UNITS_PER_MIB;
}

/* "PID:REASON,...", best first. */
static void write_candidates(const struct elastic_pool *pool,
			     struct elastic_vm **best, unsigned int n,
			     char *text)
{
	size_t len = 0;
	unsigned int i;

	text[0] = 0;
	for (i = 0; i < n; i++)
		len += scnprintf(text + len, TEXT_LEN - len, "%s%s:%s",
				 i ? "," : "", best[i]->name,
				 reason(best[i], pool));
}

/**
 * elastic_advice_show() - the advice as it is now
 * @pool: the pool
 * @buf: a page
 *
 * Context: may sleep.
 * Return: the length of the line.
 */
ssize_t elastic_advice_show(const struct elastic_pool *pool, char *buf)
{
	struct elastic_vm *best[NR_CANDIDATES];
	char text[TEXT_LEN];
	ssize_t ret;

	mutex_lock(&elastic_ledger_lock);
	if (pool->shortage.told) {
		write_candidates(pool, best, candidates(pool, best), text);
		ret = sysfs_emit(buf, "missing=%llu for_ms=%llu move=%s\n",
				 missing(pool), elastic_now_ms() -
				 pool->shortage.since_ms, text);
	} else {
		ret = sysfs_emit(buf, "none\n");
	}
	mutex_unlock(&elastic_ledger_lock);
	return ret;
}

/**
 * elastic_advice_look() - does an advice begin or end?
 * @pool: the pool, after a round
 *
 * Context: the arbiter's timer, in which no record goes; no lock held.
 */
void elastic_advice_look(struct elastic_pool *pool)
{
	struct elastic_vm *best[NR_CANDIDATES];
	char resource[32], lack[48], text[TEXT_LEN], move[TEXT_LEN + 32];
	char *env[4] = { resource, lack, move, NULL };
	bool cpu = pool == &elastic_cpu_pool;
	unsigned int n = 0;
	bool changed;

	mutex_lock(&elastic_ledger_lock);
	changed = elastic_policy_advise(&pool->shortage, pool->missing,
					elastic_now_ms(), elastic_advice_ms);
	if (changed && pool->shortage.told) {
		n = candidates(pool, best);
		write_candidates(pool, best, n, text);
		snprintf(resource, sizeof(resource), "ELASTIC_SHORT=%s",
			 cpu ? "cpu" : "memory");
		snprintf(lack, sizeof(lack), "ELASTIC_MISSING=%llu",
			 missing(pool));
		snprintf(move, sizeof(move), "ELASTIC_MOVE=%s", text);
	}
	if (changed)
		trace_elastic_advice(!cpu, pool->shortage.told, pool->missing);
	mutex_unlock(&elastic_ledger_lock);
	if (!changed)
		return;
	elastic_sysfs_notify_advice(cpu);
	if (n)
		kobject_uevent_env(&best[0]->kobj, KOBJ_CHANGE, env);
}
