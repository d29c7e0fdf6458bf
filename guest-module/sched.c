// SPDX-License-Identifier: GPL-2.0
/*
 * Runnable tasks and CPU time.
 *
 * The probe runs with a run queue's lock held and interrupts off, so it only
 * accounts. It does not know whose run queue changed, and need not: each CPU
 * keeps N = sum of the changes that it made, and M = sum of change times time.
 * Over all CPUs, N is the number of runnable tasks, and t * N - M its integral
 * up to the time t. Both are linear, so no CPU touches another one's line.
 *
 * The absolute number is not visible from a module (struct rq is private). It is
 * counted task by task while all CPUs are stopped (sched_rebase()), when the
 * probe is registered and after a CPU came or went, and corrected by the fact
 * that a guest that idles has next to nothing runnable (sched_correct()).
 *
 * Taking CPUs up and down, and stopping them, makes a task per CPU runnable for
 * a while. That is the worker's own doing and no reason for more CPUs, so the
 * window is closed to it (sched_quiet()).
 */
#include <linux/kernel_stat.h>
#include <linux/ktime.h>
#include <linux/percpu.h>
#include <linux/sched/signal.h>
#include <linux/sched/task.h>
#include <linux/seqlock.h>
#include <linux/spinlock.h>
#include <linux/stop_machine.h>
#include <linux/tick.h>

#include "compat/sched.h"
#include "elastic_guest.h"

/**
 * struct account - what one CPU did to all run queues
 * @seq: written with interrupts off on the CPU itself, or with all CPUs stopped
 * @nr: sum of the changes
 * @moment: sum of change times time, modulo 2^64
 */
struct account {
	seqcount_t seq;
	s64 nr;
	u64 moment;
};

static DEFINE_PER_CPU_SHARED_ALIGNED(struct account, accounts);

/**
 * struct sched_window - the window over which the sensor averages
 * @lock: taken with trylock by whoever looks next; protects @start_ns,
 *	@start, @quiet, @settled_ns
 * @start_ns: when it began
 * @start: integral then
 * @quiet: what is runnable now does not count
 * @settled_ns: nor what was runnable before this time
 * @milli: average over the last whole window, times 1000
 */
struct sched_window {
	spinlock_t lock;	/* see above */
	u64 start_ns;
	u64 start;
	bool quiet;
	u64 settled_ns;
	u64 milli;
};

static struct sched_window sched_window = {
	.lock = __SPIN_LOCK_UNLOCKED(sched_window.lock),
};

static void account_add(struct account *account, s64 change, u64 now_ns)
{
	raw_write_seqcount_begin(&account->seq);
	account->nr += change;
	account->moment += change * now_ns;
	raw_write_seqcount_end(&account->seq);
}

static void notrace probe_nr_running(void *data, struct rq *rq, int change)
{
	account_add(this_cpu_ptr(&accounts), change, ktime_get_mono_fast_ns());
}

static void account_read(const struct account *account, s64 *nr, u64 *moment)
{
	unsigned int seq;

	do {
		seq = read_seqcount_begin(&account->seq);
		*nr = account->nr;
		*moment = account->moment;
	} while (read_seqcount_retry(&account->seq, seq));
}

/**
 * sched_integral() - runnable tasks, integrated over time
 * @now_ns: ktime_get_mono_fast_ns()
 * @nr: runnable tasks now; may be NULL
 *
 * Return: tasks times ns since some point, modulo 2^64.
 */
u64 sched_integral(u64 now_ns, s64 *nr)
{
	s64 n, total = 0;
	u64 moment, moments = 0;
	unsigned int cpu;

	for_each_possible_cpu(cpu) {
		account_read(per_cpu_ptr(&accounts, cpu), &n, &moment);
		total += n;
		moments += moment;
	}
	if (nr)
		*nr = total;
	return total * now_ns - moments;
}

/**
 * sched_runnable() - runnable tasks at this moment
 */
s64 sched_runnable(void)
{
	s64 nr;

	sched_integral(ktime_get_mono_fast_ns(), &nr);
	return nr;
}

static s64 count_queued(void)
{
	struct task_struct *group, *task;
	s64 n = 0;

	rcu_read_lock();
	for_each_process_thread(group, task)
		n += compat_task_is_queued(task);
	rcu_read_unlock();
	return n;
}

/*
 * All other CPUs stand still with interrupts off: no run queue changes, and the
 * tasks that hold the CPUs still are queued and counted like any other.
 */
static int rebase_stopped(void *unused)
{
	u64 now = ktime_get_mono_fast_ns();
	u64 integral = sched_integral(now, NULL);
	struct account *account;
	unsigned int cpu;
	s64 n = count_queued();

	for_each_possible_cpu(cpu) {
		account = per_cpu_ptr(&accounts, cpu);
		account->nr = 0;
		account->moment = 0;
	}
	/* The integral goes on where it was. */
	account = this_cpu_ptr(&accounts);
	account->nr = n;
	account->moment = n * now - integral;
	return 0;
}

/**
 * sched_rebase() - count the runnable tasks anew
 *
 * Context: process; takes cpus_read_lock() and stops all CPUs for as long as it
 * takes to look at every task once.
 */
void sched_rebase(void)
{
	stop_machine(rebase_stopped, NULL, NULL);
}

/**
 * sched_correct() - subtract what cannot be
 * @by: runnable tasks that are none
 */
void sched_correct(s64 by)
{
	unsigned long flags;

	local_irq_save(flags);
	account_add(this_cpu_ptr(&accounts), -by, ktime_get_mono_fast_ns());
	local_irq_restore(flags);
}

/**
 * sched_window_milli() - runnable tasks, average over the last window
 *
 * Return: tasks times 1000.
 */
u64 sched_window_milli(void)
{
	return READ_ONCE(sched_window.milli);
}

/* Average since the window began; false if it is too short or long past. */
static bool window_close(u64 now_ns, u64 *milli)
{
	s64 window_ns = elastic_config.tun.cpu_window_ms * (s64)NSEC_PER_MSEC;
	s64 length = now_ns - sched_window.start_ns;
	s64 sum;
	u64 now;

	if (sched_window.quiet || length < window_ns * 3 / 4)
		return false;
	now = sched_integral(now_ns, NULL);
	sum = now - sched_window.start;
	sched_window.start = now;
	sched_window.start_ns = now_ns;
	if (length > 4 * window_ns || now_ns < sched_window.settled_ns)
		return false;
	*milli = sum > 0 ? sum / (length / 1000) : 0;
	return true;
}

/**
 * sched_quiet() - keep what the worker does out of the window
 * @quiet: begin or end; a new window begins at the end
 * @settle_ms: and is the first one that counts so much later
 *
 * Context: worker.
 */
void sched_quiet(bool quiet, u32 settle_ms)
{
	spin_lock_bh(&sched_window.lock);
	sched_window.quiet = quiet;
	sched_window.start_ns = ktime_get_mono_fast_ns();
	sched_window.start = sched_integral(sched_window.start_ns, NULL);
	sched_window.settled_ns = sched_window.start_ns + settle_ms * (u64)NSEC_PER_MSEC;
	spin_unlock_bh(&sched_window.lock);
}

/**
 * sched_sense() - look at the window; wake the worker if CPUs are missing
 * @now_ns: ktime_get_mono_fast_ns()
 *
 * Context: softirq, on a CPU that is not idle.
 */
void sched_sense(u64 now_ns)
{
	bool closed;
	u64 milli;
	u32 online;

	if (!spin_trylock(&sched_window.lock))
		return;
	closed = window_close(now_ns, &milli);
	spin_unlock(&sched_window.lock);
	if (!closed)
		return;
	WRITE_ONCE(sched_window.milli, milli);
	if (READ_ONCE(elastic_config.manual))
		return;
	online = num_online_cpus();
	if (policy_cpus_up(&elastic_config.tun, milli, READ_ONCE(sense_gate.steal_permille),
			   online, READ_ONCE(sense_gate.cpu_limit)) > online &&
	    elastic_now_ms() >= READ_ONCE(sense_gate.cpu_hold_ms))
		worker_kick(KICK_CPU);
}

/**
 * sched_idle_us() - time that the online CPUs were idle since boot
 *
 * Time in the idle task, to the microsecond; unlike busy time, which ticks
 * sample, and which time stolen by the host is taken from.
 *
 * Return: microseconds; 0 if the kernel does not keep that account.
 */
u64 sched_idle_us(void)
{
	unsigned int cpu;
	u64 idle, sum = 0;

	for_each_online_cpu(cpu) {
		idle = get_cpu_idle_time_us(cpu, NULL);
		if (idle == (u64)-1)
			return 0;
		sum += idle + get_cpu_iowait_time_us(cpu, NULL);
	}
	return sum;
}

/**
 * sched_cpu_time() - what all CPUs did since boot
 * @busy_ns: time that they ran something
 * @steal_ns: time that they wanted to run and did not
 */
void sched_cpu_time(u64 *busy_ns, u64 *steal_ns)
{
	unsigned int cpu;

	*busy_ns = 0;
	*steal_ns = 0;
	for_each_possible_cpu(cpu) {
		const u64 *stat = kcpustat_cpu(cpu).cpustat;

		*busy_ns += stat[CPUTIME_USER] + stat[CPUTIME_NICE] + stat[CPUTIME_SYSTEM] +
			    stat[CPUTIME_SOFTIRQ] + stat[CPUTIME_IRQ];
		*steal_ns += stat[CPUTIME_STEAL];
	}
}

/**
 * sched_start() - begin to account
 *
 * Return: 0 or the error of registering the probe.
 */
int sched_start(void)
{
	unsigned int cpu;
	int ret;

	compat_check_nr_running_probe(probe_nr_running);
	for_each_possible_cpu(cpu)
		seqcount_init(&per_cpu_ptr(&accounts, cpu)->seq);
	ret = register_trace_sched_update_nr_running_tp(probe_nr_running, NULL);
	if (ret)
		return ret;
	sched_rebase();
	return 0;
}

/**
 * sched_stop() - stop accounting; sense_stop() waits for running probes
 */
void sched_stop(void)
{
	unregister_trace_sched_update_nr_running_tp(probe_nr_running, NULL);
}
