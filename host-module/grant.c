// SPDX-License-Identifier: GPL-2.0
// Copyright (C) the kvm-elastic authors
/*
 * The ledger: who has been granted what. The place that changes a grant (seize.c
 * does it by functions from here), and where use <= grant <= ceiling is checked.
 *
 * The bitmaps say which vCPUs and units are withheld; hold and gate read them
 * without a lock. The accounts and the pools count. Both change together:
 * a grant is charged before the bits say so, and credited after they do not.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/mm.h>
#include <linux/nospec.h>
#include <linux/slab.h>

#include "elastic_host.h"
#include "policy.h"
#include "trace.h"

/* Accounts, pools and limits of all VMs. Innermost but for KVM's own locks. */
DEFINE_MUTEX(elastic_ledger_lock);
struct elastic_pool elastic_cpu_pool;
struct elastic_pool elastic_mem_pool;

/* vCPUs for 100 CPUs of the host, and the part of memory left to the host. */
#define DEFAULT_OVERCOMMIT	400
#define DEFAULT_RESERVE_DIV	10
/* Of the reserve: with less than this available the host is short. */
#define LOW_DIV			4
#define DEFAULT_CPU_DEADLINE_MS	10000
#define DEFAULT_MEM_DEADLINE_MS	30000
#define DEFAULT_GROWTH		25
#define DEFAULT_ADVICE_MS	30000

u64 elastic_overcommit = DEFAULT_OVERCOMMIT;
u64 elastic_mem_low;
u64 elastic_advice_ms = DEFAULT_ADVICE_MS;

static u64 cpu_total(u64 reserve, u64 overcommit)
{
	u64 cpus = num_online_cpus();

	return (cpus - min(reserve, cpus)) * overcommit / 100;
}

static u64 mem_total(u64 reserve)
{
	u64 units = totalram_pages() >> ELASTIC_UNIT_GFN_SHIFT;

	return units - min(reserve, units);
}

/**
 * elastic_ledger_init() - set the pools to what the host has
 *
 * Four vCPUs per CPU online, and nine tenths of the memory.
 */
void elastic_ledger_init(void)
{
	u64 reserve = mem_total(0) / DEFAULT_RESERVE_DIV;

	elastic_cpu_pool = (struct elastic_pool) {
		.total = cpu_total(0, elastic_overcommit),
		.deadline_ms = DEFAULT_CPU_DEADLINE_MS,
		.growth = DEFAULT_GROWTH,
	};
	elastic_mem_pool = (struct elastic_pool) {
		.total = mem_total(reserve),
		.reserve = reserve,
		.deadline_ms = DEFAULT_MEM_DEADLINE_MS,
		.growth = DEFAULT_GROWTH,
	};
	elastic_cpu_pool.now = elastic_cpu_pool.total;
	elastic_mem_pool.now = elastic_mem_pool.total;
	elastic_mem_low = reserve / LOW_DIV;
}

static void pool_add(struct elastic_pool *pool,
		     const struct elastic_account *acc)
{
	u64 charge = elastic_policy_charge(acc->grant, acc->min);

	pool->used += charge;
	pool->planned += max(charge, acc->plan);
	pool->minimums += acc->min;
}

static void pool_sub(struct elastic_pool *pool,
		     const struct elastic_account *acc)
{
	u64 charge = elastic_policy_charge(acc->grant, acc->min);

	pool->used -= charge;
	pool->planned -= max(charge, acc->plan);
	pool->minimums -= acc->min;
}

/**
 * elastic_pool_recount() - sum up a pool anew, after all plans have changed
 * @pool: the pool
 *
 * Context: elastic_ledger_lock held.
 */
void elastic_pool_recount(struct elastic_pool *pool)
{
	struct elastic_vm *vm;

	lockdep_assert_held(&elastic_ledger_lock);

	pool->used = 0;
	pool->planned = 0;
	pool->minimums = 0;
	list_for_each_entry(vm, &elastic_charged, ledger)
		pool_add(pool, pool == &elastic_cpu_pool ? &vm->cpu : &vm->mem);
}

/**
 * elastic_ledger_recharge() - have the pool pay for another grant or minimum
 * @vm: the VM
 * @pool: the pool
 * @acc: the VM's account there
 * @grant: what it has from now on
 * @min: its minimum
 *
 * Context: elastic_ledger_lock held.
 */
void elastic_ledger_recharge(struct elastic_vm *vm, struct elastic_pool *pool,
			     struct elastic_account *acc, u64 grant, u64 min)
{
	lockdep_assert_held(&elastic_ledger_lock);

	/* A reset came before this call was at its end: it has its ceiling. */
	if (!vm->charged) {
		acc->min = min;
		return;
	}
	pool_sub(pool, acc);
	acc->grant = grant;
	acc->min = min;
	acc->use = min(acc->use, grant);
	acc->boot = min(acc->boot, grant);
	pool_add(pool, acc);
}

static void charge(struct elastic_vm *vm)
{
	lockdep_assert_held(&elastic_ledger_lock);

	vm->charged = true;
	list_add_tail(&vm->ledger, &elastic_charged);
	pool_add(&elastic_cpu_pool, &vm->cpu);
	pool_add(&elastic_mem_pool, &vm->mem);
}

static void uncharge(struct elastic_vm *vm)
{
	lockdep_assert_held(&elastic_ledger_lock);

	if (!vm->charged)
		return;
	vm->charged = false;
	list_del(&vm->ledger);
	pool_sub(&elastic_cpu_pool, &vm->cpu);
	pool_sub(&elastic_mem_pool, &vm->mem);
	elastic_arbiter_changed();
}

/* A VM that is not managed has its whole ceiling, and no pool pays for it. */
static void settle(struct elastic_vm *vm)
{
	lockdep_assert_held(&elastic_ledger_lock);

	if (elastic_vm_enforced(vm))
		return;
	uncharge(vm);
	vm->cpu.grant = vm->cpu.ceiling;
	vm->cpu.use = vm->cpu.ceiling;
	vm->mem.grant = vm->mem.ceiling;
	vm->mem.use = vm->mem.ceiling;
	vm->cpu.seized = 0;
	vm->cpu.uncooperative = false;
	vm->mem.uncooperative = false;
}

/**
 * elastic_grant_settle() - bring the accounts up to date after a reset
 * @vm: the VM
 */
void elastic_grant_settle(struct elastic_vm *vm)
{
	mutex_lock(&elastic_ledger_lock);
	settle(vm);
	mutex_unlock(&elastic_ledger_lock);
}

static void units_free(struct elastic_units *units)
{
	if (!units)
		return;
	kvfree(units->ceiling);
	kvfree(units->withheld);
	kfree(units);
}

/**
 * elastic_grant_end() - the VM is gone: give everything back to the pools
 * @vm: the VM, which nobody finds any more
 */
void elastic_grant_end(struct elastic_vm *vm)
{
	mutex_lock(&elastic_ledger_lock);
	uncharge(vm);
	mutex_unlock(&elastic_ledger_lock);
	/* No vCPU, or no hook, is left that could read it. */
	units_free(rcu_dereference_protected(vm->units, true));
	RCU_INIT_POINTER(vm->units, NULL);
	kvfree(vm->before);
	vm->before = NULL;
}

static struct elastic_units *vm_units(struct elastic_vm *vm)
{
	return rcu_dereference_protected(vm->units, lockdep_is_held(&vm->lock));
}

/* First frame behind the writable guest RAM that runs on from @gfn. */
static gfn_t ram_run_end(struct kvm *kvm, gfn_t gfn)
{
	struct kvm_memory_slot *slot;

	for (;;) {
		slot = __gfn_to_memslot(kvm_memslots(kvm), gfn);
		if (!slot || slot->id >= KVM_USER_MEM_SLOTS ||
		    slot->flags & KVM_MEM_READONLY)
			return gfn;
		gfn = slot->base_gfn + slot->npages;
	}
}

/*
 * Where x86 machines have their RAM: from 0 with the hole of the PC below
 * 1 MiB, from 4 GiB, and from 1 TiB on where a large VM steps over AMD's
 * HyperTransport hole. RAM runs on without a gap; ROM, VGA memory and device
 * memory lie elsewhere or are not writable.
 */
static const u64 ram_starts[] = { 0, SZ_1M, SZ_4G, SZ_1T };

/* Find the runs of RAM, as whole units. */
static unsigned int find_ram(struct kvm_vcpu *vcpu, struct elastic_range *runs)
{
	u64 start, end, done = 0;
	unsigned int i, n = 0;

	kvm_vcpu_srcu_read_lock(vcpu);
	for (i = 0; i < ARRAY_SIZE(ram_starts); i++) {
		start = ram_starts[i] >> PAGE_SHIFT;
		end = ram_run_end(vcpu->kvm, start);
		start = DIV_ROUND_UP(start, 1 << ELASTIC_UNIT_GFN_SHIFT);
		end >>= ELASTIC_UNIT_GFN_SHIFT;
		start = max(start, done);
		if (end <= start)
			continue;
		runs[n].first = start;
		runs[n++].nr = end - start;
		done = end;
	}
	kvm_vcpu_srcu_read_unlock(vcpu);
	return n;
}

/**
 * elastic_grant_possible() - can the memory of this VM be withheld by unit?
 * @vcpu: a vCPU of it
 *
 * Where the host's pages are larger than a unit, KVM maps several units at
 * once when the guest touches one.
 *
 * Context: vCPU, kvm->srcu not held, may sleep.
 */
bool elastic_grant_possible(struct kvm_vcpu *vcpu)
{
	struct elastic_range runs[ARRAY_SIZE(ram_starts)];
	unsigned int i, n = find_ram(vcpu, runs);

	for (i = 0; i < n; i++) {
		if (elastic_has_giant_pages(vcpu, &runs[i]))
			return false;
	}
	return true;
}

static struct elastic_units *units_alloc(u64 nr)
{
	struct elastic_units *units;

	if (nr >= ELASTIC_MAX_UNIT)
		return NULL;
	units = kzalloc(sizeof(*units), GFP_KERNEL_ACCOUNT);
	if (!units)
		return NULL;
	units->nr = nr;
	units->ceiling = kvcalloc(BITS_TO_LONGS(nr), sizeof(long),
				  GFP_KERNEL_ACCOUNT);
	units->withheld = kvcalloc(BITS_TO_LONGS(nr), sizeof(long),
				   GFP_KERNEL_ACCOUNT);
	if (!units->ceiling || !units->withheld) {
		units_free(units);
		return NULL;
	}
	return units;
}

/* Cut @r to the @nr units that there are. Return: false if nothing is left. */
static bool clip(const struct elastic_range *r, u64 nr, u64 *start, u64 *end)
{
	if (r->first >= nr)
		return false;
	*start = r->first;
	*end = r->first + min(r->nr, nr - r->first);
	return true;
}

/*
 * The memory that the VMM created, less what the guest says it does not hold.
 * What was in the ceiling, and what was withheld, stays so until a reset: a
 * guest can make memory disappear for a moment by moving a device over it.
 */
static struct elastic_units *units_find(struct kvm_vcpu *vcpu,
					const struct elastic_range *absent,
					unsigned int nr,
					const struct elastic_units *old)
{
	struct elastic_range runs[ARRAY_SIZE(ram_starts)];
	unsigned int i, n = find_ram(vcpu, runs);
	struct elastic_units *units;
	u64 start, end;

	end = n ? runs[n - 1].first + runs[n - 1].nr : 0;
	units = units_alloc(old ? max(old->nr, end) : end);
	if (!units)
		return NULL;
	for (i = 0; i < n; i++)
		bitmap_set(units->ceiling, runs[i].first, runs[i].nr);
	if (old) {
		bitmap_or(units->ceiling, units->ceiling, old->ceiling,
			  old->nr);
		bitmap_copy(units->withheld, old->withheld, old->nr);
	}
	for (i = 0; i < nr; i++) {
		if (clip(&absent[i], units->nr, &start, &end))
			bitmap_set(units->withheld, start, end - start);
	}
	bitmap_and(units->withheld, units->withheld, units->ceiling, units->nr);
	return units;
}

/* vCPUs that the VMM created, and of those the ones outside @held. */
static void cpus_find(struct kvm *kvm, const u64 *held, unsigned int nr_words,
		      unsigned long *ceiling, unsigned long *withheld)
{
	struct kvm_vcpu *vcpu;
	unsigned long i;
	unsigned int id;

	bitmap_zero(ceiling, ELASTIC_MAX_CPUS);
	bitmap_zero(withheld, ELASTIC_MAX_CPUS);
	kvm_for_each_vcpu(i, vcpu, kvm) {
		id = vcpu->vcpu_id;
		if (id >= ELASTIC_MAX_CPUS)
			continue;
		__set_bit(id, ceiling);
		if (id / 64 >= nr_words || !(held[id / 64] & BIT_ULL(id % 64)))
			__set_bit(id, withheld);
	}
}

/* A limit that the administrator set outlives the ceiling of the moment. */
static void new_ceiling(const struct elastic_pool *pool,
			struct elastic_account *acc, u64 ceiling, bool again)
{
	acc->ceiling = ceiling;
	if (!acc->user_max)
		acc->max = ceiling;
	/* Who is admitted keeps the minimum with which he was. */
	if (!acc->user_min)
		acc->min = min3(again ? acc->min : pool->min, acc->max, ceiling);
}

/* Would all minimums still be kept with this VM? */
static bool admit(const struct elastic_pool *pool,
		  const struct elastic_account *acc)
{
	return elastic_policy_admit(pool->total, pool->minimums, acc->min);
}

/* Hold the vCPUs and take the memory that are withheld from now on. */
static void take_fresh(struct elastic_vm *vm, struct kvm_vcpu *vcpu,
		       struct elastic_units *units, struct elastic_units *old)
{
	struct elastic_range r;
	u64 i, nr_old = old ? min(old->nr, units->nr) : 0;

	for (i = 0; i < ELASTIC_MAX_CPU_WORDS; i++)
		elastic_hold_kick(vcpu->kvm, i, vm->cpu_withheld[i]);

	elastic_reclaim_wait(vcpu);
	r.nr = 0;
	for_each_set_bit(i, units->withheld, units->nr) {
		if (i < nr_old && test_bit(i, old->withheld))
			continue;
		if (r.nr && r.first + r.nr == i) {
			r.nr++;
			continue;
		}
		if (r.nr)
			elastic_reclaim(vm, vcpu, &r, true);
		r.first = i;
		r.nr = 1;
	}
	if (r.nr)
		elastic_reclaim(vm, vcpu, &r, true);
}

/**
 * elastic_grant_begin() - enforce from now on what the guest says it holds
 * @vm: the VM
 * @vcpu: the vCPU that says HELLO
 * @held: words of the set of vCPUs held
 * @nr_words: how many
 * @absent: ranges of units not held, checked
 * @nr: how many
 *
 * A VM that is enforced already keeps withheld what is withheld. Whoever
 * holds more than the pool has is admitted, and the pool is overdrawn; but not
 * whoever would leave less than the minimums of all.
 *
 * Context: vCPU, kvm->srcu not held, @vm->lock held.
 * Return: 0, -ENOMEM, or -EDQUOT if the VM is not admitted: it stays unmanaged.
 */
int elastic_grant_begin(struct elastic_vm *vm, struct kvm_vcpu *vcpu,
			const u64 *held, unsigned int nr_words,
			const struct elastic_range *absent, unsigned int nr)
{
	struct elastic_units *units, *old = vm_units(vm);
	unsigned int i;
	/* A reset from here on leaves this HELLO without effect. */
	int epoch = atomic_read(&vm->resets);
	bool again = elastic_vm_enforced(vm);
	unsigned long *ceiling, *withheld;

	lockdep_assert_held(&vm->lock);

	units = units_find(vcpu, absent, nr, again ? old : NULL);
	ceiling = bitmap_zalloc(2 * ELASTIC_MAX_CPUS, GFP_KERNEL);
	if (!units || !ceiling) {
		units_free(units);
		bitmap_free(ceiling);
		return -ENOMEM;
	}
	withheld = ceiling + BITS_TO_LONGS(ELASTIC_MAX_CPUS);
	cpus_find(vcpu->kvm, held, nr_words, ceiling, withheld);
	if (again) {
		bitmap_or(ceiling, ceiling, vm->cpu_ceiling, ELASTIC_MAX_CPUS);
		bitmap_or(withheld, withheld, vm->cpu_withheld,
			  ELASTIC_MAX_CPUS);
		bitmap_or(withheld, withheld, vm->cpu_seized, ELASTIC_MAX_CPUS);
	}

	mutex_lock(&elastic_ledger_lock);
	uncharge(vm);
	new_ceiling(&elastic_cpu_pool, &vm->cpu,
		    bitmap_weight(ceiling, ELASTIC_MAX_CPUS), again);
	new_ceiling(&elastic_mem_pool, &vm->mem,
		    bitmap_weight(units->ceiling, units->nr), again);
	if (!again && (!admit(&elastic_cpu_pool, &vm->cpu) ||
		       !admit(&elastic_mem_pool, &vm->mem))) {
		bitmap_copy(vm->cpu_ceiling, ceiling, ELASTIC_MAX_CPUS);
		settle(vm);
		mutex_unlock(&elastic_ledger_lock);
		units_free(units);
		bitmap_free(ceiling);
		return -EDQUOT;
	}
	/* What was taken and is not held any more was given up with that. */
	for (i = 0; i < ELASTIC_MAX_CPU_WORDS; i++)
		vm->cpu_seized[i] &= again && i < nr_words ? held[i] : 0;
	vm->cpu.seized = bitmap_weight(vm->cpu_seized, ELASTIC_MAX_CPUS);
	vm->parole_ms = 0;
	if (!again)
		bitmap_zero(vm->cpu_extra, ELASTIC_MAX_CPUS);
	bitmap_copy(vm->cpu_ceiling, ceiling, ELASTIC_MAX_CPUS);
	bitmap_copy(vm->cpu_withheld, withheld, ELASTIC_MAX_CPUS);
	rcu_assign_pointer(vm->units, units);
	vm->cpu.grant = vm->cpu.ceiling -
			bitmap_weight(withheld, ELASTIC_MAX_CPUS);
	vm->mem.grant = vm->mem.ceiling -
			bitmap_weight(units->withheld, units->nr);
	vm->cpu.use = vm->cpu.grant;
	vm->mem.use = vm->mem.grant;
	charge(vm);
	elastic_arbiter_hello(vm, vcpu->kvm, again);
	/* Now hold and gate are on. */
	smp_store_release(&vm->epoch, epoch);
	/* A reset that came meanwhile had nothing to settle; see there. */
	smp_mb();
	settle(vm);
	mutex_unlock(&elastic_ledger_lock);

	bitmap_free(ceiling);
	take_fresh(vm, vcpu, units, again ? old : NULL);
	if (old) {
		synchronize_rcu();
		units_free(old);
	}
	return 0;
}

/**
 * elastic_unit_withheld() - must the guest not touch this unit?
 * @vm: the VM
 * @unit: any number
 *
 * Context: any.
 */
bool elastic_unit_withheld(struct elastic_vm *vm, u64 unit)
{
	struct elastic_units *units;
	bool withheld = false;

	if (!elastic_vm_enforced(vm))
		return false;
	rcu_read_lock();
	units = rcu_dereference(vm->units);
	if (units && unit < units->nr)
		withheld = test_bit(array_index_nospec(unit, units->nr),
				    units->withheld);
	rcu_read_unlock();
	return withheld;
}

/**
 * elastic_grant_unit_span() - number of the unit behind the last one
 * @vm: the VM, enforced
 *
 * Context: @vm->lock held.
 */
u64 elastic_grant_unit_span(struct elastic_vm *vm)
{
	return vm_units(vm)->nr;
}

/**
 * elastic_ledger_decide() - the policy's answer for one account
 * @pool: the pool
 * @acc: the account
 * @want: how much more is wanted
 * @reason: why not all
 *
 * Context: elastic_ledger_lock held.
 * Return: how much more may be granted; the caller applies it.
 */
u64 elastic_ledger_decide(const struct elastic_pool *pool,
			  struct elastic_account *acc, u64 want,
			  enum elastic_reason *reason)
{
	u64 rate = pool->now * pool->growth / 100 + 1;
	struct elastic_ask ask = {
		.pool_total = pool->now,
		.pool_used = pool->used,
		.pool_planned = pool->planned,
		.grant = acc->grant,
		.min = acc->min,
		.max = acc->max,
		.plan = acc->plan,
		.target = acc->target,
		.entitled = acc->entitled,
		.tokens = elastic_policy_tokens(&acc->bucket, elastic_now_ms(),
						rate, rate),
		.want = want,
	};

	lockdep_assert_held(&elastic_ledger_lock);

	return elastic_policy_grant(&ask, reason);
}

/**
 * elastic_ledger_grow() - charge for more, and pay for what is beyond the VM's part
 * @vm: the VM
 * @pool: the pool
 * @acc: the VM's account there
 * @n: how much more
 *
 * Context: elastic_ledger_lock held.
 */
void elastic_ledger_grow(struct elastic_vm *vm, struct elastic_pool *pool,
			 struct elastic_account *acc, u64 n)
{
	u64 part = max3(acc->entitled, acc->min, acc->grant);
	u64 cost;

	lockdep_assert_held(&elastic_ledger_lock);

	elastic_ledger_recharge(vm, pool, acc, acc->grant + n, acc->min);
	cost = acc->grant > part ? (acc->grant - part) * 1000 : 0;
	acc->bucket.milli -= min(cost, acc->bucket.milli);
}

/**
 * elastic_cpus_withheld() - vCPUs outside the grant
 * @vm: the VM
 * @word: index of the word of the vCPU set, in range
 *
 * Also those that run for a moment although they were taken.
 *
 * Context: @vm->lock held, for an answer that lasts.
 */
u64 elastic_cpus_withheld(struct elastic_vm *vm, unsigned int word)
{
	return vm->cpu_withheld[word] | vm->cpu_seized[word];
}

/* How many new vCPUs the request needs, once the ceiling has had its say. */
static u64 cpus_needed(struct elastic_vm *vm, struct elastic_want *want,
		       u64 *candidates)
{
	unsigned int word = array_index_nospec(want->word,
					       ELASTIC_MAX_CPU_WORDS);
	u64 there = want->cpus & vm->cpu_ceiling[word];

	BUILD_BUG_ON(BITS_PER_LONG != 64);
	*candidates = there & elastic_cpus_withheld(vm, word);
	want->got_cpus = there & ~*candidates;
	if (hweight64(want->got_cpus) >= want->nr_cpus)
		return 0;
	if (hweight64(there) < want->nr_cpus)
		want->cpu_reason = ELASTIC_R_CEILING;
	return min_t(unsigned int, want->nr_cpus, hweight64(there)) -
	       hweight64(want->got_cpus);
}

/* Units of the request before the first that the VMM did not create. */
static u64 units_there(struct elastic_units *units, struct elastic_want *want)
{
	struct elastic_range r = { want->first, want->nr_units };
	u64 start, end = 0;

	if (want->nr_units && clip(&r, units->nr, &start, &end))
		end = find_next_zero_bit(units->ceiling, end, start) - start;
	if (end < want->nr_units)
		want->mem_reason = ELASTIC_R_CEILING;
	return end;
}

static u64 count_withheld(struct elastic_units *units, u64 first, u64 nr)
{
	u64 n = 0, i;

	for (i = first; i < first + nr; i++)
		n += test_bit(i, units->withheld);
	return n;
}

/* How far from @first the units reach of which no more than @n are withheld. */
static u64 reach(struct elastic_units *units, u64 first, u64 nr, u64 n)
{
	u64 i;

	for (i = 0; i < nr; i++) {
		if (test_bit(first + i, units->withheld) && !n--)
			break;
	}
	return i;
}

static void apply_cpus(struct elastic_vm *vm, struct elastic_want *want,
		       u64 candidates, u64 n)
{
	unsigned int id;

	for (; n; n--) {
		id = __ffs64(candidates);
		candidates &= candidates - 1;
		want->got_cpus |= BIT_ULL(id);
		clear_bit(want->word * 64 + id, vm->cpu_withheld);
		clear_bit(want->word * 64 + id, vm->cpu_seized);
		set_bit(want->word * 64 + id, vm->cpu_extra);
	}
}

/* After vCPUs went out of cpu_seized. */
static void recount_seized(struct elastic_vm *vm)
{
	lockdep_assert_held(&vm->lock);

	if (!READ_ONCE(vm->cpu.seized))
		return;
	mutex_lock(&elastic_ledger_lock);
	elastic_seize_recount(vm);
	mutex_unlock(&elastic_ledger_lock);
}

static void apply_units(struct elastic_units *units, struct elastic_want *want,
			u64 nr)
{
	u64 i;

	want->got_units = nr;
	for (i = want->first; i < want->first + nr; i++)
		clear_bit(i, units->withheld);
}

static void count_refusal(struct elastic_vm *vm, enum elastic_reason reason)
{
	if (reason == ELASTIC_R_MAX)
		elastic_stat_add(vm, ELASTIC_STAT_REFUSED_MAX, 1);
	else if (reason == ELASTIC_R_POOL)
		elastic_stat_add(vm, ELASTIC_STAT_REFUSED_POOL, 1);
	else if (reason == ELASTIC_R_CEILING)
		elastic_stat_add(vm, ELASTIC_STAT_REFUSED_CEILING, 1);
	else if (reason == ELASTIC_R_RATE)
		elastic_stat_add(vm, ELASTIC_STAT_REFUSED_RATE, 1);
}

/* A part is not wanted: say so for the half that would have been possible. */
static void refuse_whole(struct elastic_want *want)
{
	if (want->cpu_reason == ELASTIC_R_NONE && want->nr_cpus)
		want->cpu_reason = ELASTIC_R_WHOLE;
	if (want->mem_reason == ELASTIC_R_NONE && want->nr_units)
		want->mem_reason = ELASTIC_R_WHOLE;
}

/**
 * elastic_grant_request() - grant vCPUs and units
 * @vm: the VM
 * @want: the request, in bounds; the outcome
 *
 * Context: may sleep; @vm->lock held.
 * Return: ELASTIC_OK, ELASTIC_PARTIAL or ELASTIC_REFUSED.
 */
long elastic_grant_request(struct elastic_vm *vm, struct elastic_want *want)
{
	struct elastic_units *units = vm_units(vm);
	enum elastic_reason limit;
	u64 candidates, cpus, n, there, nr_new, k, could = 0;
	bool all, some;

	lockdep_assert_held(&vm->lock);

	want->cpu_reason = ELASTIC_R_NONE;
	want->mem_reason = ELASTIC_R_NONE;
	cpus = cpus_needed(vm, want, &candidates);
	there = units_there(units, want);
	nr_new = count_withheld(units, want->first, there);

	want->could_cpus = 0;
	want->could_units = 0;

	mutex_lock(&elastic_ledger_lock);
	elastic_arbiter_request(vm, cpus, nr_new);
	n = elastic_ledger_decide(&elastic_cpu_pool, &vm->cpu, cpus, &limit);
	if (n < cpus)
		want->cpu_reason = limit;
	k = elastic_ledger_decide(&elastic_mem_pool, &vm->mem, nr_new, &limit);
	if (k < nr_new)
		want->mem_reason = limit;
	all = want->cpu_reason == ELASTIC_R_NONE &&
	      want->mem_reason == ELASTIC_R_NONE;
	if (!all && want->whole) {
		refuse_whole(want);
		want->could_cpus = hweight64(want->got_cpus) + n;
		could = k;
		n = 0;
		k = 0;
	}
	elastic_ledger_grow(vm, &elastic_cpu_pool, &vm->cpu, n);
	elastic_ledger_grow(vm, &elastic_mem_pool, &vm->mem, k);
	mutex_unlock(&elastic_ledger_lock);

	if (!all && want->whole)
		want->could_units = reach(units, want->first, there, could);
	apply_cpus(vm, want, candidates, n);
	recount_seized(vm);
	apply_units(units, want, reach(units, want->first, there, k));
	some = want->got_cpus || want->got_units;
	count_refusal(vm, want->cpu_reason);
	count_refusal(vm, want->mem_reason);
	/* Who was granted must see it before it is woken. */
	if (n && wq_has_sleeper(&vm->held))
		wake_up_all(&vm->held);
	if (all)
		return ELASTIC_OK;
	return some && !want->whole ? ELASTIC_PARTIAL : ELASTIC_REFUSED;
}

/**
 * elastic_grant_release_cpus() - take vCPUs out of the grant
 * @vm: the VM
 * @word: which word of the vCPU set
 * @cpus: which vCPUs; those not granted are passed over
 *
 * Context: may sleep; @vm->lock held. The caller kicks them.
 * Return: which of them were granted.
 */
u64 elastic_grant_release_cpus(struct elastic_vm *vm, unsigned int word,
			       u64 cpus)
{
	u64 left;

	lockdep_assert_held(&vm->lock);

	word = array_index_nospec(word, ELASTIC_MAX_CPU_WORDS);
	cpus &= vm->cpu_ceiling[word];
	for (left = cpus & vm->cpu_seized[word]; left; left &= left - 1) {
		set_bit(word * 64 + __ffs64(left), vm->cpu_withheld);
		clear_bit(word * 64 + __ffs64(left), vm->cpu_seized);
		cpus &= ~BIT_ULL(__ffs64(left));
	}
	recount_seized(vm);
	cpus &= ~vm->cpu_withheld[word];
	for (left = cpus; left; left &= left - 1)
		set_bit(word * 64 + __ffs64(left), vm->cpu_withheld);

	mutex_lock(&elastic_ledger_lock);
	elastic_ledger_recharge(vm, &elastic_cpu_pool, &vm->cpu,
				vm->cpu.grant - hweight64(cpus), vm->cpu.min);
	mutex_unlock(&elastic_ledger_lock);
	return cpus;
}

/**
 * elastic_grant_check() - are all units of a range granted?
 * @vm: the VM
 * @r: the range, not empty, any numbers
 *
 * Context: @vm->lock held.
 * Return: ELASTIC_R_NONE, ELASTIC_R_CEILING or ELASTIC_R_NOT_GRANTED.
 */
int elastic_grant_check(struct elastic_vm *vm, const struct elastic_range *r)
{
	struct elastic_units *units = vm_units(vm);
	u64 end;

	if (r->first >= units->nr || r->nr > units->nr - r->first)
		return ELASTIC_R_CEILING;
	end = r->first + r->nr;
	if (find_next_zero_bit(units->ceiling, end, r->first) < end)
		return ELASTIC_R_CEILING;
	if (find_next_bit(units->withheld, end, r->first) < end)
		return ELASTIC_R_NOT_GRANTED;
	return ELASTIC_R_NONE;
}

/**
 * elastic_grant_release_units() - take units out of the grant
 * @vm: the VM
 * @r: units, all of them granted
 *
 * From here on the gate refuses them; what is mapped is for the caller to
 * take.
 *
 * Context: may sleep; @vm->lock held.
 */
void elastic_grant_release_units(struct elastic_vm *vm,
				 const struct elastic_range *r)
{
	struct elastic_units *units = vm_units(vm);
	u64 i;

	for (i = r->first; i < r->first + r->nr; i++)
		set_bit(i, units->withheld);
	/* A fault that saw the old bit is waited for: elastic_reclaim_wait(). */
	smp_mb__after_atomic();

	mutex_lock(&elastic_ledger_lock);
	elastic_ledger_recharge(vm, &elastic_mem_pool, &vm->mem,
				vm->mem.grant - r->nr, vm->mem.min);
	mutex_unlock(&elastic_ledger_lock);
}

/**
 * elastic_grant_set_limit() - set the minimum or maximum of one resource
 * @vm: the VM
 * @acc: its account, &@vm->cpu or &@vm->mem
 * @is_max: the maximum, else the minimum
 * @value: vCPUs or units
 *
 * A maximum below the grant takes nothing away; the guest is told in the
 * answer of its next REPORT.
 *
 * Context: may sleep.
 * Return: 0, -EINVAL if minimum and maximum would cross, -ERANGE if @value is
 * above the ceiling or leaves the VM without a vCPU, -ENOSPC if the pool is
 * less than all minimums together.
 */
int elastic_grant_set_limit(struct elastic_vm *vm, struct elastic_account *acc,
			    bool is_max, u64 value)
{
	struct elastic_pool *pool = acc == &vm->cpu ? &elastic_cpu_pool :
						      &elastic_mem_pool;
	int ret = 0;

	mutex_lock(&elastic_ledger_lock);
	if (value > acc->ceiling || (is_max && !value)) {
		ret = -ERANGE;
	} else if (is_max ? value < acc->min : value > acc->max) {
		ret = -EINVAL;
	} else if (is_max) {
		acc->max = value;
		acc->user_max = true;
	} else if (vm->charged && value > acc->min &&
		   !elastic_policy_admit(pool->total,
					 pool->minimums - acc->min, value)) {
		ret = -ENOSPC;
	} else {
		elastic_ledger_recharge(vm, pool, acc, acc->grant, value);
		acc->user_min = true;
	}
	elastic_arbiter_changed();
	mutex_unlock(&elastic_ledger_lock);
	return ret;
}

/**
 * elastic_grant_set_weight() - set a VM's weight for one resource
 * @vm: the VM
 * @acc: its account
 * @weight: the weight
 *
 * Context: may sleep.
 * Return: 0, or -ERANGE for 0 and above ELASTIC_WEIGHT_MAX.
 */
int elastic_grant_set_weight(struct elastic_vm *vm, struct elastic_account *acc,
			     u64 weight)
{
	if (!weight || weight > ELASTIC_WEIGHT_MAX)
		return -ERANGE;
	mutex_lock(&elastic_ledger_lock);
	acc->weight = weight;
	elastic_arbiter_changed();
	mutex_unlock(&elastic_ledger_lock);
	return 0;
}

/* All of it is there, unless the next look at the host says otherwise. */
static int pool_set(struct elastic_pool *pool, u64 total)
{
	lockdep_assert_held(&elastic_ledger_lock);

	if (total < pool->minimums)
		return -EBUSY;
	pool->total = total;
	pool->now = total;
	elastic_arbiter_changed();
	return 0;
}

/**
 * elastic_pool_set() - set the size of a pool
 * @pool: the pool
 * @total: vCPUs or units
 *
 * A pool below its use takes nothing away; nothing more is granted from it
 * until enough came back.
 *
 * Context: may sleep.
 * Return: 0, or -EBUSY below the sum of all minimums.
 */
int elastic_pool_set(struct elastic_pool *pool, u64 total)
{
	int ret;

	mutex_lock(&elastic_ledger_lock);
	ret = pool_set(pool, total);
	mutex_unlock(&elastic_ledger_lock);
	return ret;
}

/**
 * elastic_pool_set_reserve() - set what is left to the host, and so the pool
 * @pool: the pool
 * @reserve: CPUs or units
 *
 * Context: may sleep.
 * Return: 0, -ERANGE if the host has no more than that, or -EBUSY as above.
 */
int elastic_pool_set_reserve(struct elastic_pool *pool, u64 reserve)
{
	u64 has = pool == &elastic_cpu_pool ? num_online_cpus() : mem_total(0);
	int ret;

	if (reserve >= has)
		return -ERANGE;
	mutex_lock(&elastic_ledger_lock);
	ret = pool_set(pool, pool == &elastic_cpu_pool ?
			     cpu_total(reserve, elastic_overcommit) :
			     mem_total(reserve));
	if (!ret)
		pool->reserve = reserve;
	mutex_unlock(&elastic_ledger_lock);
	return ret;
}

/**
 * elastic_pool_set_overcommit() - set how many vCPUs there are for the CPUs
 * @percent: vCPUs for 100 CPUs
 *
 * Context: may sleep.
 * Return: 0, -ERANGE below 1 and above 10000, or -EBUSY as above.
 */
int elastic_pool_set_overcommit(u64 percent)
{
	struct elastic_pool *pool = &elastic_cpu_pool;
	int ret;

	if (!percent || percent > 10000)
		return -ERANGE;
	mutex_lock(&elastic_ledger_lock);
	ret = pool_set(pool, cpu_total(pool->reserve, percent));
	if (!ret)
		elastic_overcommit = percent;
	mutex_unlock(&elastic_ledger_lock);
	return ret;
}

/**
 * elastic_pool_set_tunable() - set a number that rounds and timers read
 * @tunable: where
 * @value: what, in bounds
 *
 * Context: may sleep.
 */
void elastic_pool_set_tunable(u64 *tunable, u64 value)
{
	mutex_lock(&elastic_ledger_lock);
	*tunable = value;
	elastic_arbiter_changed();
	mutex_unlock(&elastic_ledger_lock);
}
