// SPDX-License-Identifier: GPL-2.0
/*
 * CPUs on and off.
 *
 * Candidates are the CPUs that the firmware listed and the boot left off
 * (maxcpus=): present, not online, with an APIC id. Up: ask, then add. Down:
 * remove, then release. The worker alone changes what this file keeps.
 *
 * A CPU that an administrator takes offline by hand is given up at the next
 * REPORT; bringing it back by hand is refused until it is granted again: the
 * host would hold it, and its start would wait there for a later grant, when the
 * kernel that sent it has long given up.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/cpu.h>
#include <linux/cpuhotplug.h>
#include <linux/kprobes.h>
#include <linux/slab.h>

#include "compat/sched.h"
#include "elastic_guest.h"
#include "trace.h"

#define NO_CPU	UINT_MAX

/* One that was started and did not come does not come later than this. */
#define START_LIMIT_MS	60000

/**
 * struct cpu_slot - one possible CPU
 * @apic_id: U32_MAX if it cannot be named to the host
 * @granted: the host granted it, as far as known; falls with the CPU hotplug
 *	lock held
 * @starting: it was started and has not come up; changed with the CPU hotplug
 *	lock held, one way or the other
 * @started_ms: when that was
 * @retry_ms: delay after the last failure, 0 if there was none
 * @retry_at_ms: not to be tried before
 */
struct cpu_slot {
	u32 apic_id;
	bool granted;
	bool starting;
	u64 started_ms;
	u32 retry_ms;
	u64 retry_at_ms;
};

/* nr_cpu_ids of them */
static struct cpu_slot *slots;
/* CPU online at load that maxcpus= did not leave off */
static u32 boot_cpus;
static u32 nr_words;
/* Hotplug states: what was allocated for the first, and the second. */
static int state_prepare;
static int state_online;

static bool slot_nameable(unsigned int cpu)
{
	return slots[cpu].apic_id < 64 * ELASTIC_MAX_CPU_WORDS;
}

static unsigned int cpu_of(u32 apic_id)
{
	unsigned int cpu;

	for_each_possible_cpu(cpu)
		if (slots[cpu].apic_id == apic_id)
			return cpu;
	return NO_CPU;
}

static void slot_failed(unsigned int cpu)
{
	struct cpu_slot *slot = &slots[cpu];

	slot->retry_ms = policy_retry_ms(&elastic_config.tun, slot->retry_ms);
	slot->retry_at_ms = elastic_now_ms() + slot->retry_ms;
}

static bool slot_waits(unsigned int cpu)
{
	return slots[cpu].retry_ms && elastic_now_ms() < slots[cpu].retry_at_ms;
}

/*
 * Online, or started and not come: it may come yet, and the host must not keep
 * it for later. The next try starts it anew.
 */
static bool slot_in_use(unsigned int cpu)
{
	return slot_nameable(cpu) &&
	       (cpu_online(cpu) || (slots[cpu].granted && slots[cpu].starting));
}

/* Nothing is to be held for ever for one that does not come. */
static void expire_starts(void)
{
	u64 now = elastic_now_ms();
	unsigned int cpu;

	for_each_possible_cpu(cpu)
		if (slots[cpu].starting && now - slots[cpu].started_ms > START_LIMIT_MS)
			slots[cpu].starting = false;
}

/**
 * cpu_held_words() - the vCPU set in use, for HELLO
 * @words: room for ELASTIC_MAX_CPU_WORDS, zero
 *
 * Context: cpus_read_lock() held.
 *
 * Return: how many words were used.
 */
u32 cpu_held_words(u64 *words)
{
	unsigned int cpu;

	expire_starts();
	for_each_possible_cpu(cpu)
		if (slot_in_use(cpu))
			words[slots[cpu].apic_id / 64] |= BIT_ULL(slots[cpu].apic_id % 64);
	return nr_words;
}

/**
 * cpu_adopt() - after HELLO: what is granted is what was in the inventory
 *
 * Context: worker, under the cpus_read_lock() of the inventory.
 */
void cpu_adopt(void)
{
	unsigned int cpu;

	for_each_possible_cpu(cpu)
		slots[cpu].granted = slot_in_use(cpu);
}

/**
 * cpu_present_limit() - most CPUs that there can be
 */
u32 cpu_present_limit(void)
{
	unsigned int cpu;
	u32 n = 0;

	for_each_present_cpu(cpu)
		n += cpu_online(cpu) || slot_nameable(cpu);
	return n;
}

/**
 * cpu_boot_floor() - how many CPUs were booted with
 */
u32 cpu_boot_floor(void)
{
	return boot_cpus;
}

/* vCPUs of a word that could be brought online. */
static u64 candidates(u32 word)
{
	unsigned int cpu;
	u64 set = 0;

	for_each_present_cpu(cpu)
		if (!cpu_online(cpu) && slots[cpu].apic_id / 64 == word && !slot_waits(cpu))
			set |= BIT_ULL(slots[cpu].apic_id % 64);
	return set;
}

static void forget_start(unsigned int cpu)
{
	cpus_read_lock();
	slots[cpu].starting = false;
	cpus_read_unlock();
}

static int start_one(unsigned int cpu)
{
	ktime_t start = ktime_get();
	u64 us;
	int ret;

	worker_let_go();
	ret = add_cpu(cpu);
	worker_take_back();
	us = ktime_us_delta(ktime_get(), start);
	trace_elastic_cpu_change(cpu, true, ret, us);
	if (!cpu_online(cpu)) {
		pr_warn_ratelimited("CPU %u does not start: %d\n", cpu, ret);
		stat_inc(STAT_CPU_ADD_FAILURES);
		slot_failed(cpu);
		/* Only this says that it was started and did not come. */
		if (ret != -EIO)
			forget_start(cpu);
		return ret < 0 ? ret : -EIO;
	}
	slots[cpu].retry_ms = 0;
	stat_inc(STAT_CPUS_ADDED);
	stat_set(STAT_CPU_ADD_LAST_US, us);
	return 0;
}

/*
 * Give up those vCPUs of a word that are offline. Under the lock, so that
 * nobody brings one online meanwhile: the host would hold a running CPU.
 */
static int release_offline(u32 word, u64 set)
{
	unsigned int cpu;
	u64 granted = set;
	int ret = 0;

	cpus_read_lock();
	expire_starts();
	for_each_possible_cpu(cpu)
		if (slots[cpu].apic_id / 64 == word && slot_in_use(cpu))
			set &= ~BIT_ULL(slots[cpu].apic_id % 64);
	if (set)
		ret = session_release_cpus(word, set, &granted);
	if (!ret)
		for_each_possible_cpu(cpu)
			if (slots[cpu].apic_id / 64 == word &&
			    set & ~granted & BIT_ULL(slots[cpu].apic_id % 64))
				slots[cpu].granted = false;
	cpus_read_unlock();
	return ret;
}

/* Bring up to @nr granted vCPUs of a word online. Return how many came. */
static u32 start_granted(u32 word, u64 granted, u32 nr, int *ret)
{
	u64 left = 0, set = granted;
	u32 started = 0;

	while (set) {
		u32 bit = __ffs64(set);
		unsigned int cpu = cpu_of(64 * word + bit);
		int err = 0;

		set &= ~BIT_ULL(bit);
		if (cpu == NO_CPU)
			continue;
		slots[cpu].granted = true;
		if (started < nr)
			err = start_one(cpu);
		if (cpu_online(cpu))
			started++;
		else
			left |= BIT_ULL(bit);
		if (err)
			*ret = err;
	}
	if (left)
		release_offline(word, left);
	return started;
}

static int cpu_grow(u32 want)
{
	u32 word, online = num_online_cpus();
	u64 set, granted;
	int ret = 0, err;

	for (word = 0; word < nr_words && online < want; word++) {
		set = candidates(word);
		if (!set)
			continue;
		err = session_request_cpus(word, set, min_t(u32, want - online, hweight64(set)),
					   &granted);
		if (err)
			ret = err;
		online += start_granted(word, granted, want - online, &ret);
		if (err && err != -EAGAIN && err != -ENOSPC)
			return err;
	}
	if (num_online_cpus() >= want)
		return 0;
	return ret ?: -EBUSY;
}

static int stop_one(unsigned int cpu)
{
	ktime_t start = ktime_get();
	int ret;

	worker_let_go();
	ret = remove_cpu(cpu);
	worker_take_back();
	trace_elastic_cpu_change(cpu, false, ret, ktime_us_delta(ktime_get(), start));
	if (cpu_online(cpu)) {
		stat_inc(STAT_CPU_REMOVE_FAILURES);
		slot_failed(cpu);
		return ret < 0 ? ret : -EBUSY;
	}
	slots[cpu].retry_ms = 0;
	stat_inc(STAT_CPUS_REMOVED);
	return 0;
}

static bool can_stop(unsigned int cpu)
{
	return cpu_online(cpu) && slot_nameable(cpu) && !slot_waits(cpu);
}

static int give_up(unsigned int cpu)
{
	return stop_one(cpu) ?: release_offline(slots[cpu].apic_id / 64,
						BIT_ULL(slots[cpu].apic_id % 64));
}

/*
 * The CPU that the host would have go first. It holds for one, and until the next
 * REPORT; what it may not be, or is not, is passed over.
 */
static unsigned int take_hint(u32 want)
{
	u32 hint = session.cpu_hint;
	unsigned int cpu;

	WRITE_ONCE(session.cpu_hint, 0);
	if (!hint)
		return NO_CPU;
	cpu = cpu_of(hint - 1);
	/* As long as there are others, those that were booted with stay. */
	return cpu != NO_CPU && cpu >= min(boot_cpus, want) && can_stop(cpu) ? cpu : NO_CPU;
}

static int cpu_shrink(u32 want)
{
	unsigned int cpu = take_hint(want);
	int ret = 0, err;

	if (cpu != NO_CPU) {
		ret = give_up(cpu);
		if (!ret)
			stat_inc(STAT_CPUS_HINTED);
	}
	cpu = nr_cpu_ids;
	while (num_online_cpus() > want && cpu-- > 1) {
		if (!can_stop(cpu))
			continue;
		err = give_up(cpu);
		if (err)
			ret = err;
	}
	if (num_online_cpus() <= want)
		return 0;
	return ret ?: -EBUSY;
}

/**
 * cpu_set() - have this many CPUs
 * @want: at least 1
 *
 * Context: worker. Takes the device and CPU hotplug locks.
 *
 * Return: 0; -EAGAIN or -ENOSPC if the host granted fewer (what it granted is in
 * use); -EBUSY if there is no candidate that is not waiting after a failure;
 * the error of bringing a CPU up or down.
 */
int cpu_set(u32 want)
{
	u32 online = num_online_cpus();

	if (want > online)
		return cpu_grow(want);
	if (want < online)
		return cpu_shrink(max(want, 1u));
	return 0;
}

/**
 * cpu_release_stray() - give up what is granted and offline
 *
 * An administrator took it offline, or an earlier release failed.
 */
void cpu_release_stray(void)
{
	unsigned int cpu;
	u32 word;
	u64 set;

	for (word = 0; word < nr_words; word++) {
		set = 0;
		for_each_possible_cpu(cpu)
			if (slots[cpu].granted && !cpu_online(cpu) &&
			    slots[cpu].apic_id / 64 == word)
				set |= BIT_ULL(slots[cpu].apic_id % 64);
		if (set)
			release_offline(word, set);
	}
}

/* Before a CPU is started. */
static int prepare_cpu(unsigned int cpu)
{
	if (slot_nameable(cpu) && !slots[cpu].granted && READ_ONCE(session.enforced))
		return -EPERM;
	slots[cpu].started_ms = elastic_now_ms();
	slots[cpu].starting = true;
	return 0;
}

/* It has come. */
static int online_cpu(unsigned int cpu)
{
	slots[cpu].starting = false;
	return 0;
}

static int add_states(void)
{
	int ret;

	ret = cpuhp_setup_state_nocalls(CPUHP_BP_PREPARE_DYN, "elastic_guest:prepare",
					prepare_cpu, NULL);
	if (ret < 0)
		return ret;
	state_prepare = ret;
	ret = cpuhp_setup_state_nocalls(CPUHP_AP_ONLINE_DYN, "elastic_guest:online",
					online_cpu, NULL);
	if (ret < 0) {
		cpuhp_remove_state_nocalls(state_prepare);
		return ret;
	}
	state_online = ret;
	return 0;
}

/*
 * Around the start of a CPU the kernel sets and clears the shutdown status in
 * CMOS, for processors whose APIC is a chip of its own. KVM has none of these,
 * and each write goes to the VMM and back, so the worker leaves them out. The
 * kernel's own switch (x86_platform.legacy.warm_reset) is read-only by now.
 */
#define CMOS_SHUTDOWN_STATUS	0x0f

static void write_nothing(unsigned char val, unsigned char addr)
{
}

static int before_cmos_write(struct kprobe *probe, struct pt_regs *regs)
{
	if (!worker_is_current() || (u8)regs->si != CMOS_SHUTDOWN_STATUS)
		return 0;
	/* In its place: same arguments, same return address. */
	instruction_pointer_set(regs, (unsigned long)write_nothing);
	return 1;
}
NOKPROBE_SYMBOL(before_cmos_write);

static struct kprobe cmos_write = {
	.symbol_name = "rtc_cmos_write",
	.pre_handler = before_cmos_write,
};
static bool cmos_probed;

/**
 * cpu_start() - watch CPUs come and go; there is a session
 *
 * Return: 0 or the error of adding a hotplug state.
 */
int cpu_start(void)
{
	int ret = add_states();

	if (ret)
		return ret;
	/* Without it all works, a little slower. */
	ret = register_kprobe(&cmos_write);
	if (ret)
		pr_info("no probe of %s: %d\n", cmos_write.symbol_name, ret);
	cmos_probed = !ret;
	return 0;
}

void cpu_stop(void)
{
	if (cmos_probed)
		unregister_kprobe(&cmos_write);
	cpuhp_remove_state_nocalls(state_online);
	cpuhp_remove_state_nocalls(state_prepare);
}

/**
 * cpu_find() - find the CPUs
 *
 * Return: 0; -ENOMEM; -EOPNOTSUPP if the boot CPU's APIC id has no place in the
 * interface.
 */
int cpu_find(void)
{
	unsigned int cpu;

	slots = kcalloc(nr_cpu_ids, sizeof(*slots), GFP_KERNEL);
	if (!slots)
		return -ENOMEM;
	for_each_possible_cpu(cpu) {
		slots[cpu].apic_id = compat_cpu_apicid(cpu);
		if (slot_nameable(cpu))
			nr_words = max(nr_words, slots[cpu].apic_id / 64 + 1);
	}
	/* maxcpus=0 means one, too. */
	boot_cpus = clamp(setup_max_cpus, 1u, num_online_cpus());
	if (!slot_nameable(0)) {
		kfree(slots);
		return -EOPNOTSUPP;
	}
	return 0;
}

void cpu_forget(void)
{
	kfree(slots);
}
