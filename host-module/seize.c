// SPDX-License-Identifier: GPL-2.0
// Copyright (C) the kvm-elastic authors
/*
 * What becomes of a VM that has not given up vCPUs by its deadline: they are
 * taken, those that did least first, run for a moment now and then, so that it
 * still can give them up, and are given back when there is room again.
 */
#include <linux/mm.h>

#include "elastic_host.h"
#include "trace.h"

/* Long enough to see which vCPUs run, and short enough to say so of now. */
#define SEEN_MIN_MS		100

/**
 * elastic_seize_is_due() - is there something to enforce on this VM?
 * @vm: the VM
 *
 * Context: any; a look without a lock.
 */
bool elastic_seize_is_due(struct elastic_vm *vm)
{
	return (READ_ONCE(vm->cpu.uncooperative) &&
		READ_ONCE(vm->cpu.grant) > READ_ONCE(vm->cpu.target)) ||
	       READ_ONCE(vm->cpu.seized);
}

/**
 * elastic_seize_recount() - count anew the vCPUs that were taken
 * @vm: the VM
 *
 * A reset in the middle of a call has settled its account already.
 *
 * Context: @vm->lock and elastic_ledger_lock held.
 */
void elastic_seize_recount(struct elastic_vm *vm)
{
	lockdep_assert_held(&elastic_ledger_lock);

	vm->cpu.seized = vm->charged ?
		bitmap_weight(vm->cpu_seized, ELASTIC_MAX_CPUS) : 0;
}

/* Let @vm's seized vCPUs run, or not. */
static void set_parole(struct elastic_vm *vm, struct kvm *kvm, u64 until_ms)
{
	unsigned int id;
	u64 i;

	lockdep_assert_held(&vm->lock);

	vm->parole_ms = until_ms;
	for_each_set_bit(id, vm->cpu_seized, ELASTIC_MAX_CPUS) {
		if (until_ms)
			clear_bit(id, vm->cpu_withheld);
		else
			set_bit(id, vm->cpu_withheld);
	}
	if (until_ms) {
		wake_up_all(&vm->held);
		return;
	}
	for (i = 0; i < ELASTIC_MAX_CPU_WORDS; i++)
		elastic_hold_kick(kvm, i, vm->cpu_seized[i]);
}

/**
 * elastic_seize_parole() - let the vCPUs that were taken run for a moment
 * @vm: the VM
 * @until_ms: until when
 *
 * A kernel that is willing to give them up, and was only late, has to run on
 * them for it: they may hold its locks, and all others wait for them.
 *
 * Context: may sleep; @vm->lock held.
 */
void elastic_seize_parole(struct elastic_vm *vm, u64 until_ms)
{
	if (elastic_vm_enforced(vm) && !bitmap_empty(vm->cpu_seized,
						     ELASTIC_MAX_CPUS))
		set_parole(vm, NULL, until_ms);
}

/* Remember how long each vCPU has run. Return: did we, long enough ago? */
static bool have_seen(struct elastic_vm *vm, struct kvm *kvm)
{
	u64 now = elastic_now_ms(), age = now - vm->before_ms;
	unsigned int nr = atomic_read(&kvm->online_vcpus);
	struct kvm_vcpu *vcpu;
	unsigned long i;

	lockdep_assert_held(&vm->lock);

	/* What is old is better than to begin anew, which a busy VM could make last. */
	if (vm->before && vm->nr_before == nr)
		return age >= SEEN_MIN_MS;
	kvfree(vm->before);
	vm->before = kvcalloc(nr, sizeof(*vm->before), GFP_KERNEL);
	if (!vm->before)
		return false;
	vm->nr_before = nr;
	vm->before_ms = now;
	kvm_for_each_vcpu(i, vcpu, kvm) {
		if (i < nr)
			vm->before[i] = elastic_vcpu_wanted_ns(vcpu);
	}
	return false;
}

/* The granted vCPU that ran least since; never the one that booted. */
static struct kvm_vcpu *laziest(struct elastic_vm *vm, struct kvm *kvm)
{
	struct kvm_vcpu *vcpu, *best = NULL;
	u64 least = U64_MAX;
	unsigned long i;

	kvm_for_each_vcpu(i, vcpu, kvm) {
		unsigned int id = vcpu->vcpu_id;

		if (i >= vm->nr_before || id >= ELASTIC_MAX_CPUS ||
		    id == kvm->arch.bsp_vcpu_id ||
		    !test_bit(id, vm->cpu_ceiling) ||
		    test_bit(id, vm->cpu_withheld) ||
		    test_bit(id, vm->cpu_seized))
			continue;
		/* Of equals the last: it came last, as a rule. */
		if (vm->before[i] <= least) {
			least = vm->before[i];
			best = vcpu;
		}
	}
	return best;
}

/* Take @n vCPUs from a VM that did not give them up. */
static void seize(struct elastic_vm *vm, struct kvm *kvm, u64 n)
{
	struct kvm_vcpu *vcpu;
	unsigned long i;
	u64 taken;

	if (!have_seen(vm, kvm))
		return;
	kvm_for_each_vcpu(i, vcpu, kvm) {
		if (i < vm->nr_before)
			vm->before[i] = elastic_vcpu_wanted_ns(vcpu) -
					vm->before[i];
	}
	for (taken = 0; taken < n; taken++) {
		vcpu = laziest(vm, kvm);
		if (!vcpu)
			break;
		set_bit(vcpu->vcpu_id, vm->cpu_seized);
		set_bit(vcpu->vcpu_id, vm->cpu_withheld);
		trace_elastic_seize(vm->pid, vcpu->vcpu_id);
		elastic_vcpu_recheck(vcpu);
	}
	kvfree(vm->before);
	vm->before = NULL;
	elastic_stat_add(vm, ELASTIC_STAT_SEIZED, taken);
	mutex_lock(&elastic_ledger_lock);
	elastic_ledger_recharge(vm, &elastic_cpu_pool, &vm->cpu,
				vm->cpu.grant - taken, vm->cpu.min);
	elastic_seize_recount(vm);
	elastic_arbiter_changed();
	mutex_unlock(&elastic_ledger_lock);
}

/* There is room again: give back what was taken, as far as there is. */
static void give_back(struct elastic_vm *vm)
{
	enum elastic_reason reason;
	unsigned int id;
	u64 n, left;

	mutex_lock(&elastic_ledger_lock);
	n = elastic_ledger_decide(&elastic_cpu_pool, &vm->cpu, vm->cpu.seized,
				  &reason);
	left = n;
	for_each_set_bit(id, vm->cpu_seized, ELASTIC_MAX_CPUS) {
		if (!left)
			break;
		left--;
		clear_bit(id, vm->cpu_seized);
		clear_bit(id, vm->cpu_withheld);
		set_bit(id, vm->cpu_extra);
		trace_elastic_give_back(vm->pid, id);
	}
	elastic_ledger_grow(vm, &elastic_cpu_pool, &vm->cpu, n);
	elastic_seize_recount(vm);
	mutex_unlock(&elastic_ledger_lock);
	if (n)
		wake_up_all(&vm->held);
}

/**
 * elastic_seize_enforce() - take what is due from a VM, or give it back
 * @vm: the VM
 * @kvm: KVM's VM, which stays meanwhile
 *
 * Context: may sleep; @vm->lock held.
 */
void elastic_seize_enforce(struct elastic_vm *vm, struct kvm *kvm)
{
	struct elastic_account *acc = &vm->cpu;
	u64 surplus = 0;
	bool room;

	lockdep_assert_held(&vm->lock);

	if (!elastic_vm_enforced(vm))
		return;
	mutex_lock(&elastic_ledger_lock);
	if (acc->uncooperative && acc->grant > acc->target)
		surplus = acc->grant - acc->target;
	room = acc->seized && acc->target > acc->grant;
	mutex_unlock(&elastic_ledger_lock);
	if (surplus)
		seize(vm, kvm, surplus);
	else if (room)
		give_back(vm);
	if (vm->parole_ms && elastic_now_ms() >= vm->parole_ms)
		set_parole(vm, kvm, 0);
}
