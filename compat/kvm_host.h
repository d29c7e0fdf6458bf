/* SPDX-License-Identifier: GPL-2.0 */
/* Copyright (C) the kvm-elastic authors */
/*
 * <linux/kvm_host.h> and KVM's own functions, by name: what is hooked, with
 * which prototype, and the few places where a struct or an export moved.
 */
#ifndef COMPAT_KVM_HOST_H
#define COMPAT_KVM_HOST_H

#include <linux/kvm_host.h>
#include <linux/kvm_para.h>
#include <linux/version.h>

/**
 * struct elastic_fn - a function of KVM's that is hooked
 * @name: for ftrace's filter, and for messages
 * @fn: where it is exported, its address: ftrace looks at every function of the
 *	kernel for a name, which takes its time; NULL elsewhere
 */
struct elastic_fn {
	const char *name;
	void *fn;
};

#define ELASTIC_EXPORTED(f)	{ .name = #f, .fn = f }
#define ELASTIC_NAMED(f)	{ .name = #f }

/*
 * The hypercall. Up to 6.10 one function fetches the registers, checks the
 * privilege level, acts, and steps over the instruction. From 6.11 an inner
 * function has all of it in its arguments and the caller does the rest.
 */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 11, 0)
#define ELASTIC_FNS_HYPERCALL { ELASTIC_EXPORTED(__kvm_emulate_hypercall) }
#define ELASTIC_HYPERCALL_ARGS
#else
#define ELASTIC_FNS_HYPERCALL { ELASTIC_EXPORTED(kvm_emulate_hypercall) }

/**
 * elastic_vcpu_is_kernel() - does the vCPU run at CPL 0?
 * @vcpu: the vCPU, loaded, at a hypercall
 *
 * The level itself cannot be had: what is exported is the check that queues
 * #GP when it fails. No exception can be pending at a hypercall exit, so the
 * queued one is taken back and the caller gets an error code, as KVM does it.
 */
static inline bool elastic_vcpu_is_kernel(struct kvm_vcpu *vcpu)
{
	if (kvm_require_cpl(vcpu, 0))
		return true;
	vcpu->arch.exception.pending = false;
	vcpu->arch.exception_vmexit.pending = false;
	return false;
}

static inline bool elastic_vcpu_is_64bit(struct kvm_vcpu *vcpu)
{
	int db, l;

	if (!(vcpu->arch.efer & EFER_LMA))
		return false;
	static_call(kvm_x86_get_cs_db_l_bits)(vcpu, &db, &l);
	return l;
}
#endif

/*
 * Where KVM turns a frame number into a page. One function does it; the compiler
 * puts a copy of it into each of the others, so all of them are named. In all
 * the second argument is the frame number.
 */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 2, 0)
#define ELASTIC_FNS_GATE_VCPU
#else
#define ELASTIC_FNS_GATE_VCPU \
	ELASTIC_EXPORTED(kvm_vcpu_gfn_to_pfn), \
	ELASTIC_EXPORTED(kvm_vcpu_gfn_to_pfn_atomic),
#endif
#define ELASTIC_FNS_GATE { \
	ELASTIC_FNS_GATE_VCPU \
	ELASTIC_EXPORTED(__gfn_to_pfn_memslot), \
	ELASTIC_EXPORTED(gfn_to_pfn_memslot), \
	ELASTIC_EXPORTED(gfn_to_pfn_memslot_atomic), \
	ELASTIC_EXPORTED(gfn_to_pfn_prot), \
	ELASTIC_EXPORTED(gfn_to_pfn), \
}
/* The same for KVM's own use of a page (VMSAVE, VMCS fields); returns an int. */
#define ELASTIC_FNS_MAP { ELASTIC_EXPORTED(kvm_vcpu_map) }
/*
 * Where KVM reads and writes guest memory for an instruction that it emulates, and, with
 * the VM in place of the vCPU, for a service of its own (wall clock) and on Intel for
 * VMXON.
 */
#define ELASTIC_FNS_ACCESS { \
	ELASTIC_EXPORTED(kvm_vcpu_read_guest), \
	ELASTIC_EXPORTED(kvm_vcpu_write_guest), \
	ELASTIC_EXPORTED(kvm_read_guest), \
	ELASTIC_EXPORTED(kvm_write_guest), \
}
/*
 * Where KVM looks up memory that it will use more than once: stolen time, on Intel the
 * operand of VMPTRLD.
 */
#define ELASTIC_FNS_CACHE { ELASTIC_EXPORTED(kvm_gfn_to_hva_cache_init) }
#define ELASTIC_FNS_ACCESS_PAGE { \
	ELASTIC_EXPORTED(kvm_vcpu_read_guest_page), \
	ELASTIC_EXPORTED(kvm_vcpu_write_guest_page), \
}
/* Where a vCPU takes INIT and SIPI, and passes before it enters the guest. */
#define ELASTIC_FNS_HOLD { ELASTIC_NAMED(kvm_apic_accept_events) }
/* Observed only: reset, and the end of a VM. */
#define ELASTIC_FNS_SET_MPSTATE { ELASTIC_NAMED(kvm_arch_vcpu_ioctl_set_mpstate) }
#define ELASTIC_FNS_DESTROY_VM { ELASTIC_NAMED(kvm_arch_destroy_vm) }

/**
 * elastic_vcpu_in_run() - is @vcpu inside KVM_RUN, on its way into the guest?
 * @vcpu: a vCPU that the current thread has loaded
 *
 * False in every other vCPU ioctl, and in a KVM_RUN with immediate_exit.
 */
static inline bool elastic_vcpu_in_run(struct kvm_vcpu *vcpu)
{
	return vcpu->wants_to_run;
}

/**
 * elastic_vcpu_can_gate() - does all of the guest's memory pass the gate?
 * @vcpu: a vCPU that runs with paging enabled
 *
 * Not without two-dimensional paging, and not where the guest has private
 * memory that comes from elsewhere or that the host cannot take.
 */
static inline bool elastic_vcpu_can_gate(struct kvm_vcpu *vcpu)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 8, 0)
	if (kvm_arch_has_private_mem(vcpu->kvm))
		return false;
#endif
	return vcpu->arch.root_mmu.root_role.direct &&
	       !vcpu->arch.guest_state_protected;
}

/* The vCPU that the current thread has loaded, or NULL; only KVM's headers. */
static inline struct kvm_vcpu *elastic_running_vcpu(void)
{
	struct hlist_node *n = current->preempt_notifiers.first;

	return n ? container_of(n, struct kvm_vcpu, preempt_notifier.link) :
		   NULL;
}

/* Make @vcpu pass the hold before it enters the guest again. */
static inline void elastic_vcpu_recheck(struct kvm_vcpu *vcpu)
{
	kvm_make_request(KVM_REQ_EVENT, vcpu);
	kvm_vcpu_kick(vcpu);
}

/**
 * elastic_vcpu_times() - how long a vCPU's thread ran, and waited for a CPU
 * @vcpu: the vCPU
 * @ran_ns: it ran, all in all
 * @waited_ns: it waited
 *
 * Of the thread that runs it now: what KVM tells the guest as stolen time comes
 * from the same counter. Both are 0 if it was never run. Context: any.
 */
static inline void elastic_vcpu_times(struct kvm_vcpu *vcpu, u64 *ran_ns,
				      u64 *waited_ns)
{
	struct task_struct *task;

	*ran_ns = 0;
	*waited_ns = 0;
	rcu_read_lock();
	task = pid_task(rcu_dereference(vcpu->pid), PIDTYPE_PID);
	if (task) {
		*ran_ns = READ_ONCE(task->se.sum_exec_runtime);
		*waited_ns = READ_ONCE(task->sched_info.run_delay);
	}
	rcu_read_unlock();
}

/**
 * elastic_vcpu_wanted_ns() - time that a vCPU's thread ran or waited for a CPU
 * @vcpu: the vCPU
 *
 * Context: any.
 */
static inline u64 elastic_vcpu_wanted_ns(struct kvm_vcpu *vcpu)
{
	u64 ran, waited;

	elastic_vcpu_times(vcpu, &ran, &waited);
	return ran + waited;
}

/**
 * elastic_vcpu_pid() - the thread that runs a vCPU
 * @vcpu: the vCPU
 *
 * Context: any. The caller gives it back with put_pid(). A struct pid outlives
 * its thread, and never stands for another one.
 * Return: the thread, or NULL if it was never run.
 */
static inline struct pid *elastic_vcpu_pid(struct kvm_vcpu *vcpu)
{
	struct pid *pid;

	rcu_read_lock();
	pid = get_pid(rcu_dereference(vcpu->pid));
	rcu_read_unlock();
	return pid;
}

#endif /* COMPAT_KVM_HOST_H */
