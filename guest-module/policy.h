/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the guest should have: numbers and tunables in, targets out.
 *
 * No locks, no clock, no allocation and no kernel header but linux/types.h, so
 * that selftests/policy_guest.c compiles the same file in user space.
 */
#ifndef _ELASTIC_GUEST_POLICY_H
#define _ELASTIC_GUEST_POLICY_H

#include <linux/types.h>
#ifndef __KERNEL__
#include <stdbool.h>
#endif

/**
 * enum policy_zone - where new memory goes
 * @POLICY_ZONE_MOVABLE: for what can be moved away again (the default)
 * @POLICY_ZONE_KERNEL: for everything; hard to give back
 */
enum policy_zone {
	POLICY_ZONE_MOVABLE,
	POLICY_ZONE_KERNEL,
};

/**
 * struct policy_tunables - every constant of the policy; docs/abi/sysfs-guest
 * @report_period_ms: between two REPORTs
 * @cpu_window_ms: over which runnable tasks are averaged on the way up, and
 *	between two looks at available memory
 * @cpu_up_slack_milli: runnable tasks (in thousandths) that may wait before a
 *	CPU is added for them
 * @cpu_down_slack_milli: the same before a CPU is kept for them
 * @cpu_down_delay_ms: for so long CPUs must not be needed before they go
 * @cpu_settle_ms: after CPUs went, for so long nothing asks for CPUs: taking a CPU
 *	down leaves work behind
 * @cpu_steal_max_permille: above this share of stolen time no CPU is added
 * @floor_cpus: never fewer CPUs by own decision; 0: as many as were booted
 * @floor_mib: never less memory by own decision; 0: what was booted with
 * @mem_reserve_mib: memory that should be available at least
 * @mem_reserve_permille: the same as a share of all memory
 * @mem_kernel_reserve_mib: memory for the kernel itself that should be available
 *	at least
 * @mem_kernel_reserve_permille: the same as a share of the kernel zones
 * @mem_lookahead_ms: and what falls away in this time at the present rate
 * @mem_up_step_mib: most memory that one decision adds
 * @mem_burst_mib: least that a growth adds when reclaim has begun
 * @mem_burst_ms: the next one within this time adds twice as much
 * @mem_down_margin_mib: beyond the reserve, stays available after a shrink
 * @mem_down_delay_ms: for so long memory must be in surplus before it goes
 * @mem_down_step_mib: most memory that goes in one REPORT period
 * @mem_regret_ms: a growth within this time after a shrink was unwanted
 * @mem_keep_max_mib: bound of the extra margin that unwanted shrinks leave
 * @mem_keep_decay_ms: that margin halves in this time
 * @mem_warm_mib: movable memory to keep added and withheld
 * @mem_warm_kernel_mib: the same for the kernel zones; what emergencies draw on
 * @mem_warm_idle_ms: after so long without a growth both are given up
 * @mem_offline_timeout_ms: bound for taking memory out of use, by block
 * @mem_retry_ms: delay after memory could not be taken out; doubles each time
 * @mem_retry_max_ms: bound of that delay
 * @movable_max_percent: most movable memory, in percent of kernel memory; what
 *	comes beyond it comes as kernel memory. 0: no bound
 * @kernel_max_percent: most of the window that is brought in as kernel memory
 *	before memory has run out
 * @refused_retry_ms: pause after the host refused something
 * @oom_wait_ms: bound for the wait of an allocation that is out of memory
 */
struct policy_tunables {
	__u32 report_period_ms;
	__u32 cpu_window_ms;
	__u32 cpu_up_slack_milli;
	__u32 cpu_down_slack_milli;
	__u32 cpu_down_delay_ms;
	__u32 cpu_settle_ms;
	__u32 cpu_steal_max_permille;
	__u32 floor_cpus;
	__u32 floor_mib;
	__u32 mem_reserve_mib;
	__u32 mem_reserve_permille;
	__u32 mem_kernel_reserve_mib;
	__u32 mem_kernel_reserve_permille;
	__u32 mem_lookahead_ms;
	__u32 mem_up_step_mib;
	__u32 mem_burst_mib;
	__u32 mem_burst_ms;
	__u32 mem_down_margin_mib;
	__u32 mem_down_delay_ms;
	__u32 mem_down_step_mib;
	__u32 mem_regret_ms;
	__u32 mem_keep_max_mib;
	__u32 mem_keep_decay_ms;
	__u32 mem_warm_mib;
	__u32 mem_warm_kernel_mib;
	__u32 mem_warm_idle_ms;
	__u32 mem_offline_timeout_ms;
	__u32 mem_retry_ms;
	__u32 mem_retry_max_ms;
	__u32 movable_max_percent;
	__u32 kernel_max_percent;
	__u32 refused_retry_ms;
	__u32 oom_wait_ms;
};

/**
 * struct policy_cpu_sample - what the policy knows about CPUs
 * @now_ms: a clock that never goes back
 * @window_milli: runnable tasks, average over the window, times 1000
 * @runnable_milli: the same over the REPORT period
 * @busy_milli: CPUs that ran something, average over the period, times 1000
 * @steal_permille: stolen share of the time that CPUs wanted to run
 * @online: CPUs online
 * @floor: fewest CPUs by own decision
 * @limit: most CPUs that can be had: the host's target, what is there
 * @period: a REPORT period has ended; only then CPUs are given up
 */
struct policy_cpu_sample {
	__u64 now_ms;
	__u64 window_milli;
	__u64 runnable_milli;
	__u64 busy_milli;
	__u32 steal_permille;
	__u32 online;
	__u32 floor;
	__u32 limit;
	bool period;
};

/**
 * struct policy_cpu_state - what the policy remembers about CPUs
 * @low: fewer CPUs than online would do
 * @low_since_ms: since when
 * @low_need: the most that were needed since then
 */
struct policy_cpu_state {
	bool low;
	__u64 low_since_ms;
	__u32 low_need;
};

/**
 * struct policy_room - memory, or the part of it that the kernel can use for itself
 * @total: bytes that the kernel manages
 * @available: bytes that it could hand out without swapping
 * @rate: bytes a second by which that falls
 */
struct policy_room {
	__u64 total;
	__u64 available;
	__u64 rate;
};

/**
 * struct policy_mem_sample - what the policy knows about memory
 * @now_ms: a clock that never goes back
 * @all: all memory
 * @kernel: the zones that the kernel can use for itself
 * @unit: bytes of a unit
 * @used: units of the window in use
 * @used_kernel: of these, in the kernel zones
 * @usable: units of the window that can be used at all
 * @floor: fewest in use by own decision
 * @limit: most in use that can be had
 * @reclaims: direct reclaims begun since the last sample
 * @urgent: memory has run out
 * @period: a REPORT period has ended; only then memory is given up
 */
struct policy_mem_sample {
	__u64 now_ms;
	struct policy_room all;
	struct policy_room kernel;
	__u64 unit;
	__u32 used;
	__u32 used_kernel;
	__u32 usable;
	__u32 floor;
	__u32 limit;
	__u32 reclaims;
	bool urgent;
	bool period;
};

/**
 * struct policy_mem_want - units of the window to have in use
 * @units: all of them
 * @kernel: of these, at least so many in the kernel zones
 */
struct policy_mem_want {
	__u32 units;
	__u32 kernel;
};

/**
 * struct policy_mem_state - what the policy remembers about memory
 * @surplus: units could go
 * @surplus_since_ms: since when
 * @shrunk: bytes given up by own decision, not regretted yet
 * @shrunk_at_ms: when last
 * @keep: extra margin after unwanted shrinks, in bytes
 * @keep_at_ms: when it last changed
 * @burst_mib: what the last growth under pressure added at least, in MiB
 * @burst_at_ms: when it was
 * @grown_at_ms: when memory grew last; set by the user of the policy at the start
 */
struct policy_mem_state {
	bool surplus;
	__u64 surplus_since_ms;
	__u64 shrunk;
	__u64 shrunk_at_ms;
	__u64 keep;
	__u64 keep_at_ms;
	__u32 burst_mib;
	__u64 burst_at_ms;
	__u64 grown_at_ms;
};

extern const struct policy_tunables policy_defaults;

__u32 policy_steal_permille(__u64 busy_ns, __u64 steal_ns, __u64 period_ns);
__u32 policy_cpus_up(const struct policy_tunables *tun, __u64 window_milli,
		     __u32 steal_permille, __u32 online, __u32 limit);
__u32 policy_cpus(const struct policy_tunables *tun, struct policy_cpu_state *state,
		  const struct policy_cpu_sample *sample);
__u64 policy_mem_need(const struct policy_tunables *tun, const struct policy_room *all);
__u64 policy_kernel_need(const struct policy_tunables *tun, const struct policy_room *kernel);
bool policy_mem_short(const struct policy_tunables *tun, const struct policy_room *all,
		      const struct policy_room *kernel);
bool policy_mem_short_now(const struct policy_tunables *tun, const struct policy_room *all,
			  __u64 hidden);
void policy_mem(const struct policy_tunables *tun, struct policy_mem_state *state,
		const struct policy_mem_sample *sample, struct policy_mem_want *want);
void policy_mem_wanted(struct policy_mem_state *state);
void policy_mem_shrunk(struct policy_mem_state *state, __u64 bytes, __u64 now_ms);
__u32 policy_warm_units(const struct policy_tunables *tun, const struct policy_mem_state *state,
			const struct policy_mem_sample *sample, enum policy_zone zone);
enum policy_zone policy_zone(const struct policy_tunables *tun, enum policy_zone wanted,
			     __u64 kernel, __u64 movable, __u64 more);
__u32 policy_retry_ms(const struct policy_tunables *tun, __u32 last_ms);

#endif /* _ELASTIC_GUEST_POLICY_H */
