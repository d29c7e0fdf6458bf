// SPDX-License-Identifier: GPL-2.0
// Copyright (C) the kvm-elastic authors
/*
 * Where on the host vCPUs run that were granted since HELLO: on the CPUs near
 * the VM's memory that have least to do, within what the administrator allows
 * their threads (policy_place.c chooses). Off until he turns it on.
 *
 * Load is the part of the time in which a CPU was not idle, between two looks
 * LOOK_MS apart: the kernel's own account, exact where it stops the tick. It
 * is the past, and says nothing of how long others wait. A vCPU that was placed
 * since the last look counts as busy on the CPUs where it was put.
 *
 * What a thread was allowed is remembered, and restored when the vCPU is not
 * granted any more, the knob is turned off, or the module goes. A mask that is
 * not the one that was set here is the administrator's (or his cpuset's), and
 * stays. The kernel has no way to compare and set: who writes in the very
 * moment in which a thread is moved (microseconds) is not seen, nor who writes
 * just the mask that the thread has.
 *
 * All of it runs in works of the one ordered queue, of which the arbiter's timer
 * is one, so it needs no lock, and sleeps as it likes. Hints and the sample of
 * the memory's node are taken in the VM's own REPORT.
 */
#include <linux/kernel_stat.h>
#include <linux/mm.h>
#include <linux/sched/task.h>
#include <linux/slab.h>
#include <linux/tick.h>

#include "compat/topology.h"
#include "elastic_host.h"
#include "policy_place.h"
#include "trace.h"

#define LOOK_MS		1000
#define NOT_PLACED	U32_MAX
/* Pages that are looked at to know where a VM's memory is. */
#define NR_SAMPLES	32

/**
 * struct elastic_seat - where a vCPU runs
 * @pid: its thread, if that was placed; else NULL
 * @was: what the administrator allowed it
 * @set: what it was set to
 * @hands_off: he changed that; until the vCPU is granted anew it is his
 * @ran_ns: time that it ran, at the last look at the load
 * @cost: of its place, NOT_PLACED without; read under vm->lock, too
 * @seen_ran_ns: time that it ran, at the last REPORT; under vm->lock
 * @seen_waited_ns: time that it waited; the same
 *
 * The works of the queue alone, but for what is said.
 */
struct elastic_seat {
	struct pid *pid;
	cpumask_var_t was;
	cpumask_var_t set;
	bool hands_off;
	u64 ran_ns;
	u32 cost;
	u64 seen_ran_ns;
	u64 seen_waited_ns;
};

/* Written by a work, read by anybody. */
u64 elastic_placement;

/* One store at a time, and none any more once the module goes. */
static DEFINE_MUTEX(knob_lock);
static bool closed;

/* The rest is of the works: nr_cpu_ids spots, and when they were looked at. */
static struct elastic_spot *spots;
static u64 *idle_us;
static cpumask_var_t scratch;
static u64 looked_us;
static u64 interval_us;

/* How many seats there are to see without vm->lock. */
static unsigned int nr_seats(struct elastic_vm *vm)
{
	/* Pairs with elastic_place_hello(): the seats come with their number. */
	return smp_load_acquire(&vm->nr_seats);
}

static u64 cpu_idle_us(unsigned int cpu)
{
	u64 idle = get_cpu_idle_time_us(cpu, NULL);

	if (idle != (u64)-1)
		return idle + get_cpu_iowait_time_us(cpu, NULL);
	/* A kernel that never stops the tick counts ticks. */
	return (kcpustat_cpu(cpu).cpustat[CPUTIME_IDLE] +
		kcpustat_cpu(cpu).cpustat[CPUTIME_IOWAIT]) / NSEC_PER_USEC;
}

/* Look how busy the CPUs are, if it is time. Return: did we? */
static bool measure(void)
{
	u64 now = ktime_get_ns() / NSEC_PER_USEC, idle;
	unsigned int cpu;

	if (looked_us && now - looked_us < LOOK_MS * USEC_PER_MSEC)
		return false;
	interval_us = looked_us ? now - looked_us : 0;
	for_each_possible_cpu(cpu) {
		idle = cpu_idle_us(cpu);
		spots[cpu].cache = elastic_cache_of(cpu);
		spots[cpu].busy = 0;
		/* What is read a moment later may be more than the time between. */
		if (interval_us && idle - idle_us[cpu] < interval_us)
			spots[cpu].busy = 1000 - (idle - idle_us[cpu]) * 1000 /
					  interval_us;
		idle_us[cpu] = idle;
	}
	looked_us = now;
	return interval_us;
}

/* Add to the load of the CPUs of @mask what one thread makes of it. */
static void load_add(const struct cpumask *mask, s32 permille)
{
	s32 each = permille / (s32)max(cpumask_weight(mask), 1U);
	unsigned int cpu;

	for_each_cpu(cpu, mask)
		spots[cpu].busy = max_t(s32, spots[cpu].busy + each, 0);
}

static void get_mask(struct task_struct *task, struct cpumask *mask)
{
	unsigned long flags;

	raw_spin_lock_irqsave(&task->pi_lock, flags);
	cpumask_copy(mask, &task->cpus_mask);
	raw_spin_unlock_irqrestore(&task->pi_lock, flags);
}

static bool has_mask(struct task_struct *task, const struct cpumask *mask)
{
	unsigned long flags;
	bool same;

	raw_spin_lock_irqsave(&task->pi_lock, flags);
	same = cpumask_equal(&task->cpus_mask, mask);
	raw_spin_unlock_irqrestore(&task->pi_lock, flags);
	return same;
}

/* Forget the thread; it keeps the mask that it has. */
static void seat_drop(struct elastic_seat *seat)
{
	put_pid(seat->pid);
	seat->pid = NULL;
	WRITE_ONCE(seat->cost, NOT_PLACED);
}

/*
 * Was it the kernel that changed what the thread is allowed, because a CPU of ours went
 * offline? Then what it was allowed before still holds.
 */
static bool was_broken(struct elastic_seat *seat, struct task_struct *task)
{
	if (cpumask_subset(seat->set, cpu_active_mask))
		return false;
	set_cpus_allowed_ptr(task, seat->was);
	return true;
}

/* Give the thread back what it was allowed, unless that was changed. */
static void seat_undo(struct elastic_vm *vm, struct elastic_seat *seat)
{
	struct task_struct *task;
	int ret = 0;

	if (!seat->pid)
		return;
	task = get_pid_task(seat->pid, PIDTYPE_PID);
	if (task) {
		if (!has_mask(task, seat->set))
			ret = was_broken(seat, task) ? 0 : -EBUSY;
		else if (!cpumask_equal(seat->set, seat->was))
			ret = set_cpus_allowed_ptr(task, seat->was);
		trace_elastic_unplace(vm->pid, task->pid, ret);
		put_task_struct(task);
	}
	seat_drop(seat);
}

/* What the CPUs are to a thread of @vm that is allowed @mask. */
static void fill_spots(struct elastic_vm *vm, const struct cpumask *mask)
{
	int node = READ_ONCE(vm->home_node);
	unsigned int cpu;

	for_each_possible_cpu(cpu) {
		spots[cpu].allowed = cpumask_test_cpu(cpu, mask) &&
				     cpu_active(cpu);
		spots[cpu].near = node == NUMA_NO_NODE ||
				  cpu_to_node(cpu) == node;
	}
}

static u32 cost_of(const struct cpumask *mask)
{
	unsigned int cpu;

	for_each_possible_cpu(cpu)
		spots[cpu].chosen = cpumask_test_cpu(cpu, mask);
	return elastic_policy_place_cost(spots, nr_cpu_ids);
}

/* Choose CPUs into @scratch. Return: what they cost, NOT_PLACED if there are none. */
static u32 choose(void)
{
	unsigned int cpu;

	if (!elastic_policy_place(spots, nr_cpu_ids))
		return NOT_PLACED;
	cpumask_clear(scratch);
	for_each_possible_cpu(cpu) {
		if (spots[cpu].chosen)
			cpumask_set_cpu(cpu, scratch);
	}
	return elastic_policy_place_cost(spots, nr_cpu_ids);
}

/* Let the thread run on @scratch alone. */
static int seat_set(struct elastic_vm *vm, struct elastic_seat *seat,
		    struct task_struct *task, u32 cost)
{
	int ret = 0;

	if (!has_mask(task, scratch))
		ret = set_cpus_allowed_ptr(task, scratch);
	trace_elastic_place(vm->pid, task->pid, cpumask_first(scratch),
			    cpumask_weight(scratch), cost, ret);
	if (ret)
		return ret;
	/* The kernel may cut it by what the user has set. */
	get_mask(task, seat->set);
	WRITE_ONCE(seat->cost, cost);
	return 0;
}

static bool seat_masks(struct elastic_seat *seat)
{
	if (!cpumask_available(seat->was) &&
	    !alloc_cpumask_var(&seat->was, GFP_KERNEL))
		return false;
	return cpumask_available(seat->set) ||
	       alloc_cpumask_var(&seat->set, GFP_KERNEL);
}

/* A vCPU that was granted and has no place yet. */
static void seat_take(struct elastic_vm *vm, struct elastic_seat *seat,
		      struct kvm_vcpu *vcpu)
{
	struct pid *pid = elastic_vcpu_pid(vcpu);
	struct task_struct *task = get_pid_task(pid, PIDTYPE_PID);
	u32 cost;

	if (!task || !seat_masks(seat))
		goto out;
	get_mask(task, seat->was);
	fill_spots(vm, seat->was);
	cost = choose();
	if (cost == NOT_PLACED || seat_set(vm, seat, task, cost))
		goto out;
	/* It was granted because it is wanted. */
	load_add(seat->set, 1000);
	seat->ran_ns = READ_ONCE(task->se.sum_exec_runtime);
	seat->pid = pid;
	pid = NULL;
out:
	if (task)
		put_task_struct(task);
	put_pid(pid);
}

/* Loads have changed: is there a better place? Its own load goes with it. */
static void seat_review(struct elastic_vm *vm, struct elastic_seat *seat,
			struct task_struct *task)
{
	u64 ran = READ_ONCE(task->se.sum_exec_runtime);
	u64 own = (ran - seat->ran_ns) / (interval_us + 1);
	u32 now, then;

	seat->ran_ns = ran;
	own = min_t(u64, own, 1000);
	fill_spots(vm, seat->was);
	load_add(seat->set, -(s32)own);
	now = cost_of(seat->set);
	WRITE_ONCE(seat->cost, now);
	then = choose();
	if (then != NOT_PLACED && elastic_policy_place_better(now, then))
		seat_set(vm, seat, task, then);
	load_add(seat->set, own);
}

/* A vCPU that has a place, unless somebody has changed that. */
static void seat_keep(struct elastic_vm *vm, struct elastic_seat *seat,
		      struct kvm_vcpu *vcpu, bool measured)
{
	struct pid *pid = elastic_vcpu_pid(vcpu);
	struct task_struct *task = get_pid_task(seat->pid, PIDTYPE_PID);

	if (!task) {
		seat_drop(seat);
	} else if (pid != seat->pid) {
		/* Another thread runs it now. */
		seat_undo(vm, seat);
	} else if (!has_mask(task, seat->set)) {
		seat->hands_off = !was_broken(seat, task);
		seat_drop(seat);
	} else if (measured) {
		seat_review(vm, seat, task);
	}
	if (task)
		put_task_struct(task);
	put_pid(pid);
}

static bool is_granted(struct elastic_vm *vm, unsigned int id)
{
	return id < ELASTIC_MAX_CPUS && test_bit(id, vm->cpu_ceiling) &&
	       !test_bit(id, vm->cpu_withheld) && !test_bit(id, vm->cpu_seized);
}

static void look_at_seat(struct elastic_vm *vm, struct elastic_seat *seat,
			 struct kvm_vcpu *vcpu, bool measured)
{
	if (!is_granted(vm, vcpu->vcpu_id) ||
	    !test_bit(vcpu->vcpu_id, vm->cpu_extra)) {
		seat_undo(vm, seat);
		seat->hands_off = false;
	} else if (seat->pid) {
		seat_keep(vm, seat, vcpu, measured);
	} else if (!seat->hands_off && interval_us) {
		seat_take(vm, seat, vcpu);
	}
}

/**
 * elastic_place_undo() - all threads of a VM as the administrator left them
 * @vm: the VM
 *
 * Context: a work of the VMs' queue.
 */
void elastic_place_undo(struct elastic_vm *vm)
{
	unsigned int i, nr = nr_seats(vm);

	for (i = 0; i < nr; i++) {
		seat_undo(vm, &vm->seats[i]);
		vm->seats[i].hands_off = false;
	}
}

static void look_at_vm(struct elastic_vm *vm, bool measured)
{
	unsigned int nr = nr_seats(vm);
	struct kvm_vcpu *vcpu;
	struct kvm *kvm;
	unsigned long i;

	if (!elastic_placement || !elastic_vm_enforced(vm)) {
		elastic_place_undo(vm);
		return;
	}
	kvm = elastic_vm_get_kvm(vm);
	if (!kvm)
		return;
	kvm_for_each_vcpu(i, vcpu, kvm) {
		if (i < nr)
			look_at_seat(vm, &vm->seats[i], vcpu, measured);
		cond_resched();
	}
	kvm_put_kvm(kvm);
}

static void look_at_all(bool measured)
{
	struct elastic_vm *vm;

	/* Records go only in works of this queue, so none goes meanwhile. */
	mutex_lock(&elastic_vms_lock);
	list_for_each_entry(vm, &elastic_vms, all) {
		mutex_unlock(&elastic_vms_lock);
		look_at_vm(vm, measured);
		mutex_lock(&elastic_vms_lock);
	}
	mutex_unlock(&elastic_vms_lock);
}

/**
 * elastic_place_look() - place what was granted, and see whether it is well placed
 *
 * Context: a work of the VMs' queue.
 */
void elastic_place_look(void)
{
	if (elastic_placement)
		look_at_all(measure());
}

/**
 * elastic_place_hello() - the VM has a session; remember its vCPUs
 * @vm: the VM
 * @kvm: KVM's VM
 *
 * Without memory there are no places and no hints. vCPUs that the VMM creates
 * later have none either.
 *
 * Context: vCPU, @vm->lock held; may sleep.
 */
void elastic_place_hello(struct elastic_vm *vm, struct kvm *kvm)
{
	unsigned int i, nr = atomic_read(&kvm->online_vcpus);

	lockdep_assert_held(&vm->lock);

	if (vm->nr_seats)
		return;
	vm->seats = kvcalloc(nr, sizeof(*vm->seats), GFP_KERNEL_ACCOUNT);
	if (!vm->seats)
		return;
	for (i = 0; i < nr; i++)
		vm->seats[i].cost = NOT_PLACED;
	/* Pairs with nr_seats(). */
	smp_store_release(&vm->nr_seats, nr);
}

/**
 * elastic_place_end() - undo and forget all places of a VM
 * @vm: the VM, which nobody finds any more
 *
 * Context: a work of the VMs' queue.
 */
void elastic_place_end(struct elastic_vm *vm)
{
	unsigned int i;

	elastic_place_undo(vm);
	for (i = 0; i < vm->nr_seats; i++) {
		free_cpumask_var(vm->seats[i].was);
		free_cpumask_var(vm->seats[i].set);
	}
	kvfree(vm->seats);
	vm->seats = NULL;
	vm->nr_seats = 0;
}

/**
 * elastic_place_hint() - which vCPU the guest had best give up first
 * @vm: the VM
 * @kvm: KVM's VM
 *
 * Context: vCPU, @vm->lock held.
 * Return: its id plus 1, or 0 if there is none.
 */
u64 elastic_place_hint(struct elastic_vm *vm, struct kvm *kvm)
{
	struct elastic_seat_look look, best = {};
	struct elastic_seat *seat;
	struct kvm_vcpu *vcpu;
	unsigned long i;
	u64 ran, waited;
	u64 hint = 0;

	lockdep_assert_held(&vm->lock);

	kvm_for_each_vcpu(i, vcpu, kvm) {
		if (i >= vm->nr_seats)
			break;
		seat = &vm->seats[i];
		elastic_vcpu_times(vcpu, &ran, &waited);
		look.may_go = is_granted(vm, vcpu->vcpu_id) &&
			      vcpu->vcpu_id != kvm->arch.bsp_vcpu_id;
		look.cost = READ_ONCE(seat->cost);
		look.placed = look.cost != NOT_PLACED;
		look.ran_ns = ran - seat->seen_ran_ns;
		look.waited_ns = waited - seat->seen_waited_ns;
		seat->seen_ran_ns = ran;
		seat->seen_waited_ns = waited;
		if (look.may_go &&
		    (!hint || !elastic_policy_goes_first(&best, &look))) {
			best = look;
			hint = vcpu->vcpu_id + 1;
		}
	}
	return hint;
}

/* The node of a page that exists, or NUMA_NO_NODE. */
static int node_of(struct kvm *kvm, gfn_t gfn)
{
	struct kvm_memory_slot *slot = __gfn_to_memslot(kvm_memslots(kvm), gfn);
	struct page *page;
	int node;

	if (!slot || slot->id >= KVM_USER_MEM_SLOTS ||
	    slot->flags & (KVM_MEM_READONLY | KVM_MEMSLOT_INVALID))
		return NUMA_NO_NODE;
	if (!get_user_page_fast_only(__gfn_to_hva_memslot(slot, gfn), 0, &page))
		return NUMA_NO_NODE;
	node = page_to_nid(page);
	put_page(page);
	return node;
}

/* Of @nr nodes the one that is there most often. */
static int most_frequent(const int *nodes, unsigned int nr)
{
	unsigned int i, j, n, most = 0;
	int winner = NUMA_NO_NODE;

	for (i = 0; i < nr; i++) {
		for (n = 0, j = i; j < nr; j++)
			n += nodes[j] == nodes[i];
		if (n > most) {
			most = n;
			winner = nodes[i];
		}
	}
	return winner;
}

/**
 * elastic_place_sample() - see on which node the VM's memory is
 * @vm: the VM
 * @vcpu: a vCPU of it
 * @units: how many units there are, holes included
 *
 * A look at a few pages, spread evenly; the node that most of them are on.
 *
 * Context: vCPU, kvm->srcu not held.
 */
void elastic_place_sample(struct elastic_vm *vm, struct kvm_vcpu *vcpu,
			  u64 units)
{
	int nodes[NR_SAMPLES];
	unsigned int i, n = 0;

	if (!READ_ONCE(elastic_placement) || num_online_nodes() < 2)
		return;
	kvm_vcpu_srcu_read_lock(vcpu);
	for (i = 0; i < NR_SAMPLES; i++) {
		nodes[n] = node_of(vcpu->kvm, (units * i / NR_SAMPLES) <<
					      ELASTIC_UNIT_GFN_SHIFT);
		n += nodes[n] != NUMA_NO_NODE;
	}
	kvm_vcpu_srcu_read_unlock(vcpu);
	if (n)
		WRITE_ONCE(vm->home_node, most_frequent(nodes, n));
}

/**
 * elastic_place_nr() - how many vCPUs of a VM are placed
 * @vm: the VM
 *
 * Context: any.
 */
unsigned int elastic_place_nr(struct elastic_vm *vm)
{
	unsigned int i, n = 0, nr = nr_seats(vm);

	for (i = 0; i < nr; i++)
		n += READ_ONCE(vm->seats[i].cost) != NOT_PLACED;
	return n;
}

static void forget_load(void)
{
	kvfree(spots);
	kvfree(idle_us);
	free_cpumask_var(scratch);
	spots = NULL;
	idle_us = NULL;
	looked_us = 0;
	interval_us = 0;
}

static int know_load(void)
{
	/* Whether or not this fails, forget_load() undoes it. */
	bool mask = zalloc_cpumask_var(&scratch, GFP_KERNEL);

	spots = kvcalloc(nr_cpu_ids, sizeof(*spots), GFP_KERNEL);
	idle_us = kvcalloc(nr_cpu_ids, sizeof(*idle_us), GFP_KERNEL);
	if (mask && spots && idle_us)
		return 0;
	forget_load();
	return -ENOMEM;
}

/**
 * struct turn - the knob is being turned
 * @work: in the VMs' queue
 * @on: which way
 * @ret: what came of it
 */
struct turn {
	struct work_struct work;
	bool on;
	int ret;
};

static void turn_work(struct work_struct *work)
{
	struct turn *t = container_of(work, struct turn, work);

	if (t->on == elastic_placement)
		return;
	if (t->on)
		t->ret = know_load();
	if (t->ret)
		return;
	WRITE_ONCE(elastic_placement, t->on);
	if (!t->on) {
		look_at_all(false);
		forget_load();
	}
}

static int turn(bool on)
{
	struct turn t = { .on = on };

	lockdep_assert_held(&knob_lock);

	INIT_WORK_ONSTACK(&t.work, turn_work);
	elastic_vms_run(&t.work);
	destroy_work_on_stack(&t.work);
	return t.ret;
}

/**
 * elastic_place_set() - turn placement on or off
 * @on: 1 or 0
 *
 * Context: may sleep. When it returns after 0, all threads are as they were.
 * Return: 0, -ENOMEM, or -ESHUTDOWN after elastic_place_stop().
 */
int elastic_place_set(u64 on)
{
	int ret = -ESHUTDOWN;

	mutex_lock(&knob_lock);
	if (!closed)
		ret = turn(on);
	mutex_unlock(&knob_lock);
	return ret;
}

/**
 * elastic_place_stop() - all threads as they were, and so it stays
 *
 * Context: may sleep; the timer has stopped, the VMs' queue is still there.
 */
void elastic_place_stop(void)
{
	mutex_lock(&knob_lock);
	turn(false);
	closed = true;
	mutex_unlock(&knob_lock);
}
