// SPDX-License-Identifier: GPL-2.0
// Copyright (C) the kvm-elastic authors
/* A unit outside the grant has no page frames. */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/ratelimit.h>

#include "elastic_host.h"
#include "trace.h"

/**
 * elastic_gate_refuse() - in place of KVM's look-up of a withheld page frame
 * @slot: the memslot
 * @gfn: the frame
 *
 * The prototype is the part of KVM's that all versions share; what follows in
 * the arguments stays untouched. KVM ends KVM_RUN with -EFAULT.
 *
 * Context: vCPU, kvm->srcu held, possibly atomic.
 * Return: KVM_PFN_ERR_FAULT.
 */
u64 elastic_gate_refuse(const struct kvm_memory_slot *slot, gfn_t gfn)
{
	struct kvm_vcpu *vcpu = elastic_running_vcpu();
	struct elastic_vm *vm = vcpu ? elastic_vm_find(vcpu->kvm) : NULL;

	if (vm) {
		elastic_stat_add(vm, ELASTIC_STAT_GATED, 1);
		trace_elastic_gate(vm->pid, vcpu->vcpu_id, gfn);
		pr_info_ratelimited("VM %s: vCPU %d touched %#llx, which is not granted\n",
				    vm->name, vcpu->vcpu_id,
				    (unsigned long long)gfn << PAGE_SHIFT);
	}
	elastic_diverted_done();
	return KVM_PFN_ERR_FAULT;
}
