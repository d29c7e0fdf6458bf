// SPDX-License-Identifier: GPL-2.0
/*
 * What the worker does in a step: report, decide, apply.
 *
 * All of it runs in the worker, decide_begin() in main.c, too, before there is one, and
 * decide_rescue_warm() in any task that ran out of memory: under the worker's mutex.
 */
#include <linux/cpumask.h>
#include <linux/jiffies.h>
#include <linux/mm.h>
#include <linux/vmstat.h>

#include "elastic_guest.h"
#include "trace.h"

/* A guest idles when all its CPUs together did something for at most this. */
#define IDLE_BUSY_PERMILLE	20

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
};

/**
 * struct decide - what is remembered from step to step
 * @report_at: when the next REPORT is due, in jiffies
 * @cpu_limit: most CPUs that can be had
 * @mem_limit: most units of the window that can be had
 * @begun: a session has just begun
 * @seen_reclaims: direct reclaims up to the last decision
 * @cpu_state: memory of the policy
 * @mem_state: memory of the policy
 * @period: the REPORT period
 */
static struct decide {
	unsigned long report_at;
	u32 cpu_limit;
	u32 mem_limit;
	bool begun;
	u64 seen_reclaims;
	struct policy_cpu_state cpu_state;
	struct policy_mem_state mem_state;
	struct period period;
} decide;

struct worker_view worker_view;

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
	report->mem_total = memory.all.total;
	report->mem_available = memory.all.available;
	report->mem_free = (u64)global_zone_page_state(NR_FREE_PAGES) << PAGE_SHIFT;
	report->mem_cached = (u64)global_node_page_state(NR_FILE_PAGES) << PAGE_SHIFT;
}

/* The host's targets as CPUs and units of the window. */
static void update_limits(void)
{
	s64 units = mem_view.used;

	decide.cpu_limit = cpu_present_limit();
	decide.mem_limit = mem_usable_units();
	if (!session.known)
		return;
	decide.cpu_limit = clamp(session.cpus_target, 1u, decide.cpu_limit);
	units += session.units_target - session.units_granted;
	decide.mem_limit = clamp_t(s64, units, 0, decide.mem_limit);
}

static void end_period(void)
{
	struct elastic_report report = {};

	period_close(&decide.period, &report);
	/* Before the report, whose answer says what is granted. */
	mem_settle();
	fill_report(&report);
	session_report(&report);
	cpu_release_stray();
	update_limits();
	decide.report_at = jiffies +
		msecs_to_jiffies(READ_ONCE(elastic_config.tun.report_period_ms));
}

/* ---- deciding and acting ---- */

static void hold(u64 *until)
{
	WRITE_ONCE(*until, elastic_now_ms() + READ_ONCE(elastic_config.tun.refused_retry_ms));
}

/**
 * decide_set_cpus() - have this many CPUs, without noticing it as load
 * @want: CPUs
 *
 * What hotplug itself makes runnable asks for no CPU.
 *
 * Context: worker.
 *
 * Return: as cpu_set().
 */
int decide_set_cpus(u32 want)
{
	u32 settle_ms = 0;
	int ret;

	if (want < num_online_cpus())
		settle_ms = READ_ONCE(elastic_config.tun.cpu_settle_ms);
	sched_quiet(true, 0);
	ret = cpu_set(want);
	if (worker_took(KICK_REBASE))
		sched_rebase();
	sched_quiet(false, settle_ms);
	worker_took(KICK_CPU);
	/* What the host has granted since the last REPORT is within its target. */
	decide.cpu_limit = max(decide.cpu_limit, min(want, num_online_cpus()));
	return ret;
}

static void apply_cpus(u32 want)
{
	bool grow = want > num_online_cpus();
	int ret = decide_set_cpus(want);

	if (ret && grow)
		hold(&sense_gate.cpu_hold_ms);
}

static void apply_mem(const struct policy_mem_want *want, enum mem_how how)
{
	bool grow = want->units > mem_view.used;
	int ret = mem_set(want, how);

	if (ret && grow)
		hold(&sense_gate.mem_hold_ms);
}

static u32 floor_cpus(void)
{
	return READ_ONCE(elastic_config.tun.floor_cpus) ?: cpu_boot_floor();
}

static u32 floor_units(void)
{
	u64 floor = (u64)READ_ONCE(elastic_config.tun.floor_mib) << 20;
	u64 boot = mem_view.boot_units * ELASTIC_UNIT_SIZE;

	return floor > boot ? DIV_ROUND_UP(floor - boot, ELASTIC_UNIT_SIZE) : 0;
}

static void decide_cpus(bool period, bool kicked)
{
	struct policy_cpu_sample sample = {
		.now_ms = elastic_now_ms(),
		.window_milli = kicked ? sched_window_milli() : 0,
		.runnable_milli = decide.period.runnable_milli,
		.busy_milli = decide.period.busy_milli,
		.steal_permille = decide.period.steal_permille,
		.online = num_online_cpus(),
		.floor = floor_cpus(),
		.limit = decide.cpu_limit,
		.period = period,
	};
	u32 want = policy_cpus(&elastic_config.tun, &decide.cpu_state, &sample);

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
	sample->all = memory.all;
	sample->kernel = memory.kernel;
	sample->unit = ELASTIC_UNIT_SIZE;
	sample->used = mem_view.used;
	sample->used_kernel = mem_view.used_kernel;
	sample->usable = mem_usable_units();
	sample->floor = floor_units();
	sample->limit = decide.mem_limit;
	sample->reclaims = reclaims - decide.seen_reclaims;
	decide.seen_reclaims = reclaims;
}

/*
 * What goes by own decision is there for who needs it meanwhile. That is who cannot go on
 * without, but not kswapd, which is woken for each page cache that fills what is free. Nor
 * does it go before what the guest is there for: the kernel tries a page that does not move
 * again and again, and the guest may have one CPU.
 */
static void give_up(const struct policy_mem_want *want)
{
	WRITE_ONCE(sense_gate.mem_can_grow, true);
	WRITE_ONCE(sense_gate.mem_going, true);
	worker_background(true);
	apply_mem(want, MEM_OWN);
	worker_background(false);
	WRITE_ONCE(sense_gate.mem_going, false);
	if (worker_needs_mem())
		policy_mem_wanted(&decide.mem_state);
}

static void decide_mem(bool period, bool urgent)
{
	struct policy_mem_sample sample = { .period = period, .urgent = urgent };
	struct policy_mem_want want;

	fill_mem_sample(&sample);
	policy_mem(&elastic_config.tun, &decide.mem_state, &sample, &want);
	WRITE_ONCE(worker_view.units_wanted, mem_view.boot_units + want.units);
	if (want.units == sample.used)
		return;
	if (want.units > sample.used && sample.now_ms < sense_gate.mem_hold_ms && !urgent)
		return;
	if (want.kernel > sample.used_kernel)
		stat_inc(STAT_KERNEL_GROWTHS);
	trace_elastic_mem_decision(&sample, decide.mem_state.keep, &want);
	if (sample.used > sample.limit)
		apply_mem(&want, MEM_FORCED);
	else if (want.units < sample.used)
		give_up(&want);
	else
		apply_mem(&want, urgent ? MEM_URGENT : MEM_OWN);
	if (mem_view.used < sample.used && sample.used <= sample.limit)
		policy_mem_shrunk(&decide.mem_state, (sample.used - mem_view.used) *
				  ELASTIC_UNIT_SIZE, elastic_now_ms());
}

static void open_gate(void)
{
	WRITE_ONCE(sense_gate.cpu_limit, decide.cpu_limit);
	WRITE_ONCE(sense_gate.steal_permille, decide.period.steal_permille);
	WRITE_ONCE(sense_gate.mem_can_grow, mem_view.used < decide.mem_limit);
}

/* Requests come through sysfs, but the host's targets hold here, too. */
static void follow_targets(void)
{
	struct policy_mem_want want = { .units = decide.mem_limit };

	WRITE_ONCE(worker_view.cpus_wanted, num_online_cpus());
	WRITE_ONCE(worker_view.units_wanted, mem_units());
	if (num_online_cpus() > decide.cpu_limit)
		apply_cpus(decide.cpu_limit);
	if (mem_view.used > decide.mem_limit)
		apply_mem(&want, MEM_FORCED);
}

/* Add or remove warm memory, a block at a time, while there is nothing urgent. */
static void keep_warm(void)
{
	struct policy_mem_sample sample = {
		.now_ms = elastic_now_ms(),
		.unit = ELASTIC_UNIT_SIZE,
		.used = mem_view.used,
		.limit = decide.mem_limit,
	};
	struct pressure_sample memory;
	enum policy_zone zone;

	pressure_read(&memory);
	for (zone = POLICY_ZONE_MOVABLE; zone <= POLICY_ZONE_KERNEL; zone++) {
		u32 want = policy_warm_units(&elastic_config.tun, &decide.mem_state, &sample, zone);

		if (worker_urgent())
			return;
		/* Not at the price of what there is left for the kernel. */
		if (memory.kernel.available < mem_view.block_bytes / 16)
			return;
		if (mem_keep_warm(zone, want)) {
			worker_kick(KICK_MORE);
			return;
		}
	}
}

/**
 * decide_begin() - a session begins, or goes on after a pause
 *
 * Context: worker, or before there is one.
 */
void decide_begin(void)
{
	period_begin(&decide.period);
	decide.report_at = jiffies;
	decide.begun = true;
	decide.mem_state.grown_at_ms = elastic_now_ms();
	update_limits();
}

/* How long until what is in surplus may go, in ms; 0 if that is over, or nothing is. */
static u64 surplus_ms(void)
{
	u64 at = decide.mem_state.surplus_since_ms +
		 READ_ONCE(elastic_config.tun.mem_down_delay_ms);
	u64 now = elastic_now_ms();

	return decide.mem_state.surplus && at > now ? at - now : 0;
}

/**
 * decide_timeout() - how long may the worker sleep?
 *
 * Return: jiffies.
 */
long decide_timeout(void)
{
	long timeout = max_t(long, decide.report_at - jiffies, 0);
	u64 ms = surplus_ms();

	return ms ? min_t(long, timeout, msecs_to_jiffies(ms)) : timeout;
}

/**
 * decide_report_soon() - a REPORT is due with the next step
 *
 * Context: worker.
 */
void decide_report_soon(void)
{
	decide.report_at = jiffies;
}

static u32 units_of(u64 mib)
{
	u64 boot = mem_view.boot_units * ELASTIC_UNIT_SIZE;

	return DIV_ROUND_UP((mib << 20) - boot, ELASTIC_UNIT_SIZE);
}

/* What the host has granted since the last REPORT is within its target. */
static void raise_limit(u32 want)
{
	decide.mem_limit = max(decide.mem_limit, min(want, mem_view.used));
}

/**
 * decide_set_mib() - have this much memory
 * @mib: MiB, boot memory included; at least that, at most what is usable more
 *
 * Context: worker.
 *
 * Return: as mem_set().
 */
int decide_set_mib(u64 mib)
{
	struct policy_mem_want want = { .units = units_of(mib) };
	int ret;

	decide.mem_state.grown_at_ms = elastic_now_ms();
	ret = mem_set(&want, MEM_FORCED);
	raise_limit(want.units);
	return ret;
}

/**
 * decide_set_mib_warm() - the same, if it is a growth for which what is warm is enough
 * @mib: MiB, as above
 *
 * Context: any task that acts for the worker.
 *
 * Return: true if it is done.
 */
bool decide_set_mib_warm(u64 mib)
{
	u32 want = units_of(mib);
	bool done;

	if (want <= mem_view.used)
		return false;
	done = mem_grow_warm_only(want - mem_view.used);
	raise_limit(want);
	if (done)
		decide.mem_state.grown_at_ms = elastic_now_ms();
	return done;
}

/**
 * decide_keep() - margin that unwanted shrinks have left, in bytes
 *
 * Context: any.
 */
u64 decide_keep(void)
{
	return READ_ONCE(decide.mem_state.keep);
}

/**
 * decide_rescue() - memory has run out, and somebody waits for it
 *
 * Context: worker.
 */
void decide_rescue(void)
{
	worker_rescue_begin();
	decide_mem(false, true);
	worker_rescue_end();
}

/**
 * decide_rescue_warm() - the same, out of what is warm: nothing is waited for
 *
 * Context: any task that acts for the worker.
 *
 * Return: how many units came.
 */
u32 decide_rescue_warm(void)
{
	struct policy_mem_sample sample = { .urgent = true };
	struct policy_mem_want want;
	u32 got;

	/* Each question counts as one more in a burst: none in vain. */
	if (!mem_view.warm)
		return 0;
	fill_mem_sample(&sample);
	policy_mem(&elastic_config.tun, &decide.mem_state, &sample, &want);
	if (want.units <= sample.used)
		return 0;
	got = mem_grow_warm(want.units - sample.used);
	trace_elastic_mem_decision(&sample, decide.mem_state.keep, &want);
	open_gate();
	return got;
}

/**
 * decide_step() - what the worker does each time it is woken
 * @kicks: bits of enum worker_kick: why it was
 *
 * Context: worker.
 */
void decide_step(unsigned long kicks)
{
	bool period = time_after_eq(jiffies, decide.report_at);

	if (kicks & BIT(KICK_REBASE)) {
		sched_quiet(true, 0);
		sched_rebase();
		sched_quiet(false, 0);
	}
	if (period) {
		end_period();
		mem_guard(decide.begun);
		decide.begun = false;
	}
	if (READ_ONCE(elastic_config.manual)) {
		follow_targets();
	} else {
		decide_cpus(period, kicks & BIT(KICK_CPU));
		decide_mem(period || (decide.mem_state.surplus && !surplus_ms()), false);
	}
	open_gate();
	keep_warm();
}
