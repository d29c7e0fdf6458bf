// SPDX-License-Identifier: GPL-2.0
// Copyright (C) the kvm-elastic authors
/*
 * Validates and dispatches the hypercalls. uapi/elastic_hypercall.h is the
 * specification. Everything that comes in is hostile: it is copied once,
 * bounded, checked, and then used.
 */
#include <linux/random.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "elastic_host.h"
#include "trace.h"

#define FEATURES	(ELASTIC_FEAT_CPU | ELASTIC_FEAT_MEM | \
			 ELASTIC_FEAT_DISCARD | ELASTIC_FEAT_HINT)

/**
 * struct args - one call, taken apart
 * @vm: the VM, locked; NULL in the first HELLO until it is found good
 * @vcpu: the caller
 * @op: the operation
 * @word: word of the vCPU set
 * @nr_cpus: number of vCPUs wanted
 * @whole: ELASTIC_F_WHOLE
 * @a: first argument
 * @b: second argument
 * @call: results go here
 */
struct args {
	struct elastic_vm *vm;
	struct kvm_vcpu *vcpu;
	u64 op;
	unsigned int word;
	unsigned int nr_cpus;
	bool whole;
	u64 a;
	u64 b;
	struct elastic_call *call;
};

static void answer(struct args *args, u64 rbx, u64 rcx, u64 rdx)
{
	args->call->rbx = rbx;
	args->call->rcx = rcx;
	args->call->rdx = rdx;
}

static long invalid(struct args *args, enum elastic_reason reason, u64 index)
{
	answer(args, reason, index, 0);
	return ELASTIC_E_INVAL;
}

static bool is_ram(const struct kvm_memory_slot *slot)
{
	return slot && slot->id < KVM_USER_MEM_SLOTS &&
	       !(slot->flags & (KVM_MEM_READONLY | KVM_MEMSLOT_INVALID));
}

/* Copy from granted guest RAM, page by page, in @len bytes. */
static int copy_in(struct args *args, void *to, u64 gpa, size_t len)
{
	struct kvm_memory_slot *slot;
	struct kvm *kvm = args->vcpu->kvm;
	unsigned long hva;
	size_t n;
	int ret = -EFAULT;

	if (gpa + len < gpa)
		return -EFAULT;
	kvm_vcpu_srcu_read_lock(args->vcpu);
	for (; len; len -= n, gpa += n, to += n) {
		n = min_t(size_t, len, PAGE_SIZE - offset_in_page(gpa));
		/* Reading it would populate what the guest must not have. */
		if (args->vm &&
		    elastic_unit_withheld(args->vm, gpa >> ELASTIC_UNIT_SHIFT))
			goto out;
		slot = __gfn_to_memslot(kvm_memslots(kvm), gpa >> PAGE_SHIFT);
		if (!is_ram(slot))
			goto out;
		hva = __gfn_to_hva_memslot(slot, gpa >> PAGE_SHIFT) +
		      offset_in_page(gpa);
		if (copy_from_user(to, (void __user *)hva, n))
			goto out;
	}
	ret = 0;
out:
	kvm_vcpu_srcu_read_unlock(args->vcpu);
	return ret;
}

/*
 * Fetch the memory argument, @len bytes.
 *
 * Return: what the caller frees, or an ERR_PTR with the status to answer.
 */
static void *fetch(struct args *args, size_t len)
{
	void *buf;

	if (!IS_ALIGNED(args->a, 8))
		return ERR_PTR(invalid(args, ELASTIC_R_LENGTH, 0));
	buf = kmalloc(len, GFP_KERNEL_ACCOUNT);
	if (!buf)
		return ERR_PTR(ELASTIC_E_NOMEM);
	if (copy_in(args, buf, args->a, len)) {
		kfree(buf);
		return ERR_PTR(ELASTIC_E_FAULT);
	}
	return buf;
}

/* Ascending, disjoint, not empty? Return: index of the first that is not. */
static unsigned int first_disorder(const struct elastic_range *r,
				   unsigned int nr)
{
	u64 end = 0;
	unsigned int i;

	for (i = 0; i < nr; i++) {
		if (!r[i].nr || r[i].first < end ||
		    r[i].first >= ELASTIC_MAX_UNIT ||
		    r[i].nr > ELASTIC_MAX_UNIT - r[i].first)
			break;
		end = r[i].first + r[i].nr;
	}
	return i;
}

static size_t hello_len(const struct elastic_hello *h)
{
	return sizeof(*h) + h->nr_cpu_words * sizeof(u64) +
	       h->nr_ranges * sizeof(struct elastic_range);
}

static const u64 *hello_held(const struct elastic_hello *h)
{
	return (const u64 *)(h + 1);
}

static const struct elastic_range *hello_absent(const struct elastic_hello *h)
{
	return (const struct elastic_range *)(hello_held(h) + h->nr_cpu_words);
}

static long hello_check(struct args *args, const struct elastic_hello *h)
{
	unsigned int self = args->vcpu->vcpu_id, i;

	if (h->nr_cpu_words > ELASTIC_MAX_CPU_WORDS ||
	    h->nr_ranges > ELASTIC_MAX_RANGES || args->b != hello_len(h))
		return invalid(args, ELASTIC_R_LENGTH, 0);
	if (h->reserved)
		return invalid(args, ELASTIC_R_RESERVED, 0);
	if (h->version_min > h->version_max)
		return invalid(args, ELASTIC_R_VERSION, 0);
	if (self / 64 >= h->nr_cpu_words ||
	    !(hello_held(h)[self / 64] & BIT_ULL(self % 64)))
		return invalid(args, ELASTIC_R_SELF, 0);
	i = first_disorder(hello_absent(h), h->nr_ranges);
	if (i < h->nr_ranges)
		return invalid(args, ELASTIC_R_ORDER, i);
	if (h->version_min > ELASTIC_VERSION ||
	    h->version_max < ELASTIC_VERSION) {
		answer(args, ELASTIC_R_VERSION, 0, 0);
		return ELASTIC_REFUSED;
	}
	if (!elastic_vcpu_can_gate(args->vcpu) ||
	    !elastic_grant_possible(args->vcpu)) {
		answer(args, ELASTIC_R_ADMISSION, 0, 0);
		return ELASTIC_REFUSED;
	}
	return ELASTIC_OK;
}

static long hello_begin(struct args *args, const struct elastic_hello *h)
{
	struct elastic_vm *vm = args->vm;
	u64 cookie;

	int ret;

	ret = elastic_grant_begin(vm, args->vcpu, hello_held(h),
				  h->nr_cpu_words, hello_absent(h),
				  h->nr_ranges);
	if (ret == -EDQUOT) {
		answer(args, ELASTIC_R_ADMISSION, 0, 0);
		return ELASTIC_REFUSED;
	}
	if (ret)
		return ELASTIC_E_NOMEM;

	do
		cookie = get_random_u64();
	while (!cookie);
	elastic_place_hello(vm, args->vcpu->kvm);
	vm->features = h->features & FEATURES;
	WRITE_ONCE(vm->cookie, cookie);
	trace_elastic_hello(vm->pid, vm->cpu.grant, vm->cpu.ceiling,
			    vm->mem.grant, vm->mem.ceiling);
	trace_elastic_state(vm->pid, ELASTIC_VM_MANAGED);
	answer(args, cookie, vm->features, ELASTIC_VERSION);
	return ELASTIC_OK;
}

/* The record is made when nothing can be wrong any more but for memory. */
static long hello_vm(struct args *args)
{
	struct elastic_vm *vm;

	if (args->vm)
		return ELASTIC_OK;
	vm = elastic_vm_create(args->vcpu->kvm);
	if (!vm)
		return ELASTIC_E_NOMEM;
	if (mutex_lock_killable(&vm->lock))
		return ELASTIC_E_INTR;
	args->vm = vm;
	/* Another vCPU's HELLO was first, and does not hold this one. */
	if (elastic_cpu_withheld(vm, args->vcpu->vcpu_id))
		return invalid(args, ELASTIC_R_NOT_GRANTED, 0);
	return ELASTIC_OK;
}

static long op_hello(struct args *args)
{
	struct elastic_hello *h;
	long ret;

	if (args->call->rcx)
		return invalid(args, ELASTIC_R_RESERVED, 0);
	if (args->b < sizeof(*h) ||
	    args->b > sizeof(*h) + ELASTIC_MAX_CPU_WORDS * sizeof(u64) +
		      ELASTIC_MAX_RANGES * sizeof(struct elastic_range))
		return invalid(args, ELASTIC_R_LENGTH, 0);
	h = fetch(args, args->b);
	if (IS_ERR(h))
		return PTR_ERR(h);
	ret = hello_check(args, h);
	if (!ret)
		ret = hello_vm(args);
	if (!ret)
		ret = hello_begin(args, h);
	kfree(h);
	return ret;
}

static long op_report(struct args *args)
{
	struct elastic_vm *vm = args->vm;
	struct elastic_targets t;
	struct elastic_report r;
	u64 hint;

	if (args->b != sizeof(r) || !IS_ALIGNED(args->a, 8))
		return invalid(args, ELASTIC_R_LENGTH, 0);
	/* Not allocated: a guest short of memory may have a host that is, too. */
	if (copy_in(args, &r, args->a, sizeof(r)))
		return ELASTIC_E_FAULT;
	if (memchr_inv(r.reserved, 0, sizeof(r.reserved)))
		return invalid(args, ELASTIC_R_RESERVED, 0);
	elastic_arbiter_report(vm, args->vcpu, &r, &t);
	elastic_place_sample(vm, args->vcpu, elastic_grant_unit_span(vm));
	/* Asked each time: it is about the time since the last REPORT. */
	hint = elastic_place_hint(vm, args->vcpu->kvm);
	if (!(vm->features & ELASTIC_FEAT_HINT))
		hint = 0;
	answer(args, t.cpus | (u64)t.cpu_grant << 32, t.units,
	       t.unit_grant | hint << ELASTIC_HINT_SHIFT);
	trace_elastic_report(vm->pid, &r);
	return ELASTIC_OK;
}

static long op_request(struct args *args)
{
	struct elastic_want want = {
		.word = args->word,
		.cpus = args->a,
		.nr_cpus = args->nr_cpus ?: hweight64(args->a),
		.first = ELASTIC_RANGE_FIRST(args->b),
		.nr_units = ELASTIC_RANGE_NR(args->b),
		.whole = args->whole,
	};
	long ret;

	if (want.nr_cpus > hweight64(want.cpus) ||
	    want.first >= ELASTIC_MAX_UNIT ||
	    (want.first && !want.nr_units))
		return invalid(args, ELASTIC_R_LENGTH, 0);
	if ((want.cpus && !(args->vm->features & ELASTIC_FEAT_CPU)) ||
	    (want.nr_units && !(args->vm->features & ELASTIC_FEAT_MEM)))
		return invalid(args, ELASTIC_R_RESERVED, 0);
	ret = elastic_grant_request(args->vm, &want);
	trace_elastic_request(args->vm->pid, &want, ret);
	answer(args, want.cpu_reason | want.mem_reason << 16 |
	       (u64)want.could_cpus << ELASTIC_COULD_CPUS_SHIFT |
	       min(want.could_units, ELASTIC_COULD_MASK) <<
	       ELASTIC_COULD_UNITS_SHIFT,
	       want.got_cpus, want.got_units);
	return ret;
}

static long op_release_cpu(struct args *args)
{
	struct elastic_vm *vm = args->vm;
	unsigned int self = args->vcpu->vcpu_id;
	u64 released;

	if (args->b)
		return invalid(args, ELASTIC_R_RESERVED, 0);
	if (self / 64 == args->word && (args->a & BIT_ULL(self % 64)))
		return invalid(args, ELASTIC_R_SELF, 0);
	released = elastic_grant_release_cpus(vm, args->word, args->a);
	/* Also what was seized, and runs for a moment just now. */
	elastic_hold_kick(args->vcpu->kvm, args->word,
			  args->a & vm->cpu_withheld[args->word]);
	trace_elastic_release(vm->pid, hweight64(released), 0, vm->cpu.grant,
			      vm->mem.grant);
	answer(args, ELASTIC_R_NONE,
	       vm->cpu_ceiling[args->word] &
	       ~elastic_cpus_withheld(vm, args->word), 0);
	return ELASTIC_OK;
}

/* Join neighbours: the fewer pieces, the fewer rounds through the host's memory. */
static unsigned int join_ranges(struct elastic_range *r, unsigned int nr)
{
	unsigned int i, n = 0;

	for (i = 1; i < nr; i++) {
		if (r[n].first + r[n].nr == r[i].first)
			r[n].nr += r[i].nr;
		else
			r[++n] = r[i];
	}
	return n + 1;
}

/* Take the memory behind units, and with @release their grant. */
static long take_ranges(struct args *args, struct elastic_range *r, bool release)
{
	unsigned int nr = args->b, i;
	u64 units = 0, taken = 0;
	int reason;

	i = first_disorder(r, nr);
	if (i < nr)
		return invalid(args, ELASTIC_R_ORDER, i);
	for (i = 0; i < nr; i++) {
		reason = elastic_grant_check(args->vm, &r[i]);
		if (reason)
			return invalid(args, reason, i);
	}
	nr = join_ranges(r, nr);
	if (release) {
		for (i = 0; i < nr; i++)
			elastic_grant_release_units(args->vm, &r[i]);
		elastic_reclaim_wait(args->vcpu);
	}
	for (i = 0; i < nr; i++) {
		taken += elastic_reclaim(args->vm, args->vcpu, &r[i],
					 release);
		units += r[i].nr;
	}
	if (release)
		trace_elastic_release(args->vm->pid, 0, units,
				      args->vm->cpu.grant, args->vm->mem.grant);
	else
		trace_elastic_discard(args->vm->pid, units, taken);
	answer(args, taken < units ? ELASTIC_R_PINNED : ELASTIC_R_NONE, 0,
	       taken);
	return ELASTIC_OK;
}

static long op_take(struct args *args, bool release)
{
	struct elastic_range *r;
	long ret;

	if (!args->b || args->b > ELASTIC_MAX_RANGES)
		return invalid(args, ELASTIC_R_LENGTH, 0);
	r = fetch(args, args->b * sizeof(*r));
	if (IS_ERR(r))
		return PTR_ERR(r);
	ret = take_ranges(args, r, release);
	kfree(r);
	return ret;
}

static long op_release_mem(struct args *args)
{
	return op_take(args, true);
}

static long op_discard(struct args *args)
{
	if (!(args->vm->features & ELASTIC_FEAT_DISCARD))
		return ELASTIC_E_NOSYS;
	return op_take(args, false);
}

static long op_bye(struct args *args)
{
	if (args->a || args->b)
		return invalid(args, ELASTIC_R_RESERVED, 0);
	WRITE_ONCE(args->vm->cookie, 0);
	trace_elastic_bye(args->vm->pid);
	trace_elastic_state(args->vm->pid, ELASTIC_VM_DETACHED);
	return ELASTIC_OK;
}

static long (* const ops[ELASTIC_OP_NR])(struct args *args) = {
	[ELASTIC_OP_HELLO] = op_hello,
	[ELASTIC_OP_REPORT] = op_report,
	[ELASTIC_OP_REQUEST] = op_request,
	[ELASTIC_OP_RELEASE_CPU] = op_release_cpu,
	[ELASTIC_OP_RELEASE_MEM] = op_release_mem,
	[ELASTIC_OP_DISCARD] = op_discard,
	[ELASTIC_OP_BYE] = op_bye,
};

/* Which of the parts of RBX an operation may use. */
static bool has_reserved(const struct args *args, u64 rbx)
{
	bool cpus = args->op == ELASTIC_OP_REQUEST ||
		    args->op == ELASTIC_OP_RELEASE_CPU;
	bool request = args->op == ELASTIC_OP_REQUEST;

	return (rbx & ELASTIC_RESERVED_MASK) ||
	       args->word >= ELASTIC_MAX_CPU_WORDS ||
	       (!cpus && args->word) ||
	       (!request && (args->nr_cpus || args->whole));
}

static void count(struct elastic_vm *vm, u64 op, long status)
{
	if (status >= 0)
		elastic_stat_add(vm, ELASTIC_STAT_OPS + op, 1);
	else if (status == ELASTIC_E_STALE)
		elastic_stat_add(vm, ELASTIC_STAT_STALE, 1);
	else if (status == ELASTIC_E_FAULT)
		elastic_stat_add(vm, ELASTIC_STAT_FAULT, 1);
	else if (status == ELASTIC_E_NOSYS)
		elastic_stat_add(vm, ELASTIC_STAT_NOSYS, 1);
	else if (status == ELASTIC_E_INVAL)
		elastic_stat_add(vm, ELASTIC_STAT_INVALID, 1);
}

/* Is there the session that the call speaks of? */
static bool is_stale(struct args *args)
{
	struct elastic_vm *vm = args->vm;

	return !vm || !args->call->rcx || args->call->rcx != vm->cookie ||
	       !elastic_vm_enforced(vm);
}

static long run_op(struct args *args)
{
	bool hello = args->op == ELASTIC_OP_HELLO;
	bool stale = !hello && is_stale(args);

	answer(args, ELASTIC_R_NONE, hello ? args->call->rcx : 0, 0);
	if (stale)
		return ELASTIC_E_STALE;
	/* Taken while it was on its way here; it does not run any more. */
	if (args->vm && elastic_cpu_withheld(args->vm, args->vcpu->vcpu_id))
		return invalid(args, ELASTIC_R_NOT_GRANTED, 0);
	return ops[array_index_nospec(args->op, ELASTIC_OP_NR)](args);
}

static long run(struct args *args)
{
	long ret;

	args->vm = elastic_vm_find(args->vcpu->kvm);
	if (args->vm && mutex_lock_killable(&args->vm->lock)) {
		answer(args, ELASTIC_R_NONE, 0, 0);
		return ELASTIC_E_INTR;
	}
	ret = run_op(args);
	if (args->vm) {
		if (elastic_seize_is_due(args->vm))
			elastic_seize_enforce(args->vm, args->vcpu->kvm);
		mutex_unlock(&args->vm->lock);
		count(args->vm, args->op, ret);
	}
	return ret;
}

/**
 * elastic_hypercall() - carry out one hypercall
 * @vcpu: the caller, in its kernel, in 64-bit mode
 * @call: arguments in, results out
 *
 * Context: vCPU, kvm->srcu held for reading; it is dropped meanwhile, since
 * the call may sleep for long.
 * Return: the status for RAX.
 */
long elastic_hypercall(struct kvm_vcpu *vcpu, struct elastic_call *call)
{
	struct args args = {
		.vcpu = vcpu,
		.op = call->rbx & ELASTIC_OP_MASK,
		.word = (call->rbx >> ELASTIC_WORD_SHIFT) & ELASTIC_WORD_MASK,
		.nr_cpus = (call->rbx >> ELASTIC_NCPUS_SHIFT) &
			   ELASTIC_NCPUS_MASK,
		.whole = call->rbx & ELASTIC_F_WHOLE,
		.a = call->rdx,
		.b = call->rsi,
		.call = call,
	};
	struct elastic_vm *vm;
	long ret;

	if (args.op >= ELASTIC_OP_NR || has_reserved(&args, call->rbx)) {
		ret = args.op >= ELASTIC_OP_NR ? ELASTIC_E_NOSYS :
						 ELASTIC_E_INVAL;
		answer(&args, ret == ELASTIC_E_INVAL ? ELASTIC_R_RESERVED :
						       ELASTIC_R_NONE, 0, 0);
		vm = elastic_vm_find(vcpu->kvm);
		if (vm)
			count(vm, args.op, ret);
		return ret;
	}
	kvm_vcpu_srcu_read_unlock(vcpu);
	ret = run(&args);
	kvm_vcpu_srcu_read_lock(vcpu);
	return ret;
}
