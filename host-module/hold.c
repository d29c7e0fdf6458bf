// SPDX-License-Identifier: GPL-2.0
// Copyright (C) the kvm-elastic authors
/* A vCPU outside the grant does not run. */
#include <linux/sched/signal.h>

#include "elastic_host.h"
#include "trace.h"

/**
 * elastic_hold() - in place of kvm_apic_accept_events() for a withheld vCPU
 * @vcpu: the vCPU, loaded by the current thread
 *
 * Sleeps until the vCPU is granted, the VM is reset, the module goes, or a
 * signal comes: that is how a VMM stops, resets and migrates its VMs. INIT and
 * SIPI stay pending. The request that is left behind brings the vCPU here
 * again before it can enter the guest.
 *
 * A VMM that only asks for the state must not be made to wait, and must not
 * make the vCPU take its INIT and SIPI either: that would start it.
 *
 * Context: vCPU, kvm->srcu held for reading; it is dropped over the sleep.
 * Return: 0, which lets KVM's own loop see the signal.
 */
int elastic_hold(struct kvm_vcpu *vcpu)
{
	struct elastic_vm *vm = elastic_vm_find(vcpu->kvm);

	if (elastic_vcpu_in_run(vcpu) && vm) {
		elastic_stat_add(vm, ELASTIC_STAT_HELD, 1);
		trace_elastic_hold(vm->pid, vcpu->vcpu_id);
		kvm_vcpu_srcu_read_unlock(vcpu);
		wait_event_interruptible(vm->held,
					 !elastic_cpu_withheld(vm, vcpu->vcpu_id));
		kvm_vcpu_srcu_read_lock(vcpu);
		trace_elastic_unhold(vm->pid, vcpu->vcpu_id,
				     elastic_cpu_withheld(vm, vcpu->vcpu_id));
	}
	kvm_make_request(KVM_REQ_EVENT, vcpu);
	elastic_diverted_done();
	return 0;
}

/**
 * elastic_hold_kick() - make vCPUs notice that they are withheld
 * @kvm: the VM
 * @word: which word of the vCPU set
 * @cpus: which vCPUs of it
 *
 * Context: a vCPU of the VM; may sleep.
 */
void elastic_hold_kick(struct kvm *kvm, unsigned int word, u64 cpus)
{
	struct kvm_vcpu *vcpu;

	for (; cpus; cpus &= cpus - 1) {
		vcpu = kvm_get_vcpu_by_id(kvm, word * 64 + __ffs64(cpus));
		if (vcpu)
			elastic_vcpu_recheck(vcpu);
	}
}
