// SPDX-License-Identifier: GPL-2.0
// Copyright (C) the kvm-elastic authors
/*
 * When the policy is asked, with which numbers, and what comes of it: rounds
 * over all VMs at REPORT, REQUEST and by timer; deadlines; and the memory pool,
 * which shrinks while the host itself is short.
 *
 * A VM's own report is bounded by what the host sees of it: how long the
 * threads of its vCPUs ran or waited for a CPU, and how much memory its VMM's
 * process has.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/mm.h>
#include <linux/oom.h>
#include <linux/vmstat.h>

#include "compat/mm.h"
#include "elastic_host.h"
#include "trace.h"

#define TICK_MS		250
/* A vCPU that was seized runs in one of so many ticks. */
#define PAROLE_TICKS	8
/* A round costs less than half a microsecond for each VM. */
#define ROUND_GAP_NS	10000
/* Up to so many VMs there is a round with every call. */
#define ROUND_GAP_VMS	16
/* A shorter time says nothing about how long a thread wanted to run. */
#define MEASURE_NS	(500 * NSEC_PER_MSEC)

/* The VMs that the pools pay for; under elastic_ledger_lock. */
LIST_HEAD(elastic_charged);

/*
 * Room for one claim of each record that there is, so that a round needs no
 * memory: a guest short of it may have a host that is, too. All of this is
 * under elastic_ledger_lock.
 */
static struct elastic_claim *claims;
static unsigned int nr_claims, nr_records;
static u64 last_round_ns;
static bool changed;
static bool no_tick = true;

/* The host's own memory, at the last look. */
static u64 looked_ms, stalls_seen;
static atomic_t host_ooms = ATOMIC_INIT(0);

static void tick(struct work_struct *work);
static DECLARE_DELAYED_WORK(tick_work, tick);

/**
 * elastic_now_ms() - the time, for deadlines and buckets
 */
u64 elastic_now_ms(void)
{
	return ktime_get_ns() / NSEC_PER_MSEC;
}

static struct elastic_account *account(struct elastic_vm *vm,
				       const struct elastic_pool *pool)
{
	return pool == &elastic_cpu_pool ? &vm->cpu : &vm->mem;
}

static void claim_of(struct elastic_vm *vm, const struct elastic_pool *pool,
		     struct elastic_claim *c)
{
	const struct elastic_account *acc = account(vm, pool);
	u64 need = max(acc->need, acc->boot);

	/* No report comes any more: it keeps what it has while others can spare it. */
	if (!READ_ONCE(vm->cookie))
		need = max(need, acc->grant);
	*c = (struct elastic_claim) {
		/* The boot CPU stays. */
		.min = max_t(u64, acc->min, pool == &elastic_cpu_pool),
		.max = min(acc->max, acc->ceiling),
		.weight = acc->weight,
		.grant = acc->grant,
		.use = acc->demand,
		.need = need,
	};
	/* Frozen until it has come down. */
	if (acc->uncooperative)
		c->max = min(c->max, max(acc->grant + acc->seized, acc->min));
}

static void say_uncooperative(struct elastic_vm *vm,
			      const struct elastic_pool *pool,
			      const struct elastic_account *acc)
{
	bool cpu = pool == &elastic_cpu_pool;

	elastic_stat_add(vm, ELASTIC_STAT_UNCOOPERATIVE, 1);
	trace_elastic_uncooperative(vm->pid, !cpu, acc->grant, acc->target);
	pr_warn_ratelimited("VM %s has not come down to %llu %s in %llu ms\n",
			    vm->name, cpu ? acc->target :
			    acc->target * ELASTIC_UNITS_PER_MIB,
			    cpu ? "vCPUs" : "MiB", pool->deadline_ms);
}

/* Is the VM above its target, and for how long? */
static void watch(struct elastic_vm *vm, const struct elastic_pool *pool,
		  struct elastic_account *acc, u64 now_ms)
{
	u64 target = acc->target;

	/* Memory that a guest booted with cannot go. */
	if (pool == &elastic_mem_pool)
		target = max(target, acc->boot);
	if (acc->grant > target) {
		if (!acc->over_since_ms)
			acc->over_since_ms = now_ms;
		if (!acc->uncooperative &&
		    now_ms - acc->over_since_ms >= pool->deadline_ms) {
			acc->uncooperative = true;
			say_uncooperative(vm, pool, acc);
		}
		return;
	}
	acc->over_since_ms = 0;
	if (acc->uncooperative && !acc->seized) {
		acc->uncooperative = false;
		elastic_stat_add(vm, ELASTIC_STAT_FORGIVEN, 1);
		trace_elastic_forgiven(vm->pid, pool != &elastic_cpu_pool,
				       acc->grant);
	}
}

static void round_of(struct elastic_pool *pool, u64 now_ms)
{
	struct elastic_account *acc;
	struct elastic_vm *vm;
	unsigned int n = 0;

	lockdep_assert_held(&elastic_ledger_lock);

	list_for_each_entry(vm, &elastic_charged, ledger) {
		if (WARN_ON_ONCE(n == nr_claims))
			break;
		claim_of(vm, pool, &claims[n++]);
	}
	pool->missing = elastic_policy_divide(pool->now, claims, n);
	n = 0;
	list_for_each_entry(vm, &elastic_charged, ledger) {
		if (n == nr_claims)
			break;
		acc = account(vm, pool);
		acc->entitled = claims[n].entitled;
		acc->plan = claims[n].plan;
		acc->target = claims[n++].target;
		watch(vm, pool, acc, now_ms);
	}
	elastic_pool_recount(pool);
}

/* A round over both resources, unless the last one was only just. */
static void arbitrate(bool now)
{
	u64 ns = ktime_get_ns();
	u64 gap = nr_records > ROUND_GAP_VMS ? nr_records * ROUND_GAP_NS : 0;

	lockdep_assert_held(&elastic_ledger_lock);

	if (!now && !changed && ns - last_round_ns < gap)
		return;
	changed = false;
	round_of(&elastic_cpu_pool, ns / NSEC_PER_MSEC);
	round_of(&elastic_mem_pool, ns / NSEC_PER_MSEC);
	last_round_ns = ns;
}

/**
 * elastic_arbiter_changed() - limits, weights, pools or VMs are not what they were
 *
 * Context: elastic_ledger_lock held. It counts at the next REPORT or REQUEST.
 */
void elastic_arbiter_changed(void)
{
	lockdep_assert_held(&elastic_ledger_lock);

	changed = true;
}

/**
 * elastic_arbiter_tick_soon() - see to it that the timer runs
 *
 * Context: elastic_ledger_lock held.
 */
void elastic_arbiter_tick_soon(void)
{
	lockdep_assert_held(&elastic_ledger_lock);

	if (no_tick)
		return;
	/* To its end, where no VM is left to be short of anything. */
	if (!list_empty(&elastic_charged) || elastic_cpu_pool.shortage.told ||
	    elastic_mem_pool.shortage.told)
		elastic_vms_queue(&tick_work, TICK_MS);
}

/**
 * elastic_arbiter_add() - make room for one record more
 *
 * Context: may sleep.
 * Return: 0 or -ENOMEM.
 */
int elastic_arbiter_add(void)
{
	struct elastic_claim *more;
	int ret = 0;

	mutex_lock(&elastic_ledger_lock);
	if (nr_records == nr_claims) {
		more = kvmalloc_array(2 * nr_claims + 16, sizeof(*more),
				      GFP_KERNEL);
		if (more) {
			kvfree(claims);
			claims = more;
			nr_claims = 2 * nr_claims + 16;
		} else {
			ret = -ENOMEM;
		}
	}
	if (!ret)
		nr_records++;
	mutex_unlock(&elastic_ledger_lock);
	return ret;
}

/**
 * elastic_arbiter_remove() - undo elastic_arbiter_add()
 *
 * Context: may sleep.
 */
void elastic_arbiter_remove(void)
{
	mutex_lock(&elastic_ledger_lock);
	nr_records--;
	mutex_unlock(&elastic_ledger_lock);
}

static u64 wanted_ns(struct kvm *kvm)
{
	struct kvm_vcpu *vcpu;
	unsigned long i;
	u64 ns = 0;

	kvm_for_each_vcpu(i, vcpu, kvm)
		ns += elastic_vcpu_wanted_ns(vcpu);
	return ns;
}

static void measure(struct elastic_vm *vm, struct kvm *kvm)
{
	u64 now = ktime_get_ns(), ns;

	lockdep_assert_held(&vm->lock);

	if (now - vm->ran_at_ns < MEASURE_NS)
		return;
	ns = wanted_ns(kvm);
	/* A thread may have gone, and its time with it. */
	vm->ran_milli = ns > vm->ran_ns ?
		(ns - vm->ran_ns) / ((now - vm->ran_at_ns) / 1000 + 1) : 0;
	vm->ran_ns = ns;
	vm->ran_at_ns = now;
}

static void first_need(struct elastic_account *acc)
{
	acc->boot = acc->grant;
	acc->demand = acc->grant;
	acc->need = acc->grant;
	acc->entitled = acc->grant;
	acc->plan = acc->grant;
	acc->target = acc->grant;
	acc->bucket.milli = U64_MAX / 2;
	acc->bucket.at_ms = elastic_now_ms();
	acc->over_since_ms = 0;
	acc->uncooperative = false;
	acc->seized = 0;
}

/**
 * elastic_arbiter_hello() - a VM has said HELLO, and its grant is known
 * @vm: the VM
 * @kvm: KVM's VM
 * @again: it was enforced before: what it owed it still owes
 *
 * Context: vCPU, @vm->lock and elastic_ledger_lock held.
 */
void elastic_arbiter_hello(struct elastic_vm *vm, struct kvm *kvm, bool again)
{
	lockdep_assert_held(&elastic_ledger_lock);

	if (!again) {
		first_need(&vm->cpu);
		first_need(&vm->mem);
		vm->cpu.bound = 2 * vm->cpu.grant + 1;
		vm->mem.bound = vm->mem.grant + vm->mem.grant / 2 + 128;
		vm->ran_ns = wanted_ns(kvm);
		vm->ran_at_ns = ktime_get_ns();
		vm->ran_milli = vm->cpu.grant * 1000;
	}
	changed = true;
	elastic_arbiter_tick_soon();
}

/* What the VMM's process has of the host's memory, in units. */
static u64 resident_units(struct mm_struct *mm)
{
	return elastic_resident_pages(mm) >> ELASTIC_UNIT_GFN_SHIFT;
}

static u64 per_mille(u64 ns, u64 period_ns)
{
	return ns / (period_ns / 1000 + 1);
}

static void believe(struct elastic_account *acc, struct elastic_need n)
{
	acc->demand = n.use;
	acc->bound = n.bound;
	acc->need = elastic_policy_smooth(acc->need, n.need);
}

static void believe_cpus(struct elastic_vm *vm, const struct elastic_report *r)
{
	struct elastic_cpu_demand d = {
		.wanted = r->cpus_wanted,
		.runnable_milli = r->runnable_milli,
		.busy_milli = per_mille(r->busy_ns, r->period_ns) +
			      per_mille(r->steal_ns, r->period_ns),
		.ran_milli = vm->ran_milli,
		.max = vm->cpu.max,
	};

	believe(&vm->cpu, elastic_policy_cpu_need(&d));
}

static void believe_units(struct elastic_vm *vm, const struct elastic_report *r)
{
	struct elastic_mem_demand d = {
		.grant = vm->mem.grant,
		.wanted = r->units_wanted,
		.available = r->mem_available >> ELASTIC_UNIT_SHIFT,
		.pressed = r->reclaims || r->ooms,
		.resident = resident_units(current->mm),
		.max = vm->mem.max,
	};

	believe(&vm->mem, elastic_policy_mem_need(&d));
}

/**
 * elastic_arbiter_report() - take in a REPORT, and give the targets
 * @vm: the VM
 * @vcpu: the vCPU that makes the call
 * @r: what the guest says: any numbers
 * @targets: what it is told
 *
 * Context: vCPU, may sleep; @vm->lock held.
 */
void elastic_arbiter_report(struct elastic_vm *vm, struct kvm_vcpu *vcpu,
			    const struct elastic_report *r,
			    struct elastic_targets *targets)
{
	measure(vm, vcpu->kvm);
	mutex_lock(&elastic_ledger_lock);
	if (vm->charged) {
		vm->cpu.use = min_t(u64, r->cpus_online, vm->cpu.grant);
		vm->mem.use = min(r->units_online, vm->mem.grant);
	}
	believe_cpus(vm, r);
	believe_units(vm, r);
	arbitrate(false);
	targets->cpus = min(vm->cpu.target, vm->cpu.max);
	targets->cpu_grant = vm->cpu.grant;
	targets->units = min(vm->mem.target, vm->mem.max);
	targets->unit_grant = vm->mem.grant;
	trace_elastic_target(vm->pid, &vm->cpu, &vm->mem);
	mutex_unlock(&elastic_ledger_lock);
}

/**
 * elastic_arbiter_request() - a VM asks for more: look again who should have what
 * @vm: the VM
 * @cpus: vCPUs that it wants more
 * @units: units that it wants more
 *
 * Context: elastic_ledger_lock held.
 */
void elastic_arbiter_request(struct elastic_vm *vm, u64 cpus, u64 units)
{
	lockdep_assert_held(&elastic_ledger_lock);

	if (cpus)
		vm->cpu.need = max(vm->cpu.need,
				   min(vm->cpu.grant + cpus, vm->cpu.bound));
	if (units)
		vm->mem.need = max(vm->mem.need,
				   min(vm->mem.grant + units, vm->mem.bound));
	arbitrate(false);
}

/* The host is out of memory; anything may be locked here. */
static int host_oom(struct notifier_block *nb, unsigned long unused,
		    void *freed)
{
	atomic_inc(&host_ooms);
	return NOTIFY_OK;
}

static struct notifier_block oom_nb = { .notifier_call = host_oom };

/* The memory pool, while the host itself is short. */
static void look_at_host(void)
{
	u64 ms = elastic_now_ms(), stalls = elastic_direct_reclaims();
	struct elastic_host_memory host = {
		.available = si_mem_available() >> ELASTIC_UNIT_GFN_SHIFT,
		.low = elastic_mem_low,
		.ooms = atomic_xchg(&host_ooms, 0),
		.ms = ms - looked_ms,
	};
	struct elastic_pool *pool = &elastic_mem_pool;
	u64 now;

	lockdep_assert_held(&elastic_ledger_lock);

	/* Nobody looked while there was no VM: that is over. */
	if (host.ms > 4 * TICK_MS) {
		host.ooms = 0;
		pool->now = pool->total;
	} else if (host.available < 2 * host.low) {
		host.stalls = stalls - stalls_seen;
	} else {
		/* Where there is enough, it is of a node or a cpuset, not of the host. */
		host.ooms = 0;
	}
	stalls_seen = stalls;
	looked_ms = ms;
	now = elastic_policy_pool(pool->total, pool->now, pool->used, &host);
	if (now == pool->now)
		return;
	trace_elastic_pool(pool->total, now, pool->used, &host);
	pool->now = now;
}

/*
 * Enforce what is due on all VMs. A VM that is busy with a call does it itself
 * at the end of that call.
 *
 * Records go only in works of the same ordered queue, so none goes meanwhile.
 */
static void enforce(bool parole)
{
	struct elastic_vm *vm;
	struct kvm *kvm;

	mutex_lock(&elastic_vms_lock);
	list_for_each_entry(vm, &elastic_vms, all) {
		if (!elastic_seize_is_due(vm))
			continue;
		mutex_unlock(&elastic_vms_lock);
		kvm = elastic_vm_get_kvm(vm);
		if (kvm) {
			if (mutex_trylock(&vm->lock)) {
				elastic_seize_enforce(vm, kvm);
				if (parole)
					elastic_seize_parole(vm, elastic_now_ms() + TICK_MS / 2);
				mutex_unlock(&vm->lock);
			}
			kvm_put_kvm(kvm);
		}
		mutex_lock(&elastic_vms_lock);
	}
	mutex_unlock(&elastic_vms_lock);
}

static void tick(struct work_struct *work)
{
	static unsigned int ticks;

	mutex_lock(&elastic_ledger_lock);
	look_at_host();
	arbitrate(true);
	mutex_unlock(&elastic_ledger_lock);
	elastic_advice_look(&elastic_cpu_pool);
	elastic_advice_look(&elastic_mem_pool);
	enforce(ticks++ % PAROLE_TICKS == 0);
	elastic_place_look();
	mutex_lock(&elastic_ledger_lock);
	elastic_arbiter_tick_soon();
	mutex_unlock(&elastic_ledger_lock);
}

/**
 * elastic_arbiter_start() - begin to look at the host
 *
 * Context: may sleep; before any VM is known.
 */
void elastic_arbiter_start(void)
{
	mutex_lock(&elastic_ledger_lock);
	looked_ms = elastic_now_ms();
	stalls_seen = elastic_direct_reclaims();
	no_tick = false;
	mutex_unlock(&elastic_ledger_lock);
	register_oom_notifier(&oom_nb);
}

/**
 * elastic_arbiter_stop() - look no more, and touch no VM
 *
 * Context: may sleep; before the hooks go, while the end of a VM is not missed.
 */
void elastic_arbiter_stop(void)
{
	mutex_lock(&elastic_ledger_lock);
	no_tick = true;
	mutex_unlock(&elastic_ledger_lock);
	cancel_delayed_work_sync(&tick_work);
	unregister_oom_notifier(&oom_nb);
}

/**
 * elastic_arbiter_free() - give the room for claims back
 *
 * Context: may sleep; no VM is left.
 */
void elastic_arbiter_free(void)
{
	kvfree(claims);
	claims = NULL;
	nr_claims = 0;
}
