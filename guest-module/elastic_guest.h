/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What crosses a file in the guest module.
 *
 *   main.c      start and stop
 *   sysfs.c     what people see and set
 *   worker.c    the one thread that acts
 *   decide.c    what it does in a step: report, decide, apply
 *   report.c    the session with the host
 *   cpu.c       CPUs on and off
 *   window.c    the memory that the kernel did not get at boot
 *   units.c     the map of it, by unit
 *   mem.c       memory in and out
 *   block.c     memory blocks in and out
 *   online.c    memory blocks brought online
 *   plug.c      units into the allocator and out of it
 *   cache.c     page cache given up
 *   reporting.c free pages given back
 *   sense.c     the sensors' clock
 *   sched.c     runnable tasks and CPU time
 *   pressure.c  available memory and reclaim
 *   policy.c    numbers in, targets out
 *
 * Sensors only account and wake the worker; the worker alone acts, and for a moment
 * a task that ran out of memory or asks for what is warm. docs/locking.md has the rest.
 */
#ifndef _ELASTIC_GUEST_H
#define _ELASTIC_GUEST_H

#include <linux/atomic.h>
#include <linux/cpumask.h>
#include <linux/ktime.h>
#include <linux/sched.h>
#include <linux/types.h>

#include "elastic_hypercall.h"
#include "policy.h"

/* Counters: stats/ in sysfs. Names in sysfs.c, meaning in docs/abi/sysfs-guest. */
enum elastic_stat {
	STAT_HYPERCALLS,
	STAT_HELLOS,
	STAT_REPORTS,
	STAT_REQUESTS,
	STAT_RELEASES,
	STAT_STALE,
	STAT_CALL_ERRORS,
	STAT_REFUSED_CPUS,
	STAT_REFUSED_UNITS,
	STAT_CPUS_ADDED,
	STAT_CPUS_REMOVED,
	STAT_CPUS_HINTED,
	STAT_CPU_ADD_FAILURES,
	STAT_CPU_REMOVE_FAILURES,
	STAT_BLOCKS_ADDED,
	STAT_BLOCKS_REMOVED,
	STAT_BLOCK_ADD_FAILURES,
	STAT_OFFLINE_EBUSY,
	STAT_OFFLINE_EINTR,
	STAT_OFFLINE_ENOMEM,
	STAT_OFFLINE_OTHER,
	STAT_UNITS_PLUGGED,
	STAT_UNITS_UNPLUGGED,
	STAT_STUCK_UNMOVABLE,
	STAT_STUCK_PINNED,
	STAT_STUCK_BUSY,
	STAT_CACHE_DROPPED,
	STAT_DISCARDS,
	STAT_UNITS_DISCARDED,
	STAT_KERNEL_GROWTHS,
	STAT_KSWAPD_WAKES,
	STAT_DIRECT_RECLAIMS,
	STAT_OOM_CALLS,
	STAT_OOM_RESCUES,
	STAT_SENSE_RUNS,
	STAT_WAKES,
	STAT_CPU_ADD_LAST_US,
	STAT_BLOCK_ADD_LAST_US,
	STAT_BLOCK_REMOVE_LAST_US,
	STAT_REQUEST_LAST_NS,
	STAT_PLUG_LAST_NS,
	STAT_UNPLUG_LAST_US,
	STAT_NR,
};

extern atomic64_t elastic_stats[STAT_NR];

static inline void stat_add(enum elastic_stat stat, u64 n)
{
	atomic64_add(n, &elastic_stats[stat]);
}

static inline void stat_inc(enum elastic_stat stat)
{
	atomic64_inc(&elastic_stats[stat]);
}

static inline void stat_set(enum elastic_stat stat, u64 n)
{
	atomic64_set(&elastic_stats[stat], n);
}

static inline u64 elastic_now_ms(void)
{
	return ktime_get_ns() / NSEC_PER_MSEC;
}

/**
 * struct elastic_config - what the user set
 * @tun: the tunables; each is read and written alone (READ_ONCE, WRITE_ONCE)
 * @manual: the policy decides nothing, requests come through sysfs
 * @zone: enum policy_zone, where new memory goes
 */
struct elastic_config {
	struct policy_tunables tun;
	bool manual;
	u32 zone;
};

extern struct elastic_config elastic_config;

/* worker.c */

/* Why the worker is woken: bits for worker_kick(). */
enum worker_kick {
	KICK_CPU,	/* more tasks than CPUs */
	KICK_MEM,	/* memory falls short soon */
	KICK_URGENT,	/* memory has run out */
	KICK_COMMAND,	/* somebody waits for a command */
	KICK_REBASE,	/* the count of runnable tasks may be off */
	KICK_MORE,	/* what is done in the background is not done yet */
};

/* What others have the worker do: worker_execute(). */
enum worker_command {
	COMMAND_CPUS,	/* have this many CPUs */
	COMMAND_MIB,	/* have this much memory */
	COMMAND_ENABLE,	/* begin or end the session */
	COMMAND_PAUSE,	/* do nothing, or go on */
};

/**
 * struct rescue - a task that ran out of memory, and waits
 * @begun: rescues that had begun before, and may have looked too early
 * @had: units that had come before
 * @until: it waits at most so long, in jiffies
 * @kicked: the worker knows
 */
struct rescue {
	u64 begun;
	u64 had;
	unsigned long until;
	bool kicked;
};

int worker_start(void);
void worker_stop(void);
void worker_close(void);
void worker_freeze(void);
int worker_pause(bool pause);
void worker_kick(enum worker_kick why);
bool worker_took(enum worker_kick why);
int worker_execute(enum worker_command command, u64 arg);
bool worker_urgent(void);
bool worker_needs_mem(void);
bool worker_is_current(void);
void worker_background(bool on);
void worker_interrupt(void);
void worker_removing(bool removing);
void worker_let_go(void);
void worker_take_back(void);
void worker_rescue_start(struct rescue *rescue);
s64 worker_rescue(struct rescue *rescue);
void worker_rescue_begin(void);
void worker_rescue_end(void);
void worker_no_rescue(void);

/**
 * struct worker_view - what the worker last decided, for sysfs and REPORT
 * @cpus_wanted: CPUs that the policy would have
 * @units_wanted: units that the policy would have
 * @enabled: there is to be a session
 */
struct worker_view {
	u32 cpus_wanted;
	u64 units_wanted;
	bool enabled;
};

extern struct worker_view worker_view;

/* decide.c */
void decide_begin(void);
long decide_timeout(void);
void decide_report_soon(void);
void decide_step(unsigned long kicks);
void decide_rescue(void);
u32 decide_rescue_warm(void);
int decide_set_cpus(u32 want);
int decide_set_mib(u64 mib);
bool decide_set_mib_warm(u64 mib);
u64 decide_keep(void);

/* report.c */

/**
 * enum session_state - of the session, as the guest knows it
 * @SESSION_NONE: no HELLO yet
 * @SESSION_MANAGED: the cookie is good, as far as known
 * @SESSION_LOST: the host did not know the cookie; HELLO is due
 * @SESSION_DETACHED: BYE was said
 */
enum session_state {
	SESSION_NONE,
	SESSION_MANAGED,
	SESSION_LOST,
	SESSION_DETACHED,
};

/**
 * struct session - with the host. Written by the worker (and by main.c before
 * it runs); others read single fields with READ_ONCE().
 * @state: enum session_state
 * @cookie: names it; secret
 * @features: ELASTIC_FEAT_* that hold
 * @version: of the interface
 * @enforced: the host holds what it did not grant, also after BYE
 * @known: a REPORT has brought what follows
 * @cpus_target: most vCPUs to hold
 * @cpus_granted: vCPUs granted
 * @cpu_hint: APIC id plus 1 of the vCPU to give up first, any number; 0: none
 * @units_target: most units to hold
 * @units_granted: units granted, boot memory among them
 */
struct session {
	enum session_state state;
	u64 cookie;
	u64 features;
	u32 version;
	bool enforced;
	bool known;
	u32 cpus_target;
	u32 cpus_granted;
	u32 cpu_hint;
	u64 units_target;
	u64 units_granted;
};

extern struct session session;

/* Length of last_refusal's text. */
#define REFUSAL_LEN	96

int session_init(void);
void session_exit(void);
int session_hello(void);
int session_report(struct elastic_report *report);
int session_request_cpus(u32 word, u64 set, u32 nr, u64 *granted);
int session_request_units(u64 first, u64 nr, u64 *granted);
int session_release_cpus(u32 word, u64 set, u64 *granted);
int session_release_units(const struct elastic_range *ranges, u32 nr);
int session_discard_units(const struct elastic_range *ranges, u32 nr);
void session_bye(void);
void session_no_hello(bool on);
void session_refusal(char *text);

/* cpu.c */
int cpu_find(void);
void cpu_forget(void);
int cpu_start(void);
void cpu_stop(void);
u32 cpu_held_words(u64 *words);
void cpu_adopt(void);
u32 cpu_present_limit(void);
u32 cpu_boot_floor(void);
int cpu_set(u32 want);
void cpu_release_stray(void);

/* window.c and mem.c */

/**
 * struct mem_view - the memory window in numbers. Written by the worker, others
 * read single fields with READ_ONCE().
 * @block_bytes: of a memory block
 * @boot_units: units of boot memory
 * @window_units: units that the kernel did not get at boot
 * @usable_blocks: blocks that lie in the window from end to end
 * @blocks: of these, those of which something is in use
 * @movable_blocks: of these, in the movable zone
 * @used: units of the window in use
 * @used_kernel: of these, in the kernel zones
 * @warm: units withheld in blocks that are online
 * @warm_kernel: of these, in the kernel zones
 */
struct mem_view {
	u64 block_bytes;
	u64 boot_units;
	u64 window_units;
	u32 usable_blocks;
	u32 blocks;
	u32 movable_blocks;
	u32 used;
	u32 used_kernel;
	u32 warm;
	u32 warm_kernel;
};

extern struct mem_view mem_view;

int mem_find(void);
void mem_forget(void);
u32 mem_absent(u64 *cursor, struct elastic_range *ranges, u32 max);
int blocks_start(void);
void blocks_stop(void);
int plug_start(void);
void plug_stop(void);

/* How memory is to come or go: mem_set(). */
enum mem_how {
	MEM_OWN,	/* the policy wants it so: what is easy */
	MEM_FORCED,	/* the host or the user wants it so: also what is not easy */
	MEM_URGENT,	/* memory has run out: do not wait for memory */
};

int mem_set(const struct policy_mem_want *want, enum mem_how how);
u32 mem_grow_warm(u32 want);
bool mem_grow_warm_only(u32 want);
int mem_settle(void);
bool mem_keep_warm(enum policy_zone zone, u32 want);
void mem_guard(bool all);
u64 mem_isolated_bytes(enum policy_zone zone);
u64 mem_units(void);

static inline u64 mem_block_units(void)
{
	return mem_view.block_bytes >> ELASTIC_UNIT_SHIFT;
}

static inline u32 mem_usable_units(void)
{
	return mem_view.usable_blocks * mem_block_units();
}

/* sense.c */

/**
 * struct sense_gate - what the worker lets the sensors wake it for. Written by
 * the worker, read by the sensors with READ_ONCE().
 * @cpu_limit: most CPUs that can be had
 * @cpu_hold_ms: not before this time
 * @steal_permille: of the last period
 * @mem_can_grow: there is memory to ask for, or memory that is on its way out by own decision
 * @mem_going: that is on its way out
 * @mem_hold_ms: not before this time
 * @mem_came: how often memory came to the allocator, or came back to it
 */
struct sense_gate {
	u32 cpu_limit;
	u64 cpu_hold_ms;
	u32 steal_permille;
	bool mem_can_grow;
	bool mem_going;
	u64 mem_hold_ms;
	u64 mem_came;
};

extern struct sense_gate sense_gate;

/* Context: who acts for the worker. */
static inline void sense_mem_came(void)
{
	WRITE_ONCE(sense_gate.mem_came, sense_gate.mem_came + 1);
}

int sense_start(void);
void sense_stop(void);

/* sched.c */
int sched_start(void);
void sched_stop(void);
void sched_sense(u64 now_ns);
void sched_rebase(void);
void sched_quiet(bool quiet, u32 settle_ms);
u64 sched_idle_us(void);
u64 sched_window_milli(void);
s64 sched_runnable(void);
u64 sched_integral(u64 now_ns, s64 *nr);
void sched_cpu_time(u64 *busy_ns, u64 *steal_ns);
void sched_correct(s64 by);

/* pressure.c */

/**
 * struct pressure_sample - of memory
 * @all: all of it
 * @kernel: the zones that the kernel can use for itself
 */
struct pressure_sample {
	struct policy_room all;
	struct policy_room kernel;
};

int pressure_start(void);
void pressure_stop(void);
void pressure_sense(u64 now_ns);
void pressure_read(struct pressure_sample *sample);
void pressure_quiet(bool quiet);

/* reporting.c */

/* Who gives free pages back to the host. */
enum reporting_state {
	REPORTING_OFF,		/* nobody, as wanted */
	REPORTING_ON,		/* this module */
	REPORTING_BUSY,		/* another driver has the kernel's free page reporting */
	REPORTING_ABSENT,	/* the host knows no DISCARD, or the kernel poisons pages */
};

void reporting_start(void);
void reporting_stop(void);
int reporting_set(bool on);
enum reporting_state reporting_state(void);
u64 reporting_hidden_bytes(enum policy_zone zone);

/* sysfs.c */
int sysfs_start(void);
void sysfs_stop(void);

#endif /* _ELASTIC_GUEST_H */
