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
 * @ELASTIC_STAT_HELD: times that a vCPU began to be held
 * @ELASTIC_STAT_GATED: page frames refused
 * @ELASTIC_STAT_TAKEN: bytes of units whose backing the host took
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
	ELASTIC_STAT_HELD,
	ELASTIC_STAT_GATED,
	ELASTIC_STAT_TAKEN,
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
 *
 * Modified under elastic_ledger_lock; @use under the VM's lock.
 */
struct elastic_account {
	u64 ceiling;
	u64 grant;
	u64 use;
	u64 min;
	u64 max;
	bool user_max;
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
 * @cpu: the vCPU account
 * @mem: the memory account, in units
 * @cpu_ceiling: vCPU ids that the VMM created; under @lock
 * @cpu_withheld: those outside the grant; bits change atomically under @lock
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
	struct elastic_account cpu;
	struct elastic_account mem;

	DECLARE_BITMAP(cpu_ceiling, ELASTIC_MAX_CPUS);
	DECLARE_BITMAP(cpu_withheld, ELASTIC_MAX_CPUS);
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
};

/**
 * struct elastic_pool - one resource of the host
 * @total: what may be granted to all VMs together, in vCPUs or units
 * @used: the sum of max(grant, min) of all VMs that are charged
 *
 * Under elastic_ledger_lock.
 */
struct elastic_pool {
	u64 total;
	u64 used;
};

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
int elastic_pool_set(struct elastic_pool *pool, u64 total);
bool elastic_unit_withheld(struct elastic_vm *vm, u64 unit);

/* gate.c */
u64 elastic_gate_pfn(void *unused, gfn_t gfn);
int elastic_gate_map(struct kvm_vcpu *vcpu, gfn_t gfn);
int elastic_gate_access(void *unused, gpa_t gpa);
int elastic_gate_access_page(struct kvm_vcpu *vcpu, gfn_t gfn);
int elastic_gate_cache(struct kvm *kvm, void *cache, gpa_t gpa);

/* hold.c */
int elastic_hold(struct kvm_vcpu *vcpu);
void elastic_hold_kick(struct kvm *kvm, unsigned int word, u64 cpus);

/* reclaim.c */
u64 elastic_reclaim(struct elastic_vm *vm, struct kvm_vcpu *vcpu,
		    const struct elastic_range *r);

bool elastic_has_giant_pages(struct kvm_vcpu *vcpu,
			     const struct elastic_range *r);

/* sysfs.c */
int elastic_sysfs_start(void);
void elastic_sysfs_stop(void);
int elastic_sysfs_add_vm(struct elastic_vm *vm);

#endif /* ELASTIC_HOST_H */
