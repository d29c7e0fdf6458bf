/* SPDX-License-Identifier: GPL-2.0 */
/* Copyright (C) the kvm-elastic authors */
/* What the files of the host module share. */
#ifndef ELASTIC_HOST_H
#define ELASTIC_HOST_H

#include <linux/atomic.h>
#include <linux/bitmap.h>
#include <linux/kobject.h>
#include <linux/mutex.h>
#include <linux/rcupdate.h>
#include <linux/types.h>
#include <linux/wait.h>
#include <linux/workqueue.h>

#include "compat/kvm_host.h"
#include "policy.h"
#include "uapi/elastic_hypercall.h"

#define ELASTIC_MAX_CPUS	(ELASTIC_MAX_CPU_WORDS * 64)
#define ELASTIC_UNITS_PER_MIB	2	/* divisor: MiB per unit */
#define ELASTIC_UNIT_GFN_SHIFT	(ELASTIC_UNIT_SHIFT - PAGE_SHIFT)

/**
 * enum elastic_vm_state - see "States of a VM" in the interface
 * @ELASTIC_VM_UNMANAGED: nothing is enforced
 * @ELASTIC_VM_MANAGED: a session exists
 * @ELASTIC_VM_DETACHED: enforced, without a session
 */
enum elastic_vm_state {
	ELASTIC_VM_UNMANAGED,
	ELASTIC_VM_MANAGED,
	ELASTIC_VM_DETACHED,
};

/**
 * @ELASTIC_STAT_OPS: first of the calls that were answered, by operation
 * @ELASTIC_STAT_STALE: calls with an unknown cookie
 * @ELASTIC_STAT_INVALID: malformed calls
 * @ELASTIC_STAT_FAULT: calls whose memory argument is not granted RAM
 * @ELASTIC_STAT_NOSYS: calls of operations that do not exist
 * @ELASTIC_STAT_REFUSED_MAX: halves of requests cut short by the VM's maximum
 * @ELASTIC_STAT_REFUSED_POOL: the same by the pool
 * @ELASTIC_STAT_REFUSED_CEILING: the same by the ceiling
 * @ELASTIC_STAT_REFUSED_RATE: the same by the limit of growth
 * @ELASTIC_STAT_UNCOOPERATIVE: times that a deadline passed
 * @ELASTIC_STAT_FORGIVEN: times that the VM was below its target again
 * @ELASTIC_STAT_SEIZED: vCPUs that were taken from it after a deadline
 * @ELASTIC_STAT_HELD: times that a vCPU began to be held
 * @ELASTIC_STAT_GATED: page frames refused
 * @ELASTIC_STAT_TAKEN: bytes of units whose backing the host took
 * @ELASTIC_STAT_DISCARDED: bytes that it took of units that stay granted
 * @ELASTIC_STAT_UNRECLAIMED: bytes of released units that it could not take
 * @ELASTIC_NR_STATS: how many there are
 */
enum elastic_stat {
	ELASTIC_STAT_OPS = 0,
	ELASTIC_STAT_STALE = ELASTIC_OP_NR,
	ELASTIC_STAT_INVALID,
	ELASTIC_STAT_FAULT,
	ELASTIC_STAT_NOSYS,
	ELASTIC_STAT_REFUSED_MAX,
	ELASTIC_STAT_REFUSED_POOL,
	ELASTIC_STAT_REFUSED_CEILING,
	ELASTIC_STAT_REFUSED_RATE,
	ELASTIC_STAT_UNCOOPERATIVE,
	ELASTIC_STAT_FORGIVEN,
	ELASTIC_STAT_SEIZED,
	ELASTIC_STAT_HELD,
	ELASTIC_STAT_GATED,
	ELASTIC_STAT_TAKEN,
	ELASTIC_STAT_DISCARDED,
	ELASTIC_STAT_UNRECLAIMED,
	ELASTIC_NR_STATS,
};

/**
 * struct elastic_account - one resource of one VM, in vCPUs or units
 * @ceiling: what the VMM created
 * @grant: how much of it is granted
 * @use: how much of that the guest says it uses; a claim
 * @min: kept free for the VM in the pool
 * @max: nothing is granted beyond it; what a VM holds at HELLO may be more
 * @user_max: @max was set by the administrator, so a new ceiling keeps it
 * @user_min: @min was set by the administrator
 * @weight: its part of what is beyond all minimums
 * @boot: least that it held since the first HELLO after its reset: what it
 *	booted with cannot be given up
 * @demand: how much of it is really used, as far as it is believed
 * @need: what it should have by its demand alone
 * @bound: most that is believed until the next report
 * @entitled: its part if all VMs wanted all
 * @plan: what the last round keeps for it
 * @target: what the last round lets it have
 * @bucket: limits growth beyond @entitled
 * @over_since_ms: since when it is above its target, 0 if it is not
 * @uncooperative: the deadline passed, and it has not come down since
 * @seized: vCPUs taken from it that it has not given up; vCPUs only
 *
 * Modified under elastic_ledger_lock.
 */
struct elastic_account {
	u64 ceiling;
	u64 grant;
	u64 use;
	u64 min;
	u64 max;
	bool user_max;
	bool user_min;
	u64 weight;
	u64 boot;
	u64 demand;
	u64 need;
	u64 bound;
	u64 entitled;
	u64 plan;
	u64 target;
	struct elastic_bucket bucket;
	u64 over_since_ms;
	bool uncooperative;
	u64 seized;
};

/**
 * struct elastic_units - the memory ceiling of one session
 * @nr: number of units that the bitmaps cover
 * @ceiling: units that are guest RAM
 * @withheld: units of @ceiling outside the grant
 */
struct elastic_units {
	u64 nr;
	unsigned long *ceiling;
	unsigned long *withheld;
};

struct elastic_seat;

/**
 * struct elastic_vm - a VM that has said HELLO
 * @kvm: KVM's VM. Compared, and used only from one of its vCPUs' contexts: no
 *	reference is held, the end of the VM is observed.
 * @hash: in the registry; under its lock, read under RCU
 * @all: in the list of all, dying ones included; under elastic_vms_lock
 * @rcu: freed after a grace period
 * @kobj: the directory vms/<name>; its reference is the one that frees
 * @name: directory name, unique
 * @pid: of the VMM, in its own thread group's leader's terms
 * @lock: serialises the operations of the VM, the taking of memory included
 * @resets: counts resets of the VM, from 1
 * @epoch: @resets when the enforced grant began; it is enforced while equal
 * @cookie: of the session, 0 if there is none; under @lock
 * @features: that hold in the session; under @lock
 * @charged: the VM stands in the pools; under elastic_ledger_lock
 * @ledger: in the list of those that do; under elastic_ledger_lock
 * @cpu: the vCPU account
 * @mem: the memory account, in units
 * @cpu_ceiling: vCPU ids that the VMM created; under @lock
 * @cpu_withheld: those outside the grant; bits change atomically under @lock
 * @cpu_seized: those of them that were taken after a deadline; they are let run
 *	now and then, so this goes before @cpu_withheld; under @lock
 * @cpu_extra: vCPUs granted since the first HELLO after a reset; bits change
 *	atomically under @lock
 * @seats: where the first @nr_seats vCPUs run; made in the first HELLO, see place.c
 * @nr_seats: how many; read with acquire semantics outside @lock
 * @home_node: NUMA node of its memory, NUMA_NO_NODE if that is not known
 * @parole_ms: until when they are let run, 0: not now; under @lock
 * @ran_ns: time that the vCPUs' threads wanted to run, at @ran_at_ns; under @lock
 * @ran_at_ns: when that was
 * @ran_milli: vCPUs that wanted to run, times 1000, in the time before
 * @before: times of single vCPUs, while it is decided which are seized; under
 *	@lock
 * @nr_before: how many
 * @before_ms: when they were read
 * @units: what memory there is; replaced under @lock, read under RCU
 * @held: vCPUs outside the grant sleep here
 * @settle: brings the ledger up to date after a reset
 * @gone: undoes the VM after KVM destroyed it
 * @stats: counters
 */
struct elastic_vm {
	struct kvm *kvm;
	struct hlist_node hash;
	struct list_head all;
	struct rcu_head rcu;
	struct kobject kobj;
	char name[24];
	pid_t pid;

	struct mutex lock;	/* operations of the VM, one after the other */
	atomic_t resets;
	int epoch;
	u64 cookie;
	u64 features;

	bool charged;
	struct list_head ledger;
	struct elastic_account cpu;
	struct elastic_account mem;

	DECLARE_BITMAP(cpu_ceiling, ELASTIC_MAX_CPUS);
	DECLARE_BITMAP(cpu_withheld, ELASTIC_MAX_CPUS);
	DECLARE_BITMAP(cpu_seized, ELASTIC_MAX_CPUS);
	DECLARE_BITMAP(cpu_extra, ELASTIC_MAX_CPUS);
	struct elastic_seat *seats;
	unsigned int nr_seats;
	int home_node;
	u64 parole_ms;
	u64 ran_ns;
	u64 ran_at_ns;
	u64 ran_milli;
	u64 *before;
	unsigned int nr_before;
	u64 before_ms;
	struct elastic_units __rcu *units;

	wait_queue_head_t held;
	struct work_struct settle;
	struct work_struct gone;
	atomic64_t stats[ELASTIC_NR_STATS];
};

/* Set when the module is being unloaded: enforce nothing any more. */
extern bool elastic_stopping;

/**
 * elastic_vm_enforced() - are hold and gate on for this VM?
 * @vm: the VM
 *
 * Context: any. A reset turns it off at once, and so does unloading, whoever
 * holds which lock.
 */
static inline bool elastic_vm_enforced(struct elastic_vm *vm)
{
	/* Pairs with elastic_grant_begin(): the bits come with the epoch. */
	return smp_load_acquire(&vm->epoch) == atomic_read(&vm->resets) &&
	       !READ_ONCE(elastic_stopping);
}

static inline bool elastic_cpu_withheld(struct elastic_vm *vm, unsigned int id)
{
	return elastic_vm_enforced(vm) && id < ELASTIC_MAX_CPUS &&
	       test_bit(id, vm->cpu_withheld);
}

static inline void elastic_stat_add(struct elastic_vm *vm,
				    enum elastic_stat stat, u64 n)
{
	atomic64_add(n, &vm->stats[stat]);
}

/* hook.c */
int elastic_hooks_start(void);
void elastic_hooks_stop(void);
void elastic_diverted_done(void);

/* vm.c */
extern struct list_head elastic_vms;
extern struct mutex elastic_vms_lock;
int elastic_vms_start(void);
void elastic_vms_stop(void);
struct elastic_vm *elastic_vm_find(struct kvm *kvm);
struct elastic_vm *elastic_vm_create(struct kvm *kvm);
void elastic_vm_reset(struct elastic_vm *vm);
void elastic_vm_gone(struct elastic_vm *vm);
struct kvm *elastic_vm_get_kvm(struct elastic_vm *vm);
void elastic_vms_queue(struct delayed_work *work, unsigned int ms);
void elastic_vms_run(struct work_struct *work);
enum elastic_vm_state elastic_vm_state(struct elastic_vm *vm);

/* hypercall.c */

/**
 * struct elastic_call - one hypercall: arguments in, answer out
 * @rbx: operation and flags; then the first result
 * @rcx: cookie; then the second result
 * @rdx: first argument; then the third result
 * @rsi: second argument
 */
struct elastic_call {
	u64 rbx;
	u64 rcx;
	u64 rdx;
	u64 rsi;
};

long elastic_hypercall(struct kvm_vcpu *vcpu, struct elastic_call *call);

/* grant.c */

/**
 * struct elastic_want - what a REQUEST asks for, and what came of it
 * @word: index of the word of the vCPU set
 * @cpus: vCPUs that will do
 * @nr_cpus: how many of them are wanted
 * @first: first unit
 * @nr_units: how many are wanted
 * @whole: all or nothing
 * @got_cpus: vCPUs of @cpus that are granted now
 * @got_units: units from @first on that are granted now
 * @cpu_reason: why not all
 * @mem_reason: why not all
 * @could_cpus: refused as a whole: how many of @cpus could be had
 * @could_units: and how many units from @first on
 */
struct elastic_want {
	unsigned int word;
	u64 cpus;
	unsigned int nr_cpus;
	u64 first;
	u64 nr_units;
	bool whole;
	u64 got_cpus;
	u64 got_units;
	enum elastic_reason cpu_reason;
	enum elastic_reason mem_reason;
	unsigned int could_cpus;
	u64 could_units;
};

/**
 * struct elastic_pool - one resource of the host
 * @total: what may be granted to all VMs together, in vCPUs or units
 * @now: the same while the host itself is short
 * @used: the sum of max(grant, min) of all VMs that are charged
 * @planned: the sum of max(grant, min, plan) of them
 * @minimums: the sum of their minimums
 * @reserve: CPUs or units left to the host when @total is computed
 * @min: minimum of a VM that says HELLO for the first time
 * @deadline_ms: who is above its target for longer is uncooperative
 * @growth: how fast a VM grows beyond its part, in per cent of @now a second
 * @missing: how much more all VMs would need, by the last round
 * @shortage: for how long that has been so
 *
 * Under elastic_ledger_lock.
 */
struct elastic_pool {
	u64 total;
	u64 now;
	u64 used;
	u64 planned;
	u64 minimums;
	u64 reserve;
	u64 min;
	u64 deadline_ms;
	u64 growth;
	u64 missing;
	struct elastic_shortage shortage;
};

/* vCPUs for 100 CPUs of the host; units below which it is short; ms to advice. */
extern u64 elastic_overcommit;
extern u64 elastic_mem_low;
extern u64 elastic_advice_ms;

extern struct mutex elastic_ledger_lock;
extern struct elastic_pool elastic_cpu_pool;
extern struct elastic_pool elastic_mem_pool;

void elastic_ledger_init(void);
bool elastic_grant_possible(struct kvm_vcpu *vcpu);
int elastic_grant_begin(struct elastic_vm *vm, struct kvm_vcpu *vcpu,
			const u64 *held, unsigned int nr_words,
			const struct elastic_range *absent, unsigned int nr);
void elastic_grant_end(struct elastic_vm *vm);
void elastic_grant_settle(struct elastic_vm *vm);
long elastic_grant_request(struct elastic_vm *vm, struct elastic_want *want);
u64 elastic_grant_release_cpus(struct elastic_vm *vm, unsigned int word,
			       u64 cpus);
int elastic_grant_check(struct elastic_vm *vm, const struct elastic_range *r);
void elastic_grant_release_units(struct elastic_vm *vm,
				 const struct elastic_range *r);
int elastic_grant_set_limit(struct elastic_vm *vm, struct elastic_account *acc,
			    bool is_max, u64 value);
int elastic_grant_set_weight(struct elastic_vm *vm, struct elastic_account *acc,
			     u64 weight);
int elastic_pool_set(struct elastic_pool *pool, u64 total);
int elastic_pool_set_reserve(struct elastic_pool *pool, u64 reserve);
int elastic_pool_set_overcommit(u64 percent);
void elastic_pool_set_tunable(u64 *tunable, u64 value);
void elastic_pool_recount(struct elastic_pool *pool);
u64 elastic_cpus_withheld(struct elastic_vm *vm, unsigned int word);
bool elastic_unit_withheld(struct elastic_vm *vm, u64 unit);
u64 elastic_grant_unit_span(struct elastic_vm *vm);

void elastic_ledger_recharge(struct elastic_vm *vm, struct elastic_pool *pool,
			     struct elastic_account *acc, u64 grant, u64 min);
u64 elastic_ledger_decide(const struct elastic_pool *pool,
			  struct elastic_account *acc, u64 want,
			  enum elastic_reason *reason);
void elastic_ledger_grow(struct elastic_vm *vm, struct elastic_pool *pool,
			 struct elastic_account *acc, u64 n);

/* seize.c */
void elastic_seize_enforce(struct elastic_vm *vm, struct kvm *kvm);
void elastic_seize_parole(struct elastic_vm *vm, u64 until_ms);
bool elastic_seize_is_due(struct elastic_vm *vm);
void elastic_seize_recount(struct elastic_vm *vm);

/* arbiter.c */

extern struct list_head elastic_charged;

/**
 * struct elastic_targets - the answer to a REPORT
 * @cpus: vCPUs that the guest should hold at most
 * @cpu_grant: vCPUs granted
 * @units: units that it should hold at most
 * @unit_grant: units granted
 */
struct elastic_targets {
	u32 cpus;
	u32 cpu_grant;
	u64 units;
	u64 unit_grant;
};

void elastic_arbiter_start(void);
void elastic_arbiter_stop(void);
void elastic_arbiter_free(void);
int elastic_arbiter_add(void);
void elastic_arbiter_remove(void);
void elastic_arbiter_hello(struct elastic_vm *vm, struct kvm *kvm, bool again);
void elastic_arbiter_report(struct elastic_vm *vm, struct kvm_vcpu *vcpu,
			    const struct elastic_report *r,
			    struct elastic_targets *targets);
void elastic_arbiter_request(struct elastic_vm *vm, u64 cpus, u64 units);
void elastic_arbiter_changed(void);
void elastic_arbiter_tick_soon(void);
u64 elastic_now_ms(void);

/* advice.c */
ssize_t elastic_advice_show(const struct elastic_pool *pool, char *buf);
void elastic_advice_look(struct elastic_pool *pool);

/* gate.c */
u64 elastic_gate_pfn(void *unused, gfn_t gfn);
int elastic_gate_map(struct kvm_vcpu *vcpu, gfn_t gfn);
int elastic_gate_access(void *unused, gpa_t gpa);
int elastic_gate_access_page(struct kvm_vcpu *vcpu, gfn_t gfn);
int elastic_gate_cache(struct kvm *kvm, void *cache, gpa_t gpa);

/* hold.c */
int elastic_hold(struct kvm_vcpu *vcpu);
void elastic_hold_kick(struct kvm *kvm, unsigned int word, u64 cpus);

/* place.c */
extern u64 elastic_placement;
int elastic_place_set(u64 on);
void elastic_place_look(void);
void elastic_place_hello(struct elastic_vm *vm, struct kvm *kvm);
void elastic_place_undo(struct elastic_vm *vm);
void elastic_place_end(struct elastic_vm *vm);
u64 elastic_place_hint(struct elastic_vm *vm, struct kvm *kvm);
void elastic_place_sample(struct elastic_vm *vm, struct kvm_vcpu *vcpu,
			  u64 units);
unsigned int elastic_place_nr(struct elastic_vm *vm);
void elastic_place_stop(void);

/* reclaim.c */
void elastic_reclaim_wait(struct kvm_vcpu *vcpu);
u64 elastic_reclaim(struct elastic_vm *vm, struct kvm_vcpu *vcpu,
		    const struct elastic_range *r, bool released);

bool elastic_has_giant_pages(struct kvm_vcpu *vcpu,
			     const struct elastic_range *r);

/* sysfs.c */
int elastic_sysfs_start(void);
void elastic_sysfs_stop(void);
void elastic_sysfs_notify_advice(bool cpu);
int elastic_sysfs_add_vm(struct elastic_vm *vm);

#endif /* ELASTIC_HOST_H */
