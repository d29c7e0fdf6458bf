// SPDX-License-Identifier: GPL-2.0
// Copyright (C) the kvm-elastic authors
/*
 * Which VMs there are, from their first HELLO to their end.
 *
 * No reference to the VM is held: a VMM that closes its descriptors, or dies,
 * ends its VM as if we were not here. kvm_arch_destroy_vm() is observed, and
 * nothing but a vCPU of the VM uses elastic_vm.kvm; a running vCPU ioctl keeps
 * the VM, and so the record, alive.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/hashtable.h>
#include <linux/random.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>

#include "elastic_host.h"
#include "trace.h"

#define VM_HASH_BITS	7

/* VMs that KVM knows, by struct kvm. Writers hold the lock, readers RCU. */
static DEFINE_HASHTABLE(vm_hash, VM_HASH_BITS);
static DEFINE_SPINLOCK(vm_hash_lock);
/* So that a host without managed VMs pays one branch. */
static atomic_t nr_vms = ATOMIC_INIT(0);

LIST_HEAD(elastic_vms);
/* All records, also those of dead VMs whose directory is still there. */
DEFINE_MUTEX(elastic_vms_lock);

static struct workqueue_struct *vm_wq;

/**
 * elastic_vm_find() - the record of a VM
 * @kvm: KVM's VM
 *
 * Context: any in which @kvm stays: a vCPU of it, or preemption disabled.
 * Return: the record, or NULL if the VM never said HELLO.
 */
struct elastic_vm *elastic_vm_find(struct kvm *kvm)
{
	struct elastic_vm *vm;

	if (!atomic_read(&nr_vms))
		return NULL;
	rcu_read_lock();
	hash_for_each_possible_rcu(vm_hash, vm, hash, (unsigned long)kvm) {
		if (vm->kvm == kvm)
			break;
	}
	rcu_read_unlock();
	return vm;
}

/**
 * elastic_vm_state() - which state a VM is in
 * @vm: the VM
 */
enum elastic_vm_state elastic_vm_state(struct elastic_vm *vm)
{
	if (!elastic_vm_enforced(vm))
		return ELASTIC_VM_UNMANAGED;
	return READ_ONCE(vm->cookie) ? ELASTIC_VM_MANAGED : ELASTIC_VM_DETACHED;
}

/**
 * elastic_vm_reset() - the VM was reset: enforce nothing any more
 * @vm: the VM
 *
 * Context: any. The ledger follows a moment later.
 */
void elastic_vm_reset(struct elastic_vm *vm)
{
	/*
	 * Counted in any case: a HELLO may be under way. Of this and what that
	 * does at its end one comes first, and the other sees it.
	 */
	int epoch = atomic_fetch_inc(&vm->resets);
	bool enforced = READ_ONCE(vm->epoch) == epoch;

	if (!enforced && !READ_ONCE(elastic_stopping))
		return;
	wake_up_all(&vm->held);
	trace_elastic_state(vm->pid, ELASTIC_VM_UNMANAGED);
	queue_work(vm_wq, &vm->settle);
}

static void vm_settle(struct work_struct *work)
{
	struct elastic_vm *vm = container_of(work, struct elastic_vm, settle);

	elastic_grant_settle(vm);
	/* A HELLO that came meanwhile is seen to by the timer. */
	elastic_place_undo(vm);
}

/**
 * elastic_vm_gone() - KVM is destroying the VM
 * @vm: the VM; not found any more after this
 *
 * Context: any; no vCPU of the VM exists.
 */
void elastic_vm_gone(struct elastic_vm *vm)
{
	unsigned long flags;

	spin_lock_irqsave(&vm_hash_lock, flags);
	hash_del_rcu(&vm->hash);
	spin_unlock_irqrestore(&vm_hash_lock, flags);
	atomic_dec(&nr_vms);
	queue_work(vm_wq, &vm->gone);
}

/**
 * elastic_vm_get_kvm() - keep KVM's VM for a moment
 * @vm: a record that does not go meanwhile
 *
 * As long as the record can be found, KVM has not come past the place where the
 * end of the VM is observed, and that place takes the lock.
 *
 * Context: may sleep. The caller gives it back with kvm_put_kvm().
 * Return: the VM, or NULL if it is ending.
 */
struct kvm *elastic_vm_get_kvm(struct elastic_vm *vm)
{
	struct kvm *kvm = NULL;

	spin_lock_irq(&vm_hash_lock);
	if (!hlist_unhashed(&vm->hash) && kvm_get_kvm_safe(vm->kvm))
		kvm = vm->kvm;
	spin_unlock_irq(&vm_hash_lock);
	return kvm;
}

/**
 * elastic_vms_queue() - have something done in order with the end of records
 * @work: what
 * @ms: in how many milliseconds
 */
void elastic_vms_queue(struct delayed_work *work, unsigned int ms)
{
	queue_delayed_work(vm_wq, work, msecs_to_jiffies(ms));
}

/**
 * elastic_vms_run() - have something done in order with the end of records, now
 * @work: what
 *
 * Context: may sleep; returns when it is done.
 */
void elastic_vms_run(struct work_struct *work)
{
	queue_work(vm_wq, work);
	flush_work(work);
}

static void vm_gone(struct work_struct *work)
{
	struct elastic_vm *vm = container_of(work, struct elastic_vm, gone);

	kobject_del(&vm->kobj);
	mutex_lock(&elastic_vms_lock);
	list_del(&vm->all);
	mutex_unlock(&elastic_vms_lock);
	/* Nobody finds it any more, so nobody queues this again. */
	cancel_work_sync(&vm->settle);
	elastic_place_end(vm);
	elastic_grant_end(vm);
	elastic_arbiter_remove();
	kobject_put(&vm->kobj);
}

/* The VMM's pid; with a number behind it from the process' second VM on. */
static void vm_name(struct elastic_vm *vm)
{
	struct elastic_vm *other;
	unsigned int n = 0;

	lockdep_assert_held(&elastic_vms_lock);

	snprintf(vm->name, sizeof(vm->name), "%d", vm->pid);
again:
	list_for_each_entry(other, &elastic_vms, all) {
		if (strcmp(other->name, vm->name))
			continue;
		snprintf(vm->name, sizeof(vm->name), "%d-%u", vm->pid, ++n);
		goto again;
	}
}

/**
 * elastic_vm_create() - make a record for a VM
 * @kvm: the VM, of which the current thread runs a vCPU
 *
 * Context: process, may sleep, no lock of ours held.
 * Return: the record, the present one if there is one, or NULL if there is no
 * memory.
 */
struct elastic_vm *elastic_vm_create(struct kvm *kvm)
{
	struct elastic_vm *vm;

	mutex_lock(&elastic_vms_lock);
	vm = elastic_vm_find(kvm);
	if (vm)
		goto out;
	vm = kzalloc(sizeof(*vm), GFP_KERNEL_ACCOUNT);
	if (!vm)
		goto out;
	if (elastic_arbiter_add()) {
		kfree(vm);
		vm = NULL;
		goto out;
	}
	vm->kvm = kvm;
	vm->cpu.weight = ELASTIC_WEIGHT_DEFAULT;
	vm->mem.weight = ELASTIC_WEIGHT_DEFAULT;
	vm->pid = current->tgid;
	vm->home_node = NUMA_NO_NODE;
	vm_name(vm);
	mutex_init(&vm->lock);
	atomic_set(&vm->resets, 1);
	init_waitqueue_head(&vm->held);
	INIT_WORK(&vm->settle, vm_settle);
	INIT_WORK(&vm->gone, vm_gone);
	if (elastic_sysfs_add_vm(vm)) {
		elastic_arbiter_remove();
		kobject_put(&vm->kobj);
		vm = NULL;
		goto out;
	}
	list_add_tail(&vm->all, &elastic_vms);
	spin_lock_irq(&vm_hash_lock);
	hash_add_rcu(vm_hash, &vm->hash, (unsigned long)kvm);
	spin_unlock_irq(&vm_hash_lock);
	atomic_inc(&nr_vms);
	kobject_uevent(&vm->kobj, KOBJ_ADD);
out:
	mutex_unlock(&elastic_vms_lock);
	return vm;
}

/**
 * elastic_vms_start() - begin to keep records
 *
 * Return: 0 or -ENOMEM.
 */
int elastic_vms_start(void)
{
	vm_wq = alloc_ordered_workqueue(KBUILD_MODNAME, 0);
	return vm_wq ? 0 : -ENOMEM;
}

/**
 * elastic_vms_stop() - forget all VMs
 *
 * Context: may sleep; the hooks are gone.
 */
void elastic_vms_stop(void)
{
	struct elastic_vm *vm;
	struct hlist_node *tmp;
	int bkt;

	hash_for_each_safe(vm_hash, bkt, tmp, vm, hash)
		elastic_vm_gone(vm);
	destroy_workqueue(vm_wq);
}
