// SPDX-License-Identifier: GPL-2.0
/*
 * The one thread that acts.
 *
 * It sleeps until a sensor, a command or the end of a REPORT period wakes it,
 * and is the only one to take the hotplug locks. What it owns (the session, the
 * CPUs, the memory blocks) is under one mutex, which it lets go only while it sleeps
 * and while a CPU comes or goes: that needs memory, and while there is none, the task
 * that ran out of it helps itself to what is warm.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/completion.h>
#include <linux/err.h>
#include <linux/jiffies.h>
#include <linux/kthread.h>
#include <linux/list.h>
#include <linux/mutex.h>
#include <linux/refcount.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/wait.h>

#include "elastic_guest.h"

/* How long a task that ran out of memory waits at once. */
#define RESCUE_SLICE_MS	20

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
 * struct worker - the thread and what wakes it
 * @task: the thread
 * @wait: where it sleeps
 * @kicks: bits of enum worker_kick, set by anybody
 * @acting: held by who acts: the worker, or for a moment a task that ran out of memory
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
 * @background: what is being done is not urgent
 *
 * @paused and @background are the thread's own.
 */
struct worker {
	struct task_struct *task;
	wait_queue_head_t wait;
	unsigned long kicks;
	struct mutex acting;	/* see above */
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
	bool background;
};

static struct worker worker = {
	.wait = __WAIT_QUEUE_HEAD_INITIALIZER(worker.wait),
	.acting = __MUTEX_INITIALIZER(worker.acting),
	.lock = __SPIN_LOCK_UNLOCKED(worker.lock),
	.commands = LIST_HEAD_INIT(worker.commands),
	.rescued = __WAIT_QUEUE_HEAD_INITIALIZER(worker.rescued),
};

/* ---- waking ---- */

/* Somebody waits for the worker, on the only CPU perhaps: it goes before everything now. */
static void raise_priority(void)
{
	if (READ_ONCE(worker.background))
		set_user_nice(worker.task, MIN_NICE);
}

static void lower_priority(void)
{
	set_user_nice(current, 0);
	/* Pairs with raise_priority(): the kick is there before that. */
	smp_mb();
	if (worker_urgent())
		set_user_nice(current, MIN_NICE);
}

/**
 * worker_background() - what follows does not go before what the guest is there for
 * @on: begin or end
 *
 * Context: worker.
 */
void worker_background(bool on)
{
	WRITE_ONCE(worker.background, on);
	if (on)
		lower_priority();
	else
		set_user_nice(current, MIN_NICE);
}

/**
 * worker_interrupt() - end the offlining of a block, if there is one, and soon
 *
 * Context: any but NMI and run-queue locks.
 */
void worker_interrupt(void)
{
	/* Pairs with worker_removing(): the kick is there before this looks. */
	smp_mb();
	if (READ_ONCE(worker.removing))
		send_sig(SIGUSR1, worker.task, 1);
	raise_priority();
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
		if (worker.background)
			lower_priority();
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
	else if (why == KICK_CPU)
		raise_priority();
	wake_up(&worker.wait);
}

/**
 * worker_took() - was the worker kicked for this? It does not count any more
 * @why: reason
 *
 * Context: worker, or who has done what it was kicked for.
 */
bool worker_took(enum worker_kick why)
{
	return test_and_clear_bit(why, &worker.kicks);
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
 * worker_needs_mem() - was the worker kicked by somebody who needs memory?
 */
bool worker_needs_mem(void)
{
	return READ_ONCE(worker.kicks) & (BIT(KICK_MEM) | BIT(KICK_URGENT));
}

/**
 * worker_is_current() - is the calling task the worker?
 */
bool worker_is_current(void)
{
	return current == READ_ONCE(worker.task);
}

static bool acts(void)
{
	return worker_view.enabled && !worker.paused && !READ_ONCE(worker.frozen) &&
	       !READ_ONCE(worker.closed);
}

/* ---- who acts ---- */

/**
 * worker_let_go() - what follows is slow, and none of what is the worker's is touched
 *
 * Context: who acts; worker: worker_take_back() follows.
 */
void worker_let_go(void)
{
	mutex_unlock(&worker.acting);
	wake_up_all(&worker.rescued);
}

/**
 * worker_take_back() - it is over
 *
 * Context: worker.
 */
void worker_take_back(void)
{
	mutex_lock(&worker.acting);
}

/* ---- rescues ---- */

/**
 * worker_rescue_begin() - from now on memory is looked for
 *
 * Context: worker.
 */
void worker_rescue_begin(void)
{
	WRITE_ONCE(worker.rescues_begun, worker.rescues_begun + 1);
}

/**
 * worker_rescue_end() - who waits for memory may look whether there is some
 *
 * Context: worker.
 */
void worker_rescue_end(void)
{
	WRITE_ONCE(worker.rescues_done, worker.rescues_begun);
	wake_up_all(&worker.rescued);
}

/*
 * What is warm needs no worker, who may be waiting for memory himself while he starts
 * a CPU. Any task may come here, with any lock: nothing here waits for one.
 *
 * Return: 0 if memory came; -EBUSY if somebody acts; -ENOMEM if nothing is warm.
 */
static int rescue_here(void)
{
	u32 got = 0;

	if (!mutex_trylock(&worker.acting))
		return -EBUSY;
	if (acts() && READ_ONCE(sense_gate.mem_can_grow))
		got = decide_rescue_warm();
	mutex_unlock(&worker.acting);
	return got ? 0 : -ENOMEM;
}

static bool rescue_is_over(u64 begun)
{
	return READ_ONCE(worker.rescues_done) > begun || !READ_ONCE(sense_gate.mem_can_grow);
}

/*
 * Until the worker has been there, or it can be done here; at most @left jiffies.
 *
 * Return: true if it is over.
 */
static bool wait_for_rescue(u64 begun, long left)
{
	int ret = -EBUSY;

	while (left && ret == -EBUSY && !rescue_is_over(begun)) {
		left = wait_event_timeout(worker.rescued, rescue_is_over(begun) ||
					  !mutex_is_locked(&worker.acting), left);
		if (!rescue_is_over(begun))
			ret = rescue_here();
	}
	/* It is done: the worker need not do it again, but fill up what was taken. */
	if (!ret && worker_took(KICK_URGENT))
		worker_kick(KICK_MORE);
	if (ret == -ENOMEM)
		wait_event_timeout(worker.rescued, rescue_is_over(begun), left);
	return !ret || rescue_is_over(begun);
}

/**
 * worker_rescue_start() - a task has run out of memory
 * @rescue: of that, for worker_rescue()
 *
 * Context: any.
 */
void worker_rescue_start(struct rescue *rescue)
{
	rescue->begun = READ_ONCE(worker.rescues_begun);
	rescue->had = atomic64_read(&elastic_stats[STAT_UNITS_PLUGGED]);
	rescue->until = jiffies + msecs_to_jiffies(READ_ONCE(elastic_config.tun.oom_wait_ms));
	rescue->kicked = false;
}

static s64 units_since(const struct rescue *rescue)
{
	return atomic64_read(&elastic_stats[STAT_UNITS_PLUGGED]) - rescue->had;
}

/**
 * worker_rescue() - have memory fetched for a task that ran out of it, and wait a little
 * @rescue: begun by worker_rescue_start()
 *
 * The kernel's own lock of who has run out is held meanwhile. An allocation that finds it
 * taken tries again for ever, and one that is told to give up soon, too: that of the worker,
 * who moves a page to take a block offline. So what takes longer than RESCUE_SLICE_MS takes
 * several calls, and the lock is free between them.
 *
 * Context: process, with any lock; sleeps. The worker, too, while a CPU comes or goes: it
 * does not wait, for itself.
 *
 * Return: how many units came since worker_rescue_start(); -EAGAIN if it is not over, nor is
 * the time of the tunable oom_wait_ms: call again.
 */
s64 worker_rescue(struct rescue *rescue)
{
	long slice = msecs_to_jiffies(RESCUE_SLICE_MS), left;

	if (!rescue->kicked) {
		if (!rescue_here() || worker_is_current())
			return units_since(rescue);
		rescue->kicked = true;
		worker_kick(KICK_URGENT);
	}
	left = max_t(long, rescue->until - jiffies, 0);
	if (!wait_for_rescue(rescue->begun, min(left, slice)) && left > slice)
		return -EAGAIN;
	return units_since(rescue);
}

/**
 * worker_no_rescue() - nobody is to wait for a rescue: there will be none
 *
 * Context: worker.
 */
void worker_no_rescue(void)
{
	WRITE_ONCE(sense_gate.mem_can_grow, false);
	worker_rescue_begin();
	worker_rescue_end();
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
	decide_begin();
	WRITE_ONCE(worker_view.enabled, true);
	return 0;
}

static int disable(void)
{
	if (!worker_view.enabled)
		return 0;
	WRITE_ONCE(worker_view.enabled, false);
	/* Who ran out of memory must not wait for us while we wait for him. */
	worker_no_rescue();
	sense_stop();
	session_bye();
	return 0;
}

/* CPUs and memory that go away while the system sleeps come back afterwards. */
static int pause(bool begin)
{
	worker.paused = begin;
	if (begin) {
		worker_no_rescue();
		return 0;
	}
	decide_begin();
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
	decide_report_soon();
	return command->what == COMMAND_CPUS ? decide_set_cpus(command->arg) :
					       decide_set_mib(command->arg);
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

/* A growth that what is warm is enough for takes no worker; he fills that up again. */
static bool execute_here(enum worker_command what, u64 arg)
{
	bool done;

	if (what != COMMAND_MIB || !mutex_trylock(&worker.acting))
		return false;
	done = acts() && decide_set_mib_warm(arg);
	/* Before targets that are older are followed. */
	if (done)
		decide_report_soon();
	worker_let_go();
	if (done)
		worker_kick(KICK_MORE);
	return done;
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
	struct command *command;
	int ret;

	if (execute_here(what, arg))
		return 0;
	command = kzalloc(sizeof(*command), GFP_KERNEL);
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

static void wait_for_work(void)
{
	long timeout = MAX_SCHEDULE_TIMEOUT;

	if (acts())
		timeout = decide_timeout();
	wait_event_interruptible_timeout(worker.wait, anything_to_do(), timeout);
	/* One that came too late for what it was to end. */
	flush_signals(current);
}

static void act(unsigned long kicks)
{
	/* Before a command that takes its time. */
	if (kicks & BIT(KICK_URGENT) && acts()) {
		decide_rescue();
		kicks &= ~BIT(KICK_URGENT);
	}
	run_commands();
	/* Before anything is decided on the count. */
	if (worker_took(KICK_REBASE))
		kicks |= BIT(KICK_REBASE);
	if (acts())
		decide_step(kicks);
	else if (kicks & BIT(KICK_URGENT))
		worker_no_rescue();
}

static int worker_main(void *unused)
{
	allow_signal(SIGUSR1);
	set_user_nice(current, MIN_NICE);
	while (!kthread_should_stop()) {
		wait_for_work();
		stat_inc(STAT_WAKES);
		worker_take_back();
		act(xchg(&worker.kicks, 0));
		worker_let_go();
	}
	worker_take_back();
	run_commands();
	worker_let_go();
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
	decide_begin();
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
	worker_no_rescue();
}
