// SPDX-License-Identifier: GPL-2.0
// Copyright (C) the kvm-elastic authors
/* A unit outside the grant has no page frames. */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/ratelimit.h>

#include "elastic_host.h"
#include "trace.h"

static void refused(gfn_t gfn)
{
	struct kvm_vcpu *vcpu = elastic_running_vcpu();
	struct elastic_vm *vm = vcpu ? elastic_vm_find(vcpu->kvm) : NULL;

	if (!vm)
		return;
	elastic_stat_add(vm, ELASTIC_STAT_GATED, 1);
	trace_elastic_gate(vm->pid, vcpu->vcpu_id, gfn);
	pr_info_ratelimited("VM %s: vCPU %d touched %#llx, which is not granted\n",
			    vm->name, vcpu->vcpu_id,
			    (unsigned long long)gfn << PAGE_SHIFT);
}

/**
 * elastic_gate_pfn() - in place of KVM's look-up of a withheld page frame
 * @unused: the memslot, or the VM
 * @gfn: the frame
 *
 * The prototype is the part of KVM's that all versions share; what follows in
 * the arguments stays untouched. KVM ends KVM_RUN with -EFAULT.
 *
 * Context: vCPU, kvm->srcu held, possibly atomic.
 * Return: KVM_PFN_ERR_FAULT.
 */
u64 elastic_gate_pfn(void *unused, gfn_t gfn)
{
	refused(gfn);
	elastic_diverted_done();
	return KVM_PFN_ERR_FAULT;
}

/**
 * elastic_gate_map() - in place of KVM's mapping of a withheld page for itself
 * @vcpu: the vCPU
 * @gfn: the frame
 *
 * Context: vCPU, kvm->srcu held.
 * Return: -EINVAL, which KVM takes as it takes a frame without memory.
 */
int elastic_gate_map(struct kvm_vcpu *vcpu, gfn_t gfn)
{
	refused(gfn);
	elastic_diverted_done();
	return -EINVAL;
}

/*
 * An error alone would make KVM take the access for one to a device, and hand
 * it to the VMM, which reaches all memory. So the VM ends: KVM_RUN fails with
 * -EIO at the next attempt to enter the guest.
 */
static int refuse_access(gfn_t gfn)
{
	struct kvm_vcpu *vcpu = elastic_running_vcpu();

	refused(gfn);
	if (vcpu)
		kvm_make_request(KVM_REQ_VM_DEAD, vcpu);
	elastic_diverted_done();
	return -EFAULT;
}

/**
 * elastic_gate_access() - in place of KVM's access to withheld memory
 * @unused: the vCPU, or the VM
 * @gpa: where; the access may begin in the unit before
 *
 * Context: vCPU, kvm->srcu held.
 * Return: -EFAULT.
 */
int elastic_gate_access(void *unused, gpa_t gpa)
{
	return refuse_access(gpa >> PAGE_SHIFT);
}

/**
 * elastic_gate_access_page() - the same for an access within one page
 * @vcpu: the vCPU
 * @gfn: the frame
 *
 * Context: vCPU, kvm->srcu held.
 * Return: -EFAULT.
 */
int elastic_gate_access_page(struct kvm_vcpu *vcpu, gfn_t gfn)
{
	return refuse_access(gfn);
}

/**
 * elastic_gate_cache() - in place of KVM's look-up of withheld memory that it is to use often
 * @kvm: the VM
 * @cache: what would be filled in
 * @gpa: where
 *
 * Context: vCPU, kvm->srcu held.
 * Return: -EFAULT.
 */
int elastic_gate_cache(struct kvm *kvm, void *cache, gpa_t gpa)
{
	return refuse_access(gpa >> PAGE_SHIFT);
}
