// SPDX-License-Identifier: GPL-2.0
/*
 * Available memory, the rate at which it falls, reclaim, and running out.
 *
 * There are two accounts, by the same rules: of all memory, and of the zones that the
 * kernel can use for itself. A guest may have plenty of movable memory and no room
 * for a page table.
 *
 * The rate is that of the memory in use (total less available), which is the
 * same before and after memory comes or goes. Meanwhile it is not: pages of a
 * block on its way are isolated, which counts as neither free nor absent. So the
 * rates rest while the worker changes blocks (pressure_quiet()).
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/ktime.h>
#include <linux/mm.h>
#include <linux/mmzone.h>
#include <linux/nodemask.h>
#include <linux/notifier.h>
#include <linux/oom.h>
#include <linux/sched.h>
#include <linux/spinlock.h>
#include <linux/string.h>
#include <linux/tracepoint.h>
#include <linux/vmstat.h>

#include "compat/vmscan.h"
#include "elastic_guest.h"

/**
 * struct account - how one kind of memory is used up
 * @used: memory in use at the last look, in bytes
 * @rate: bytes a second by which it rises, smoothed
 */
struct account {
	u64 used;
	u64 rate;
};

/**
 * struct pressure - the sensor
 * @lock: protects what follows; taken in softirq and by the worker
 * @quiet: a block is on its way
 * @at_ns: time of the last look
 * @all: all memory
 * @kernel: the zones that the kernel can use for itself
 */
struct pressure {
	spinlock_t lock;	/* see above */
	bool quiet;
	u64 at_ns;
	struct account all;
	struct account kernel;
};

static struct pressure pressure = {
	.lock = __SPIN_LOCK_UNLOCKED(pressure.lock),
};

static struct tracepoint *tp_reclaim;
static struct tracepoint *tp_kswapd;

/* Pages of a zone that can be had: free, or half of its page cache. */
static long zone_available(struct zone *zone)
{
	long free = zone_page_state(zone, NR_FREE_PAGES) - low_wmark_pages(zone);
	long cache = zone_page_state(zone, NR_ZONE_INACTIVE_FILE) +
		     zone_page_state(zone, NR_ZONE_ACTIVE_FILE);

	return free + cache / 2;
}

static void look_at_kernel(struct policy_room *room)
{
	long available = 0, total = 0;
	enum zone_type type;
	int nid;

	for_each_online_node(nid) {
		for (type = 0; type < ZONE_MOVABLE; type++) {
			struct zone *zone = &NODE_DATA(nid)->node_zones[type];

			if (!populated_zone(zone))
				continue;
			total += zone_managed_pages(zone);
			available += zone_available(zone);
		}
	}
	/* Slab lies in these zones, whatever its node. */
	available += global_node_page_state_pages(NR_SLAB_RECLAIMABLE_B) / 2;
	room->total = (u64)total << PAGE_SHIFT;
	room->available = available > 0 ? (u64)available << PAGE_SHIFT : 0;
}

/* Free, but isolated: it does not count as such, and is no loss. */
static u64 hidden(enum policy_zone zone)
{
	return mem_isolated_bytes(zone) + reporting_hidden_bytes(zone);
}

static void look(struct pressure_sample *sample)
{
	u64 kernel = hidden(POLICY_ZONE_KERNEL);
	long available = si_mem_available();

	sample->all.total = (u64)totalram_pages() << PAGE_SHIFT;
	sample->all.available = available > 0 ? (u64)available << PAGE_SHIFT : 0;
	sample->all.available += kernel + hidden(POLICY_ZONE_MOVABLE);
	look_at_kernel(&sample->kernel);
	sample->kernel.available += kernel;
}

/* Follow a rise at once by half, a fall by half of the rest. */
static void update_account(struct account *account, const struct policy_room *room, u64 us)
{
	u64 used = room->total - min(room->total, room->available);
	u64 now = 0;

	if (used > account->used)
		now = (used - account->used) * USEC_PER_SEC / us;
	account->rate = (account->rate + now) / 2;
	/* A long pause says nothing about the time before it. */
	if (us > USEC_PER_SEC / 2)
		account->rate = now;
	account->used = used;
}

static void update_rates(u64 now_ns, const struct pressure_sample *sample)
{
	u64 us = (now_ns - pressure.at_ns) / NSEC_PER_USEC;

	if (!us || pressure.quiet)
		return;
	update_account(&pressure.all, &sample->all, us);
	update_account(&pressure.kernel, &sample->kernel, us);
	pressure.at_ns = now_ns;
}

static void tell_rates(struct pressure_sample *sample)
{
	sample->all.rate = pressure.all.rate;
	sample->kernel.rate = pressure.kernel.rate;
}

/**
 * pressure_read() - what is known about memory now
 * @sample: is filled
 */
void pressure_read(struct pressure_sample *sample)
{
	u64 now = ktime_get_mono_fast_ns();

	look(sample);
	spin_lock_bh(&pressure.lock);
	/* The sensor does not look while the guest idles. */
	if (now - pressure.at_ns > NSEC_PER_SEC / 2)
		update_rates(now, sample);
	tell_rates(sample);
	spin_unlock_bh(&pressure.lock);
}

/**
 * pressure_quiet() - keep what the worker does with blocks out of the rate
 * @quiet: begin or end
 *
 * Context: worker.
 */
void pressure_quiet(bool quiet)
{
	struct pressure_sample sample;

	look(&sample);
	spin_lock_bh(&pressure.lock);
	pressure.quiet = quiet;
	update_rates(ktime_get_mono_fast_ns(), &sample);
	spin_unlock_bh(&pressure.lock);
}

/**
 * pressure_sense() - look at memory; wake the worker if it falls short soon
 * @now_ns: ktime_get_mono_fast_ns()
 *
 * Context: softirq, on a CPU that is not idle.
 */
void pressure_sense(u64 now_ns)
{
	struct pressure_sample sample;
	u64 hidden;

	look(&sample);
	if (!spin_trylock(&pressure.lock))
		return;
	update_rates(now_ns, &sample);
	tell_rates(&sample);
	spin_unlock(&pressure.lock);
	if (!READ_ONCE(sense_gate.mem_can_grow) || READ_ONCE(elastic_config.manual))
		return;
	hidden = mem_isolated_bytes(POLICY_ZONE_KERNEL) + mem_isolated_bytes(POLICY_ZONE_MOVABLE);
	if (policy_mem_short_now(&elastic_config.tun, &sample.all, hidden) ||
	    (policy_mem_short(&elastic_config.tun, &sample.all, &sample.kernel) &&
	     elastic_now_ms() >= READ_ONCE(sense_gate.mem_hold_ms)))
		worker_kick(KICK_MEM);
}

/*
 * The kernel wakes kswapd where these two events are, so waking the worker there
 * is as safe.
 */
static void reclaim_seen(void)
{
	if (READ_ONCE(sense_gate.mem_can_grow) && !READ_ONCE(elastic_config.manual) &&
	    elastic_now_ms() >= READ_ONCE(sense_gate.mem_hold_ms))
		worker_kick(KICK_MEM);
}

static void probe_reclaim(COMPAT_DIRECT_RECLAIM_BEGIN_ARGS)
{
	stat_inc(STAT_DIRECT_RECLAIMS);
	/* The worker and its helpers make room for what they move. */
	if (!READ_ONCE(sense_gate.mem_going) ||
	    (!worker_is_current() && !(current->flags & PF_WQ_WORKER)))
		reclaim_seen();
}

static void probe_kswapd(COMPAT_WAKEUP_KSWAPD_ARGS)
{
	stat_inc(STAT_KSWAPD_WAKES);
	/* What is free on its way out is hidden, so kswapd is woken sooner. */
	if (!READ_ONCE(sense_gate.mem_going))
		reclaim_seen();
}

/**
 * struct oom - memory has run out
 * @rescue: what is waited for
 * @waits: somebody was told to try again
 * @last: when, in jiffies
 * @came: sense_gate.mem_came, when somebody was last told to try again for it
 *
 * The kernel calls its notifiers under a lock.
 */
static struct oom {
	struct rescue rescue;
	bool waits;
	unsigned long last;
	u64 came;
} oom;

/*
 * Before something is killed, fetch memory, or have the worker do it and wait for a bounded
 * time. The task that ran out may hold locks that the worker needs; then the bound decides.
 *
 * Return: units that came, or -EAGAIN if that is to be tried again.
 */
static s64 fetch_memory(void)
{
	struct rescue own;
	s64 units;

	if (worker_is_current()) {
		worker_rescue_start(&own);
		return worker_rescue(&own);
	}
	/* Who was told to try again, and found some, does not come back. */
	if (!oom.waits || time_after(jiffies, oom.last + HZ))
		worker_rescue_start(&oom.rescue);
	units = worker_rescue(&oom.rescue);
	oom.waits = units == -EAGAIN;
	oom.last = jiffies;
	return units;
}

/* The last line. */
static int out_of_memory_soon(struct notifier_block *nb, unsigned long unused, void *data)
{
	long free = global_zone_page_state(NR_FREE_PAGES), unit = ELASTIC_UNIT_SIZE >> PAGE_SHIFT;
	unsigned long *freed = data;
	u64 came;
	s64 units = 0;

	if (!oom.waits)
		stat_inc(STAT_OOM_CALLS);
	if (READ_ONCE(sense_gate.mem_can_grow) && !READ_ONCE(elastic_config.manual))
		units = fetch_memory();
	else
		oom.waits = false;
	if (units == -EAGAIN) {
		*freed += 1;
		return NOTIFY_OK;
	}
	if (units)
		stat_inc(STAT_OOM_RESCUES);
	*freed += units * unit;
	/* Who was killed before has died while this task waited: it is enough. */
	free = (long)global_zone_page_state(NR_FREE_PAGES) - free;
	if (free >= unit)
		*freed += free;
	/* And what came after this task looked last, and before it came here, is not in that. */
	came = READ_ONCE(sense_gate.mem_came);
	if (came != oom.came)
		*freed += 1;
	oom.came = came;
	return NOTIFY_OK;
}

static struct notifier_block oom_notifier = {
	.notifier_call = out_of_memory_soon,
};

static void find_tracepoint(struct tracepoint *tp, void *unused)
{
	if (!strcmp(tp->name, "mm_vmscan_direct_reclaim_begin"))
		tp_reclaim = tp;
	else if (!strcmp(tp->name, "mm_vmscan_wakeup_kswapd"))
		tp_kswapd = tp;
}

static int probes_start(void)
{
	int ret;

	compat_check_vmscan_probes(probe_reclaim, probe_kswapd);
	for_each_kernel_tracepoint(find_tracepoint, NULL);
	if (!tp_reclaim || !tp_kswapd)
		return -ENOENT;
	ret = tracepoint_probe_register(tp_reclaim, probe_reclaim, NULL);
	if (ret)
		return ret;
	ret = tracepoint_probe_register(tp_kswapd, probe_kswapd, NULL);
	if (ret)
		tracepoint_probe_unregister(tp_reclaim, probe_reclaim, NULL);
	return ret;
}

static void probes_stop(void)
{
	tracepoint_probe_unregister(tp_kswapd, probe_kswapd, NULL);
	tracepoint_probe_unregister(tp_reclaim, probe_reclaim, NULL);
}

/**
 * pressure_start() - begin to look
 *
 * Return: 0 or an error.
 */
int pressure_start(void)
{
	int ret = probes_start();

	if (ret)
		return ret;
	ret = register_oom_notifier(&oom_notifier);
	if (ret)
		probes_stop();
	return ret;
}

/**
 * pressure_stop() - stop looking; sense_stop() waits for running probes
 */
void pressure_stop(void)
{
	unregister_oom_notifier(&oom_notifier);
	probes_stop();
}
