// SPDX-License-Identifier: GPL-2.0
// Copyright (C) the kvm-elastic authors
/*
 * The way into KVM: ftrace.
 *
 * The callback decides; a diverted function never calls the original. It looks
 * at the arguments in the registers, nearly always does nothing, and KVM's own
 * function runs untouched. Only when the call is ours does it point the
 * instruction pointer at our function, which returns to KVM's caller.
 *
 * Callbacks run with preemption disabled. They must not sleep, and may use a
 * VM's record because RCU keeps it.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/module.h>

#include "compat/ftrace.h"
#include "elastic_host.h"

/* Threads in a diverted function, and where unloading waits for the last. */
static atomic_t diverted = ATOMIC_INIT(0);
static DECLARE_WAIT_QUEUE_HEAD(diverted_wait);
bool elastic_stopping;

static void divert(struct pt_regs *regs, void *to)
{
	atomic_inc(&diverted);
	instruction_pointer_set(regs, (unsigned long)to);
}

/**
 * elastic_diverted_done() - a diverted function is about to return
 *
 * Last thing that it does: what is left of it, the unloader waits out with
 * synchronize_rcu_tasks().
 */
void elastic_diverted_done(void)
{
	if (atomic_dec_and_test(&diverted))
		wake_up_all(&diverted_wait);
}

#ifdef ELASTIC_HYPERCALL_ARGS
static unsigned long hypercall(struct kvm_vcpu *vcpu, unsigned long nr,
			       unsigned long a0, unsigned long a1,
			       unsigned long a2, unsigned long a3,
			       int op_64_bit, int cpl)
{
	struct elastic_call call = { .rbx = a0, .rcx = a1, .rdx = a2, .rsi = a3 };
	long ret;

	++vcpu->stat.hypercalls;
	if (cpl) {
		ret = ELASTIC_E_PERM;
	} else if (!op_64_bit) {
		ret = ELASTIC_E_INVAL;
	} else {
		ret = elastic_hypercall(vcpu, &call);
		vcpu->arch.regs[VCPU_REGS_RBX] = call.rbx;
		vcpu->arch.regs[VCPU_REGS_RCX] = call.rcx;
		vcpu->arch.regs[VCPU_REGS_RDX] = call.rdx;
	}
	elastic_diverted_done();
	return ret;
}

static bool is_ours(struct pt_regs *regs)
{
	return regs->si == ELASTIC_HC_NR;
}
#else
static int hypercall(struct kvm_vcpu *vcpu)
{
	unsigned long *gpr = vcpu->arch.regs;
	struct elastic_call call = {
		.rbx = gpr[VCPU_REGS_RBX],
		.rcx = gpr[VCPU_REGS_RCX],
		.rdx = gpr[VCPU_REGS_RDX],
		.rsi = gpr[VCPU_REGS_RSI],
	};
	long ret;

	++vcpu->stat.hypercalls;
	if (!elastic_vcpu_is_kernel(vcpu)) {
		gpr[VCPU_REGS_RAX] = ELASTIC_E_PERM;
	} else if (!elastic_vcpu_is_64bit(vcpu)) {
		gpr[VCPU_REGS_RAX] = (u32)ELASTIC_E_INVAL;
	} else {
		gpr[VCPU_REGS_RAX] = elastic_hypercall(vcpu, &call);
		gpr[VCPU_REGS_RBX] = call.rbx;
		gpr[VCPU_REGS_RCX] = call.rcx;
		gpr[VCPU_REGS_RDX] = call.rdx;
	}
	ret = kvm_skip_emulated_instruction(vcpu);
	elastic_diverted_done();
	return ret;
}

static bool is_ours(struct pt_regs *regs)
{
	struct kvm_vcpu *vcpu = (struct kvm_vcpu *)regs->di;

	return vcpu->arch.regs[VCPU_REGS_RAX] == ELASTIC_HC_NR;
}
#endif

static void hypercall_cb(unsigned long ip, unsigned long parent_ip,
			 struct ftrace_ops *op, elastic_ftrace_regs *fregs)
{
	struct pt_regs *regs = elastic_ftrace_pt_regs(fregs);

	if (is_ours(regs) && !READ_ONCE(elastic_stopping))
		divert(regs, hypercall);
}

/* Is the vCPU that runs here about to use a unit that it must not have? */
static bool is_refused(u64 first_gfn, u64 last_gfn)
{
	struct kvm_vcpu *vcpu = elastic_running_vcpu();
	struct elastic_vm *vm;

	/* A memslot does not know its VM; the running vCPU does. */
	vm = vcpu ? elastic_vm_find(vcpu->kvm) : NULL;
	return vm &&
	       (elastic_unit_withheld(vm, first_gfn >> ELASTIC_UNIT_GFN_SHIFT) ||
		elastic_unit_withheld(vm, last_gfn >> ELASTIC_UNIT_GFN_SHIFT));
}

static void gate_cb(unsigned long ip, unsigned long parent_ip,
		    struct ftrace_ops *op, elastic_ftrace_regs *fregs)
{
	struct pt_regs *regs = elastic_ftrace_pt_regs(fregs);

	if (is_refused(regs->si, regs->si))
		divert(regs, elastic_gate_pfn);
}

static void map_cb(unsigned long ip, unsigned long parent_ip,
		   struct ftrace_ops *op, elastic_ftrace_regs *fregs)
{
	struct pt_regs *regs = elastic_ftrace_pt_regs(fregs);

	if (is_refused(regs->si, regs->si))
		divert(regs, elastic_gate_map);
}

/* (vcpu or kvm, gpa, data, len) */
static void access_cb(unsigned long ip, unsigned long parent_ip,
		      struct ftrace_ops *op, elastic_ftrace_regs *fregs)
{
	struct pt_regs *regs = elastic_ftrace_pt_regs(fregs);
	u64 last = regs->si + (regs->cx ? regs->cx - 1 : 0);

	if (is_refused(regs->si >> PAGE_SHIFT, last >> PAGE_SHIFT))
		divert(regs, elastic_gate_access);
}

/* (kvm, cache, gpa, len) */
static void cache_cb(unsigned long ip, unsigned long parent_ip,
		     struct ftrace_ops *op, elastic_ftrace_regs *fregs)
{
	struct pt_regs *regs = elastic_ftrace_pt_regs(fregs);
	u64 last = regs->dx + (regs->cx ? regs->cx - 1 : 0);

	if (is_refused(regs->dx >> PAGE_SHIFT, last >> PAGE_SHIFT))
		divert(regs, elastic_gate_cache);
}

/* (vcpu, gfn, data, offset, len), within the page */
static void access_page_cb(unsigned long ip, unsigned long parent_ip,
			   struct ftrace_ops *op, elastic_ftrace_regs *fregs)
{
	struct pt_regs *regs = elastic_ftrace_pt_regs(fregs);

	if (is_refused(regs->si, regs->si))
		divert(regs, elastic_gate_access_page);
}

static void hold_cb(unsigned long ip, unsigned long parent_ip,
		    struct ftrace_ops *op, elastic_ftrace_regs *fregs)
{
	struct pt_regs *regs = elastic_ftrace_pt_regs(fregs);
	struct kvm_vcpu *vcpu = (struct kvm_vcpu *)regs->di;
	struct elastic_vm *vm = elastic_vm_find(vcpu->kvm);

	if (vm && elastic_cpu_withheld(vm, vcpu->vcpu_id))
		divert(regs, elastic_hold);
}

/* A VMM that sets the state of the boot CPU resets or restores the VM. */
static void set_mpstate_cb(unsigned long ip, unsigned long parent_ip,
			   struct ftrace_ops *op, elastic_ftrace_regs *fregs)
{
	struct pt_regs *regs = elastic_ftrace_pt_regs(fregs);
	struct kvm_vcpu *vcpu = (struct kvm_vcpu *)regs->di;
	struct elastic_vm *vm = elastic_vm_find(vcpu->kvm);

	if (vm && vcpu->vcpu_id == vcpu->kvm->arch.bsp_vcpu_id)
		elastic_vm_reset(vm);
}

static void destroy_vm_cb(unsigned long ip, unsigned long parent_ip,
			  struct ftrace_ops *op, elastic_ftrace_regs *fregs)
{
	struct pt_regs *regs = elastic_ftrace_pt_regs(fregs);
	struct elastic_vm *vm = elastic_vm_find((struct kvm *)regs->di);

	if (vm)
		elastic_vm_gone(vm);
}

/*
 * PERMANENT: kernel.ftrace_enabled=0 cannot turn them off, and they cannot be
 * registered while it is 0. What is diverted and what only observed must not
 * come apart.
 */
#define HOOK(cb, modify, ...) { \
	.fns = __VA_ARGS__, \
	.ops = { \
		.func = cb, \
		.flags = FTRACE_OPS_FL_SAVE_REGS | FTRACE_OPS_FL_PERMANENT | \
			 ELASTIC_FTRACE_RECURSION | (modify), \
	}, \
}

#define OBSERVE	0
#define DIVERT	FTRACE_OPS_FL_IPMODIFY

/* In the order of registration: who ends a VM is there before who begins it. */
#define NR_OBSERVERS	2
static struct {
	struct elastic_fn fns[8];
	struct ftrace_ops ops;
} hooks[] = {
	HOOK(destroy_vm_cb, OBSERVE, ELASTIC_FNS_DESTROY_VM),
	HOOK(set_mpstate_cb, OBSERVE, ELASTIC_FNS_SET_MPSTATE),
	HOOK(gate_cb, DIVERT, ELASTIC_FNS_GATE),
	HOOK(map_cb, DIVERT, ELASTIC_FNS_MAP),
	HOOK(access_cb, DIVERT, ELASTIC_FNS_ACCESS),
	HOOK(cache_cb, DIVERT, ELASTIC_FNS_CACHE),
	HOOK(access_page_cb, DIVERT, ELASTIC_FNS_ACCESS_PAGE),
	HOOK(hold_cb, DIVERT, ELASTIC_FNS_HOLD),
	HOOK(hypercall_cb, DIVERT, ELASTIC_FNS_HYPERCALL),
};

static int add_filter(struct ftrace_ops *ops, const struct elastic_fn *fn)
{
	char name[48];
	int ret;

	/* ftrace cuts the pattern up. */
	strscpy(name, fn->name, sizeof(name));
	ret = fn->fn ? ftrace_set_filter_ip(ops, (unsigned long)fn->fn, 0, 0) :
		       ftrace_set_filter(ops, name, strlen(name), 0);
	if (ret)
		pr_err("%s() cannot be traced in this kernel (%d)\n", fn->name,
		       ret);
	return ret;
}

/* One line, with all functions of the hook: ftrace does not say which it was. */
static void explain(unsigned int i, int error)
{
	char names[256];
	size_t n = 0;
	unsigned int j;

	for (j = 0; hooks[i].fns[j].name; j++)
		n += scnprintf(names + n, sizeof(names) - n, "%s%s()",
			       j ? ", " : "", hooks[i].fns[j].name);
	if (error == -EBUSY)
		pr_err("modified by someone else, a live patch perhaps (or kernel.ftrace_enabled is 0): %s\n",
		       names);
	else
		pr_err("cannot hook (%d): %s\n", error, names);
}

static int hook(unsigned int i)
{
	struct ftrace_ops *ops = &hooks[i].ops;
	unsigned int j;
	int ret = 0;

	for (j = 0; !ret && hooks[i].fns[j].name; j++)
		ret = add_filter(ops, &hooks[i].fns[j]);
	if (ret)
		goto err_filter;
	ret = register_ftrace_function(ops);
	if (ret) {
		explain(i, ret);
		goto err_filter;
	}
	return 0;

err_filter:
	ftrace_free_filter(ops);
	return ret;
}

static void unhook(unsigned int i)
{
	unregister_ftrace_function(&hooks[i].ops);
	ftrace_free_filter(&hooks[i].ops);
}

/**
 * elastic_hooks_start() - hook KVM
 *
 * Return: 0, or -EBUSY if a function has an owner, or ftrace's error. All or
 * nothing; one line in the log names the function.
 */
int elastic_hooks_start(void)
{
	unsigned int i;
	int ret;

	for (i = 0; i < ARRAY_SIZE(hooks); i++) {
		ret = hook(i);
		if (ret)
			goto err_unhook;
	}
	return 0;

err_unhook:
	WRITE_ONCE(elastic_stopping, true);
	while (i--)
		unhook(i);
	return ret;
}

/**
 * elastic_hooks_stop() - let go of KVM
 *
 * Lets every held vCPU out, and returns when no thread can be in the module
 * any more. Context: may sleep.
 */
void elastic_hooks_stop(void)
{
	struct elastic_vm *vm;
	unsigned int i;

	WRITE_ONCE(elastic_stopping, true);
	for (i = ARRAY_SIZE(hooks); i > NR_OBSERVERS; i--)
		unhook(i - 1);
	mutex_lock(&elastic_vms_lock);
	list_for_each_entry(vm, &elastic_vms, all)
		elastic_vm_reset(vm);
	mutex_unlock(&elastic_vms_lock);
	wait_event(diverted_wait, !atomic_read(&diverted));
	/* Until here the end of a VM must not be missed. */
	for (; i > 0; i--)
		unhook(i - 1);
	synchronize_rcu_tasks();
}
