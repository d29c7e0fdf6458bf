// SPDX-License-Identifier: GPL-2.0
/*
 * The sensors' clock: one deferrable timer per CPU.
 *
 * A deferrable timer does not wake an idle CPU; it runs with the tick of a busy
 * one. So a guest that works looks at itself once a window, whichever CPU is the
 * one that works, and a guest that idles does nothing.
 */
#include <linux/cpuhotplug.h>
#include <linux/jiffies.h>
#include <linux/ktime.h>
#include <linux/percpu.h>
#include <linux/timer.h>
#include <linux/tracepoint.h>

#include "elastic_guest.h"

struct sense_gate sense_gate;

static DEFINE_PER_CPU(struct timer_list, sense_timers);
static enum cpuhp_state sense_state;

/* When somebody looked last, in jiffies; claimed with cmpxchg. */
static unsigned long sensed_at;

static unsigned long window_jiffies(void)
{
	return max(msecs_to_jiffies(READ_ONCE(elastic_config.tun.cpu_window_ms)), 1UL);
}

/* One look per window is enough for all CPUs. */
static bool claim_look(void)
{
	unsigned long last = READ_ONCE(sensed_at);

	if (time_before(jiffies, last + window_jiffies()))
		return false;
	return cmpxchg(&sensed_at, last, jiffies) == last;
}

static void sense(struct timer_list *timer)
{
	u64 now = ktime_get_mono_fast_ns();

	if (claim_look()) {
		stat_inc(STAT_SENSE_RUNS);
		sched_sense(now);
		pressure_sense(now);
	}
	timer->expires = jiffies + window_jiffies();
	add_timer_on(timer, smp_processor_id());
}

/*
 * A CPU that is not online yet or any more is not traced, but changes run queues:
 * its own, and with stop_machine_from_inactive_cpu() (MTRRs) those of all others.
 */
static int sense_cpu_online(unsigned int cpu)
{
	struct timer_list *timer = per_cpu_ptr(&sense_timers, cpu);

	timer_setup(timer, sense, TIMER_DEFERRABLE | TIMER_PINNED);
	timer->expires = jiffies + window_jiffies();
	add_timer_on(timer, cpu);
	worker_kick(KICK_REBASE);
	return 0;
}

static int sense_cpu_offline(unsigned int cpu)
{
	timer_delete_sync(per_cpu_ptr(&sense_timers, cpu));
	worker_kick(KICK_REBASE);
	return 0;
}

/**
 * sense_start() - start all sensors
 *
 * Context: process. Takes the CPU hotplug lock.
 *
 * Return: 0 or an error, with nothing started.
 */
int sense_start(void)
{
	int ret = sched_start();

	if (ret)
		return ret;
	ret = pressure_start();
	if (ret)
		goto err_sched;
	sensed_at = jiffies;
	ret = cpuhp_setup_state(CPUHP_AP_ONLINE_DYN, "elastic_guest:sense", sense_cpu_online,
				sense_cpu_offline);
	if (ret < 0)
		goto err_pressure;
	sense_state = ret;
	return 0;

err_pressure:
	pressure_stop();
err_sched:
	sched_stop();
	tracepoint_synchronize_unregister();
	return ret;
}

/**
 * sense_stop() - stop all sensors; none runs any more on return
 *
 * Context: process. Takes the CPU hotplug lock.
 */
void sense_stop(void)
{
	cpuhp_remove_state(sense_state);
	pressure_stop();
	sched_stop();
	tracepoint_synchronize_unregister();
}
