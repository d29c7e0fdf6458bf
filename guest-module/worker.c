// SPDX-License-Identifier: GPL-2.0
/*
 * The one thread that acts.
 *
 * It sleeps until a sensor, a command or the end of a REPORT period wakes it,
 * and is the only one to make hypercalls and to take the hotplug locks. So what
 * it owns (the session, the CPUs, the memory blocks) needs no lock of its own.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/completion.h>
#include <linux/err.h>
#include <linux/jiffies.h>
#include <linux/kthread.h>
#include <linux/list.h>
#include <linux/mm.h>
#include <linux/refcount.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/vmstat.h>
#include <linux/wait.h>

#include "elastic_guest.h"
#include "trace.h"

/* A guest idles when all its CPUs together did something for at most this. */
#define IDLE_BUSY_PERMILLE	20

/**
 * struct command - what somebody waits for
 * @node: in worker.commands
 * @refs: of the one who waits and of the worker
 * @what: to do
 * @arg: its argument
 * @result: valid when @done
 * @done: completed by the worker
 */
struct command {
	struct list_head node;
	refcount_t refs;
	enum worker_command what;
	u64 arg;
	int result;
	struct completion done;
};

/**
 * struct period - the REPORT period
 * @start_ns: when it began
 * @integral: of runnable tasks then
 * @busy_ns: CPU time spent up to then
 * @steal_ns: CPU time stolen up to then
 * @idle_us: idle time of the online CPUs up to then
 * @online: CPUs online then
 * @reclaims: direct reclaims up to then
 * @ooms: times that memory had run out up to then
 * @runnable_milli: runnable tasks, average over the last period, times 1000
 * @busy_milli: busy CPUs, average over the last period, times 1000
 * @steal_permille: stolen share of the wanted time in the last period
 * @seen_reclaims: direct reclaims up to the last decision
 */
struct period {
	u64 start_ns;
	u64 integral;
	u64 busy_ns;
	u64 steal_ns;
	u64 idle_us;
	u32 online;
	u64 reclaims;
	u64 ooms;
	u64 runnable_milli;
	u64 busy_milli;
	u32 steal_permille;
	u64 seen_reclaims;
};

/**
 * struct worker - the thread and what wakes it
 * @task: the thread
 * @wait: where it sleeps
 * @kicks: bits of enum worker_kick, set by anybody
 * @lock: protects @commands and @closed
 * @commands: to do, oldest first
 * @closed: no further command is taken
 * @frozen: do nothing any more (reboot)
 * @pausing: a pause is asked for: end what is slow
 * @removing: a block is being taken offline; a signal ends it
 * @rescued: where tasks wait that ran out of memory
 * @rescues_begun: how often the worker began to fetch memory for them
 * @rescues_done: how often it has ended that
 * @paused: do nothing for now (the system sleeps)
 * @report_at: when the next REPORT is due, in jiffies
 * @cpu_limit: most CPUs that can be had
 * @mem_limit: most blocks that can be had
 * @cpu_state: memory of the policy
 * @mem_state: memory of the policy
 * @period: the REPORT period
 *
 * From @paused on: the thread's own.
 */
struct worker {
	struct task_struct *task;
	wait_queue_head_t wait;
	unsigned long kicks;
	spinlock_t lock;	/* see above */
	struct list_head commands;
	bool closed;
	bool frozen;
	bool pausing;
	bool removing;
	wait_queue_head_t rescued;
	u64 rescues_begun;
	u64 rescues_done;
	bool paused;
	unsigned long report_at;
	u32 cpu_limit;
	u32 mem_limit;
	struct policy_cpu_state cpu_state;
	struct policy_mem_state mem_state;
	struct period period;
};

static struct worker worker = {
	.wait = __WAIT_QUEUE_HEAD_INITIALIZER(worker.wait),
	.lock = __SPIN_LOCK_UNLOCKED(worker.lock),
	.commands = LIST_HEAD_INIT(worker.commands),
	.rescued = __WAIT_QUEUE_HEAD_INITIALIZER(worker.rescued),
};

struct worker_view worker_view;

/* ---- waking ---- */

/**
 * worker_interrupt() - end the offlining of a block, if there is one
 *
 * Context: any but NMI and run-queue locks.
 */
void worker_interrupt(void)
{
	/* Pairs with worker_removing(): the kick is there before this looks. */
	smp_mb();
	if (READ_ONCE(worker.removing))
		send_sig(SIGUSR1, worker.task, 1);
}

/**
 * worker_removing() - say whether worker_interrupt() is to have an effect
 * @removing: a block is being taken offline
 *
 * Context: worker.
 */
void worker_removing(bool removing)
{
	WRITE_ONCE(worker.removing, removing);
	if (!removing) {
		flush_signals(current);
		return;
	}
	/* Pairs with worker_interrupt(): one of both sees the other. */
	smp_mb();
	if (worker_urgent())
		send_sig(SIGUSR1, current, 1);
}

/**
 * worker_kick() - wake the worker
 * @why: reason
 *
 * Context: any but NMI and run-queue locks.
 */
void worker_kick(enum worker_kick why)
{
	if (test_and_set_bit(why, &worker.kicks))
		return;
	if (why == KICK_URGENT || why == KICK_MEM)
		worker_interrupt();
	wake_up(&worker.wait);
}

/**
 * worker_urgent() - should the worker end what is slow?
 */
bool worker_urgent(void)
{
	unsigned long urgent = BIT(KICK_CPU) | BIT(KICK_MEM) | BIT(KICK_URGENT);

	return READ_ONCE(worker.kicks) & urgent || READ_ONCE(worker.closed) ||
	       READ_ONCE(worker.frozen) || READ_ONCE(worker.pausing);
}

/**
 * worker_is_current() - is the calling task the worker?
 */
bool worker_is_current(void)
{
	return current == READ_ONCE(worker.task);
}

/**
 * worker_rescue() - have memory fetched for a task that ran out of it
 * @blocks: how many memory blocks came
 *
 * Context: process; sleeps up to the tunable oom_wait_ms.
 *
 * Return: 0 or -ETIMEDOUT.
 */
int worker_rescue(u64 *blocks)
{
	unsigned long bound = msecs_to_jiffies(READ_ONCE(elastic_config.tun.oom_wait_ms));
	/* One that has begun may have looked before this task ran out. */
	u64 begun = READ_ONCE(worker.rescues_begun);
	u64 had = atomic64_read(&elastic_stats[STAT_BLOCKS_ADDED]);

	worker_kick(KICK_URGENT);
	if (!wait_event_timeout(worker.rescued, READ_ONCE(worker.rescues_done) > begun ||
				!READ_ONCE(sense_gate.mem_can_grow), bound))
		return -ETIMEDOUT;
	*blocks = atomic64_read(&elastic_stats[STAT_BLOCKS_ADDED]) - had;
	return 0;
}

/* ---- the period and its report ---- */

static void period_begin(struct period *period)
{
	period->start_ns = ktime_get_mono_fast_ns();
	period->integral = sched_integral(period->start_ns, NULL);
	sched_cpu_time(&period->busy_ns, &period->steal_ns);
	period->idle_us = sched_idle_us();
	period->online = num_online_cpus();
	period->reclaims = atomic64_read(&elastic_stats[STAT_DIRECT_RECLAIMS]);
	period->ooms = atomic64_read(&elastic_stats[STAT_OOM_CALLS]);
}

/* Was every CPU idle all the time, or nearly? */
static bool was_idle(const struct period *from, const struct period *to)
{
	u64 us = (to->start_ns - from->start_ns) / NSEC_PER_USEC;
	u64 all = to->online * us;

	return to->online == from->online && to->idle_us > from->idle_us &&
	       to->idle_us - from->idle_us + us * IDLE_BUSY_PERMILLE / 1000 >= all;
}

/*
 * A guest that idled had hardly anything runnable. Where the count says that it
 * had, tasks were counted that a bandwidth limit had taken off the run queues,
 * or that ended in just the wrong moment.
 */
static void correct_count(s64 milli)
{
	s64 off = (milli + (milli < 0 ? -500 : 500)) / 1000;

	if (off)
		sched_correct(off);
}

/* Close the period into its averages and @report, and begin the next one. */
static void period_close(struct period *period, struct elastic_report *report)
{
	struct period last = *period;
	u64 us;
	s64 milli;

	period_begin(period);
	report->period_ns = period->start_ns - last.start_ns;
	us = max(report->period_ns / NSEC_PER_USEC, 1ULL);
	milli = (s64)(period->integral - last.integral) / (s64)us;
	report->busy_ns = period->busy_ns - last.busy_ns;
	report->steal_ns = period->steal_ns - last.steal_ns;
	report->reclaims = period->reclaims - last.reclaims;
	report->ooms = period->ooms - last.ooms;
	period->busy_milli = report->busy_ns / us;
	period->steal_permille = policy_steal_permille(report->busy_ns, report->steal_ns,
						       report->period_ns);
	if (was_idle(&last, period))
		correct_count(milli);
	period->runnable_milli = max_t(s64, milli, 0);
	report->runnable_milli = period->runnable_milli;
}

static void fill_report(struct elastic_report *report)
{
	struct pressure_sample memory;

	pressure_read(&memory);
	report->cpus_online = num_online_cpus();
	report->cpus_wanted = worker_view.cpus_wanted;
	report->units_online = mem_units();
	report->units_wanted = worker_view.units_wanted;
	report->mem_total = memory.total;
	report->mem_available = memory.available;
	report->mem_free = (u64)global_zone_page_state(NR_FREE_PAGES) << PAGE_SHIFT;
	report->mem_cached = (u64)global_node_page_state(NR_FILE_PAGES) << PAGE_SHIFT;
}

/* The host's targets as CPUs and blocks. */
static void update_limits(void)
{
	u64 units = mem_block_units();
	s64 room = session.units_target - session.units_granted;
	s64 blocks = mem_view.blocks;

	worker.cpu_limit = cpu_present_limit();
	worker.mem_limit = mem_view.usable_blocks;
	if (!session.known)
		return;
	worker.cpu_limit = clamp(session.cpus_target, 1u, worker.cpu_limit);
	if (room >= 0)
		blocks += room / (s64)units;
	else
		blocks -= DIV_ROUND_UP(-room, (s64)units);
	worker.mem_limit = clamp_t(s64, blocks, 0, worker.mem_limit);
}

static void end_period(void)
{
	struct elastic_report report = {};

	period_close(&worker.period, &report);
	mem_refresh();
	/* Before the report, whose answer says what is granted. */
	mem_release_stray();
	fill_report(&report);
	session_report(&report);
	cpu_release_stray();
	update_limits();
	worker.report_at = jiffies +
		msecs_to_jiffies(READ_ONCE(elastic_config.tun.report_period_ms));
}

/* ---- deciding and acting ---- */

static void hold(u64 *until)
{
	WRITE_ONCE(*until, elastic_now_ms() + READ_ONCE(elastic_config.tun.refused_retry_ms));
}

/* What hotplug itself makes runnable asks for no CPU. */
static int set_cpus_quietly(u32 want)
{
	u32 settle_ms = 0;
	int ret;

	if (want < num_online_cpus())
		settle_ms = READ_ONCE(elastic_config.tun.cpu_settle_ms);
	sched_quiet(true, 0);
	ret = cpu_set(want);
	if (test_and_clear_bit(KICK_REBASE, &worker.kicks))
		sched_rebase();
	sched_quiet(false, settle_ms);
	clear_bit(KICK_CPU, &worker.kicks);
	return ret;
}

static void apply_cpus(u32 want)
{
	bool grow = want > num_online_cpus();
	int ret = set_cpus_quietly(want);

	if (ret && grow)
		hold(&sense_gate.cpu_hold_ms);
}

static void apply_blocks(u32 want, bool urgent)
{
	bool grow = want > mem_view.blocks;
	int ret = mem_set(want, urgent);

	if (ret && grow)
		hold(&sense_gate.mem_hold_ms);
}

static u32 floor_cpus(void)
{
	return READ_ONCE(elastic_config.tun.floor_cpus) ?: cpu_boot_floor();
}

static u32 floor_blocks(void)
{
	u64 floor = (u64)READ_ONCE(elastic_config.tun.floor_mib) << 20;
	u64 boot = mem_view.boot_units * ELASTIC_UNIT_SIZE;

	return floor > boot ? DIV_ROUND_UP(floor - boot, mem_view.block_bytes) : 0;
}

static void decide_cpus(bool period, bool kicked)
{
	struct policy_cpu_sample sample = {
		.now_ms = elastic_now_ms(),
		.window_milli = kicked ? sched_window_milli() : 0,
		.runnable_milli = worker.period.runnable_milli,
		.busy_milli = worker.period.busy_milli,
		.steal_permille = worker.period.steal_permille,
		.online = num_online_cpus(),
		.floor = floor_cpus(),
		.limit = worker.cpu_limit,
		.period = period,
	};
	u32 want = policy_cpus(&elastic_config.tun, &worker.cpu_state, &sample);

	WRITE_ONCE(worker_view.cpus_wanted, want);
	if (want == sample.online)
		return;
	if (want > sample.online && sample.now_ms < sense_gate.cpu_hold_ms)
		return;
	trace_elastic_cpu_decision(sample.window_milli, sample.runnable_milli, sample.busy_milli,
				   sample.steal_permille, sample.online, sample.limit, want);
	apply_cpus(want);
}

static void fill_mem_sample(struct policy_mem_sample *sample)
{
	struct pressure_sample memory;
	u64 reclaims = atomic64_read(&elastic_stats[STAT_DIRECT_RECLAIMS]);

	pressure_read(&memory);
	sample->now_ms = elastic_now_ms();
	sample->total = memory.total;
	sample->available = memory.available;
	sample->rate = memory.rate;
	sample->block = mem_view.block_bytes;
	sample->blocks = mem_view.blocks;
	sample->floor = floor_blocks();
	sample->limit = worker.mem_limit;
	sample->reclaims = reclaims - worker.period.seen_reclaims;
	worker.period.seen_reclaims = reclaims;
}

static void decide_mem(bool period, bool urgent)
{
	struct policy_mem_sample sample = { .period = period, .urgent = urgent };
	u32 want;

	fill_mem_sample(&sample);
	want = policy_mem(&elastic_config.tun, &worker.mem_state, &sample);
	WRITE_ONCE(worker_view.units_wanted, mem_view.boot_units + want * mem_block_units());
	if (want == sample.blocks)
		return;
	if (want > sample.blocks && sample.now_ms < sense_gate.mem_hold_ms && !urgent)
		return;
	trace_elastic_mem_decision(sample.available, sample.rate, worker.mem_state.keep,
				   sample.blocks, sample.limit, want, urgent);
	apply_blocks(want, urgent);
}

/* Requests come through sysfs, but the host's targets hold here, too. */
static void follow_targets(void)
{
	WRITE_ONCE(worker_view.cpus_wanted, num_online_cpus());
	WRITE_ONCE(worker_view.units_wanted, mem_units());
	if (num_online_cpus() > worker.cpu_limit)
		apply_cpus(worker.cpu_limit);
	if (mem_view.blocks > worker.mem_limit)
		apply_blocks(worker.mem_limit, false);
}

static void open_gate(void)
{
	WRITE_ONCE(sense_gate.cpu_limit, worker.cpu_limit);
	WRITE_ONCE(sense_gate.steal_permille, worker.period.steal_permille);
	WRITE_ONCE(sense_gate.mem_can_grow, mem_view.blocks < worker.mem_limit);
}

static void rescue_begin(void)
{
	WRITE_ONCE(worker.rescues_begun, worker.rescues_begun + 1);
}

static void rescue_end(void)
{
	WRITE_ONCE(worker.rescues_done, worker.rescues_begun);
	wake_up_all(&worker.rescued);
}

/* Nobody is to wait for a rescue: there will be none. */
static void no_rescue(void)
{
	WRITE_ONCE(sense_gate.mem_can_grow, false);
	rescue_begin();
	rescue_end();
}

static void step(unsigned long kicks)
{
	bool urgent = kicks & BIT(KICK_URGENT);
	bool period = time_after_eq(jiffies, worker.report_at);

	if (urgent) {
		rescue_begin();
		decide_mem(false, true);
		rescue_end();
	}
	if (kicks & BIT(KICK_REBASE)) {
		sched_quiet(true, 0);
		sched_rebase();
		sched_quiet(false, 0);
	}
	if (period)
		end_period();
	if (READ_ONCE(elastic_config.manual)) {
		follow_targets();
	} else {
		decide_cpus(period, kicks & BIT(KICK_CPU));
		decide_mem(period, false);
	}
	open_gate();
}

/* ---- commands ---- */

static void command_put(struct command *command)
{
	if (refcount_dec_and_test(&command->refs))
		kfree(command);
}

static int enable(void)
{
	int ret;

	if (worker_view.enabled)
		return 0;
	ret = session_hello();
	if (ret)
		return ret;
	ret = sense_start();
	if (ret) {
		session_bye();
		return ret;
	}
	period_begin(&worker.period);
	worker.report_at = jiffies;
	update_limits();
	WRITE_ONCE(worker_view.enabled, true);
	return 0;
}

static int disable(void)
{
	if (!worker_view.enabled)
		return 0;
	WRITE_ONCE(worker_view.enabled, false);
	/* Who ran out of memory must not wait for us while we wait for him. */
	no_rescue();
	sense_stop();
	session_bye();
	return 0;
}

static int set_mib(u64 mib)
{
	u64 bytes = mib << 20;
	u64 boot = mem_view.boot_units * ELASTIC_UNIT_SIZE;

	return mem_set(DIV_ROUND_UP(bytes - boot, mem_view.block_bytes), false);
}

/* CPUs and memory that go away while the system sleeps come back afterwards. */
static int pause(bool begin)
{
	worker.paused = begin;
	if (begin) {
		no_rescue();
		return 0;
	}
	period_begin(&worker.period);
	worker.report_at = jiffies;
	/* CPUs came and went meanwhile, and what they kicked for was dropped. */
	worker_kick(KICK_REBASE);
	return 0;
}

static int run_command(const struct command *command)
{
	if (command->what == COMMAND_PAUSE)
		return pause(command->arg);
	if (worker.paused)
		return -EBUSY;
	if (command->what == COMMAND_ENABLE)
		return command->arg ? enable() : disable();
	if (!worker_view.enabled)
		return -ENOTCONN;
	/* What it grants goes before targets that are older: hear them before they are followed. */
	worker.report_at = jiffies;
	return command->what == COMMAND_CPUS ? set_cpus_quietly(command->arg) :
					       set_mib(command->arg);
}

static struct command *next_command(void)
{
	struct command *command;

	spin_lock(&worker.lock);
	command = list_first_entry_or_null(&worker.commands, struct command, node);
	if (command)
		list_del(&command->node);
	spin_unlock(&worker.lock);
	return command;
}

static void run_commands(void)
{
	struct command *command;
	bool closed;

	while ((command = next_command())) {
		closed = READ_ONCE(worker.closed) || READ_ONCE(worker.frozen);
		command->result = closed ? -ESHUTDOWN : run_command(command);
		complete(&command->done);
		command_put(command);
	}
}

static int submit(struct command *command)
{
	int ret = 0;

	spin_lock(&worker.lock);
	if (worker.closed || worker.frozen)
		ret = -ESHUTDOWN;
	else
		list_add_tail(&command->node, &worker.commands);
	spin_unlock(&worker.lock);
	return ret;
}

/**
 * worker_execute() - have the worker do something, and wait for the result
 * @what: to do
 * @arg: its argument, in range
 *
 * Context: process, without any hotplug lock.
 *
 * Return: what came of it; -ERESTARTSYS if a signal ended the wait (it is done
 * all the same); -ENOTCONN without a session; -ESHUTDOWN at the end; -ENOMEM.
 */
int worker_execute(enum worker_command what, u64 arg)
{
	struct command *command = kzalloc(sizeof(*command), GFP_KERNEL);
	int ret;

	if (!command)
		return -ENOMEM;
	refcount_set(&command->refs, 2);
	command->what = what;
	command->arg = arg;
	init_completion(&command->done);
	ret = submit(command);
	if (ret) {
		kfree(command);
		return ret;
	}
	worker_kick(KICK_COMMAND);
	ret = wait_for_completion_interruptible(&command->done);
	if (!ret)
		ret = command->result;
	command_put(command);
	return ret;
}

/* ---- the thread ---- */

static bool anything_to_do(void)
{
	return kthread_should_stop() || READ_ONCE(worker.kicks);
}

static bool acts(void)
{
	return worker_view.enabled && !worker.paused && !READ_ONCE(worker.frozen) &&
	       !READ_ONCE(worker.closed);
}

static void wait_for_work(void)
{
	long timeout = MAX_SCHEDULE_TIMEOUT;

	if (acts())
		timeout = max_t(long, worker.report_at - jiffies, 0);
	wait_event_interruptible_timeout(worker.wait, anything_to_do(), timeout);
	/* One that came too late for what it was to end. */
	flush_signals(current);
}

static int worker_main(void *unused)
{
	unsigned long kicks;

	allow_signal(SIGUSR1);
	set_user_nice(current, MIN_NICE);
	while (!kthread_should_stop()) {
		wait_for_work();
		stat_inc(STAT_WAKES);
		kicks = xchg(&worker.kicks, 0);
		run_commands();
		/* Before anything is decided on the count. */
		if (test_and_clear_bit(KICK_REBASE, &worker.kicks))
			kicks |= BIT(KICK_REBASE);
		if (acts())
			step(kicks);
		else if (kicks & BIT(KICK_URGENT))
			no_rescue();
	}
	run_commands();
	return 0;
}

/**
 * worker_start() - begin to act; there is a session, and the sensors run
 *
 * Return: 0 or the error of creating the thread.
 */
int worker_start(void)
{
	struct task_struct *task = kthread_create(worker_main, NULL, "elastic_guest");

	if (IS_ERR(task))
		return PTR_ERR(task);
	period_begin(&worker.period);
	worker.report_at = jiffies;
	update_limits();
	WRITE_ONCE(worker_view.enabled, true);
	WRITE_ONCE(worker.task, task);
	wake_up_process(task);
	return 0;
}

/**
 * worker_close() - take no further command, and end what is slow
 */
void worker_close(void)
{
	spin_lock(&worker.lock);
	WRITE_ONCE(worker.closed, true);
	spin_unlock(&worker.lock);
	worker_interrupt();
	worker_kick(KICK_COMMAND);
}

/**
 * worker_freeze() - do nothing any more; what is being done is finished
 */
void worker_freeze(void)
{
	spin_lock(&worker.lock);
	WRITE_ONCE(worker.frozen, true);
	spin_unlock(&worker.lock);
	worker_interrupt();
	worker_kick(KICK_COMMAND);
}

/**
 * worker_pause() - do nothing until further notice; what is being done is ended
 * @pause: begin or end of the pause
 *
 * Context: process, without any hotplug lock.
 *
 * Return: 0 or the error of worker_execute(), which may have been too late: say
 * that the pause is over.
 */
int worker_pause(bool pause)
{
	int ret;

	WRITE_ONCE(worker.pausing, pause);
	if (pause)
		worker_interrupt();
	ret = worker_execute(COMMAND_PAUSE, pause);
	WRITE_ONCE(worker.pausing, false);
	return ret;
}

/**
 * worker_stop() - end the thread; it is not kicked any more
 */
void worker_stop(void)
{
	kthread_stop(worker.task);
	no_rescue();
}
