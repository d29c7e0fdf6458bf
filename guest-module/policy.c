// SPDX-License-Identifier: GPL-2.0
/*
 * The guest's policy: how many CPUs and units of memory it should have.
 *
 * Up quickly, because a shortage hurts at once; down slowly, because what was
 * given up may not come back. See policy.h for what goes in and out.
 */
#include "policy.h"

#define MIB(n)	((__u64)(n) << 20)

/* The least that is asked for when memory has run out. */
#define RESCUE_MIB	16

const struct policy_tunables policy_defaults = {
	.report_period_ms	= 1000,
	.cpu_window_ms		= 10,
	.cpu_up_slack_milli	= 500,
	.cpu_down_slack_milli	= 200,
	.cpu_down_delay_ms	= 5000,
	.cpu_settle_ms		= 100,
	.cpu_steal_max_permille	= 300,
	.floor_cpus		= 0,
	.floor_mib		= 0,
	.mem_reserve_mib	= 128,
	.mem_reserve_permille	= 125,
	.mem_kernel_reserve_mib	= 48,
	.mem_kernel_reserve_permille = 60,
	.mem_lookahead_ms	= 300,
	.mem_up_step_mib	= 1024,
	.mem_burst_mib		= 64,
	.mem_burst_ms		= 1000,
	.mem_down_margin_mib	= 64,
	.mem_down_delay_ms	= 2000,
	.mem_down_step_mib	= 4096,
	.mem_regret_ms		= 30000,
	.mem_keep_max_mib	= 512,
	.mem_keep_decay_ms	= 60000,
	.mem_warm_mib		= 128,
	.mem_warm_kernel_mib	= 128,
	.mem_warm_idle_ms	= 60000,
	.mem_offline_timeout_ms	= 1000,
	.mem_retry_ms		= 5000,
	.mem_retry_max_ms	= 300000,
	.movable_max_percent	= 1600,
	.kernel_max_percent	= 75,
	.refused_retry_ms	= 1000,
	.oom_wait_ms		= 2000,
};

static __u64 max_u64(__u64 a, __u64 b)
{
	return a > b ? a : b;
}

static __u64 min_u64(__u64 a, __u64 b)
{
	return a < b ? a : b;
}

static __u64 div_up(__u64 n, __u64 by)
{
	return n / by + (n % by != 0);
}

/**
 * policy_steal_permille() - stolen share of the time that CPUs wanted to run
 * @busy_ns: time that they ran
 * @steal_ns: time that they would have run
 * @period_ns: in which they did
 *
 * Busy time is sampled, stolen time is exact: of a guest that wanted next to nothing the
 * quotient says nothing.
 *
 * Return: thousandths; 0 if all CPUs together wanted less than a tenth of one.
 */
__u32 policy_steal_permille(__u64 busy_ns, __u64 steal_ns, __u64 period_ns)
{
	__u64 wanted = busy_ns + steal_ns;

	if (wanted < period_ns / 10 || wanted < 1000)
		return 0;
	return steal_ns / (wanted / 1000);
}

/* CPUs for so many tasks, when @slack_milli of them may wait. */
static __u64 cpus_for(__u64 milli, __u32 slack_milli)
{
	return milli > slack_milli ? div_up(milli - slack_milli, 1000) : 0;
}

/**
 * policy_cpus_up() - CPUs wanted by a look at the last window alone
 * @tun: tunables
 * @window_milli: runnable tasks, average over the window, times 1000
 * @steal_permille: stolen share of the time that CPUs wanted to run
 * @online: CPUs online
 * @limit: most CPUs that can be had
 *
 * Return: @online, or more, but never more than @limit then.
 */
__u32 policy_cpus_up(const struct policy_tunables *tun, __u64 window_milli,
		     __u32 steal_permille, __u32 online, __u32 limit)
{
	__u64 want = cpus_for(window_milli, tun->cpu_up_slack_milli);

	if (steal_permille > tun->cpu_steal_max_permille)
		return online;
	return max_u64(online, min_u64(want, limit));
}

/* CPUs to have at the end of a period in which nothing asked for more. */
static __u32 cpus_down(const struct policy_tunables *tun, struct policy_cpu_state *state,
		       const struct policy_cpu_sample *sample)
{
	__u64 milli = max_u64(sample->runnable_milli, sample->busy_milli);
	__u32 need = min_u64(sample->online, cpus_for(milli, tun->cpu_down_slack_milli));

	need = max_u64(need, max_u64(sample->floor, 1));
	if (need >= sample->online) {
		state->low = false;
		return sample->online;
	}
	if (!state->low) {
		state->low = true;
		state->low_since_ms = sample->now_ms;
		state->low_need = need;
	}
	state->low_need = max_u64(state->low_need, need);
	if (sample->now_ms - state->low_since_ms < tun->cpu_down_delay_ms)
		return sample->online;
	/* The next step starts its own delay. */
	state->low = false;
	return state->low_need;
}

/**
 * policy_cpus() - CPUs wanted
 * @tun: tunables
 * @state: memory of the policy, zero at the start
 * @sample: what is known now
 *
 * Return: the number of CPUs to have, at least 1. The host's limit goes before
 * everything else, also before the floor.
 */
__u32 policy_cpus(const struct policy_tunables *tun, struct policy_cpu_state *state,
		  const struct policy_cpu_sample *sample)
{
	__u32 limit = max_u64(sample->limit, 1);
	__u32 want;

	want = policy_cpus_up(tun, sample->window_milli, sample->steal_permille,
			      sample->online, limit);
	want = max_u64(want, min_u64(sample->floor, limit));
	if (want > sample->online)
		state->low = false;
	else if (sample->period)
		want = cpus_down(tun, state, sample);
	return min_u64(want, limit);
}

static __u64 need(const struct policy_room *room, __u32 mib, __u32 permille, __u32 lookahead_ms)
{
	return max_u64(MIB(mib), room->total / 1000 * permille) +
	       room->rate / 1000 * lookahead_ms;
}

/**
 * policy_mem_need() - memory that should be available
 * @tun: tunables
 * @all: all memory; what is available does not count
 *
 * Return: bytes.
 */
__u64 policy_mem_need(const struct policy_tunables *tun, const struct policy_room *all)
{
	return need(all, tun->mem_reserve_mib, tun->mem_reserve_permille, tun->mem_lookahead_ms);
}

/**
 * policy_kernel_need() - memory for the kernel itself that should be available
 * @tun: tunables
 * @kernel: the kernel zones; what is available does not count
 *
 * Return: bytes.
 */
__u64 policy_kernel_need(const struct policy_tunables *tun, const struct policy_room *kernel)
{
	return need(kernel, tun->mem_kernel_reserve_mib, tun->mem_kernel_reserve_permille,
		    tun->mem_lookahead_ms);
}

/**
 * policy_mem_short() - does memory, or memory for the kernel, fall short soon?
 * @tun: tunables
 * @all: all memory
 * @kernel: the kernel zones
 */
bool policy_mem_short(const struct policy_tunables *tun, const struct policy_room *all,
		      const struct policy_room *kernel)
{
	return all->available < policy_mem_need(tun, all) ||
	       kernel->available < policy_kernel_need(tun, kernel);
}

/**
 * policy_mem_short_now() - does memory fall short of which a part is on its way out?
 * @tun: tunables
 * @all: all memory
 * @hidden: bytes that are available, and free, but not for those who need memory now
 *
 * It began with all that is needed left beside them. What is hidden comes back when it is
 * told to, but not at once.
 */
bool policy_mem_short_now(const struct policy_tunables *tun, const struct policy_room *all,
			  __u64 hidden)
{
	return hidden && all->available < hidden + policy_mem_need(tun, all) / 2;
}

static __u32 units_short(const struct policy_room *room, __u64 needed, __u64 unit)
{
	return room->available < needed ? div_up(needed - room->available, unit) : 0;
}

/*
 * The least that a growth adds: nothing while it comes before reclaim; each time in
 * a row twice as much when reclaim was faster, because then the rate was wrong.
 */
static __u32 burst_units(const struct policy_tunables *tun, struct policy_mem_state *state,
			 const struct policy_mem_sample *sample)
{
	__u64 mib = sample->urgent ? max_u64(tun->mem_burst_mib, RESCUE_MIB) : tun->mem_burst_mib;

	if (!sample->urgent &&
	    (!sample->reclaims ||
	     (sample->all.available >= 2 * policy_mem_need(tun, &sample->all) &&
	      sample->kernel.available >= 2 * policy_kernel_need(tun, &sample->kernel))))
		return 0;
	if (state->burst_mib && sample->now_ms - state->burst_at_ms <= tun->mem_burst_ms)
		mib = 2 * (__u64)state->burst_mib;
	state->burst_mib = min_u64(mib, tun->mem_up_step_mib);
	state->burst_at_ms = sample->now_ms;
	return div_up(MIB(state->burst_mib), sample->unit);
}

/* Not a unit at a time: each growth is a hypercall. */
static __u64 in_steps(const struct policy_tunables *tun, __u64 units, __u64 unit)
{
	__u64 step = max_u64(MIB(tun->mem_burst_mib) / 4 / unit, 1);

	return min_u64(div_up(units, step) * step, div_up(MIB(tun->mem_up_step_mib), unit));
}

/* More units for whatever use. */
static __u32 mem_up(const struct policy_tunables *tun, const struct policy_mem_sample *sample)
{
	__u64 needed = policy_mem_need(tun, &sample->all);
	__u64 units = units_short(&sample->all, needed, sample->unit);

	return in_steps(tun, units, sample->unit);
}

/* More units that the kernel can use for itself, and not more than its share. */
static __u32 kernel_up(const struct policy_tunables *tun, const struct policy_mem_sample *sample,
		       __u32 burst)
{
	__u64 needed = policy_kernel_need(tun, &sample->kernel);
	__u64 units = units_short(&sample->kernel, needed, sample->unit);
	__u64 most = (__u64)sample->usable * tun->kernel_max_percent / 100;

	if (units)
		units = max_u64(units, burst);
	return min_u64(in_steps(tun, units, sample->unit),
		       most > sample->used_kernel ? most - sample->used_kernel : 0);
}

/* Could so many bytes go from @room and leave what is needed, and a margin? */
static bool could_go(const struct policy_room *room, __u64 gone, __u64 margin,
		     __u64 (*needed)(const struct policy_tunables *tun,
				     const struct policy_room *room),
		     const struct policy_tunables *tun)
{
	struct policy_room rest = *room;

	if (gone > room->available || gone > room->total)
		return false;
	rest.total -= gone;
	return room->available - gone >= needed(tun, &rest) + margin;
}

/* The most units, up to @most, that could go from @room. */
static __u32 surplus(const struct policy_tunables *tun, const struct policy_room *room,
		     __u64 keep, __u64 unit, __u32 most,
		     __u64 (*needed)(const struct policy_tunables *tun,
				     const struct policy_room *room))
{
	__u64 margin = MIB(tun->mem_down_margin_mib) + keep +
		       room->rate / 1000 * tun->mem_down_delay_ms;
	__u32 low = 0, high = most;

	while (low < high) {
		__u32 mid = low + (high - low + 1) / 2;

		if (could_go(room, mid * unit, margin, needed, tun))
			low = mid;
		else
			high = mid - 1;
	}
	return low;
}

/*
 * A growth soon after a shrink: that was unwanted. Half of what came back is added to
 * the margin, as a credit that decays (Power's CMM does the like with what an OOM has
 * to give back).
 */
static void mem_regret(const struct policy_tunables *tun, struct policy_mem_state *state,
		       const struct policy_mem_sample *sample, __u64 grown)
{
	__u64 back = min_u64(state->shrunk, grown);

	if (!back || sample->now_ms - state->shrunk_at_ms > tun->mem_regret_ms)
		return;
	state->shrunk -= back;
	state->keep = min_u64(state->keep + back / 2, MIB(tun->mem_keep_max_mib));
	state->keep_at_ms = sample->now_ms;
}

static void mem_forget(const struct policy_tunables *tun, struct policy_mem_state *state,
		       const struct policy_mem_sample *sample)
{
	if (sample->now_ms - state->shrunk_at_ms > tun->mem_regret_ms)
		state->shrunk = 0;
	if (!state->keep || sample->now_ms - state->keep_at_ms < tun->mem_keep_decay_ms)
		return;
	state->keep = state->keep > sample->unit ? state->keep / 2 : 0;
	state->keep_at_ms = sample->now_ms;
}

/* Units that go now, and how many of them may be kernel memory. */
static __u32 mem_down(const struct policy_tunables *tun, struct policy_mem_state *state,
		      const struct policy_mem_sample *sample, __u32 *kernel)
{
	__u64 step = max_u64(MIB(tun->mem_down_step_mib) / sample->unit, 1);
	__u32 most = sample->used > sample->floor ? sample->used - sample->floor : 0;
	__u32 movable = sample->used - sample->used_kernel, n;

	n = surplus(tun, &sample->all, state->keep, sample->unit, most, policy_mem_need);
	*kernel = surplus(tun, &sample->kernel, 0, sample->unit, sample->used_kernel,
			  policy_kernel_need);
	n = min_u64(n, (__u64)movable + *kernel);
	if (!n) {
		state->surplus = false;
		return 0;
	}
	if (!state->surplus) {
		state->surplus = true;
		state->surplus_since_ms = sample->now_ms;
	}
	if (sample->now_ms - state->surplus_since_ms < tun->mem_down_delay_ms)
		return 0;
	return min_u64(n, step);
}

/**
 * policy_mem_shrunk() - memory was given up by own decision
 * @state: memory of the policy
 * @bytes: how much
 * @now_ms: the clock of the samples
 */
void policy_mem_shrunk(struct policy_mem_state *state, __u64 bytes, __u64 now_ms)
{
	state->shrunk += bytes;
	state->shrunk_at_ms = now_ms;
}

/**
 * policy_mem_wanted() - memory was wanted that was about to be given up
 * @state: memory of the policy
 *
 * What is in surplus has to be so for as long again, or giving it up would begin as often
 * as it is ended.
 */
void policy_mem_wanted(struct policy_mem_state *state)
{
	state->surplus = false;
}

static void mem_grow(const struct policy_tunables *tun, struct policy_mem_state *state,
		     const struct policy_mem_sample *sample, __u32 more, __u32 kernel,
		     struct policy_mem_want *want)
{
	__u32 room = sample->limit - sample->used;

	kernel = min_u64(kernel, room);
	more = min_u64(max_u64(more, kernel), room);
	/* When memory has run out, movable memory may not be what is missing. */
	if (sample->urgent)
		kernel = more;
	mem_regret(tun, state, sample, more * sample->unit);
	state->surplus = false;
	state->grown_at_ms = sample->now_ms;
	want->units = sample->used + more;
	want->kernel = sample->used_kernel + kernel;
}

/**
 * policy_mem() - memory wanted
 * @tun: tunables
 * @state: memory of the policy, zero at the start
 * @sample: what is known now
 * @want: units of the window to have, and how many at least as kernel memory
 *
 * The host's limit goes before everything else, also before the floor.
 */
void policy_mem(const struct policy_tunables *tun, struct policy_mem_state *state,
		const struct policy_mem_sample *sample, struct policy_mem_want *want)
{
	__u32 burst, more, kernel, n;

	mem_forget(tun, state, sample);
	want->units = sample->used;
	want->kernel = sample->used_kernel;
	if (sample->used > sample->limit) {
		want->units = sample->limit;
		want->kernel = 0;
		return;
	}
	burst = burst_units(tun, state, sample);
	more = max_u64(mem_up(tun, sample), burst);
	kernel = kernel_up(tun, sample, burst);
	if ((more || kernel) && sample->used < sample->limit) {
		mem_grow(tun, state, sample, more, kernel, want);
		return;
	}
	if (sample->used < sample->floor) {
		want->units = min_u64(sample->floor, sample->limit);
		return;
	}
	/* What is needed is no surplus, also where there is no more to be had. */
	if (more || kernel)
		state->surplus = false;
	if (!sample->period || more || kernel)
		return;
	n = mem_down(tun, state, sample, &kernel);
	want->units -= n;
	want->kernel -= min_u64(n, kernel);
}

/**
 * policy_warm_units() - units to keep added and withheld
 * @tun: tunables
 * @state: memory of the policy
 * @sample: what is known now
 * @zone: of which kind
 *
 * Each costs the guest its struct pages, 1/64 of it, and the host nothing more.
 *
 * Return: units; 0 if they could not be used, or were not for a long time.
 */
__u32 policy_warm_units(const struct policy_tunables *tun, const struct policy_mem_state *state,
			const struct policy_mem_sample *sample, enum policy_zone zone)
{
	__u32 mib = zone == POLICY_ZONE_KERNEL ? tun->mem_warm_kernel_mib : tun->mem_warm_mib;

	if (sample->used >= sample->limit)
		return 0;
	if (tun->mem_warm_idle_ms && sample->now_ms - state->grown_at_ms >= tun->mem_warm_idle_ms)
		return 0;
	return min_u64(MIB(mib) / sample->unit, sample->limit - sample->used);
}

/**
 * policy_zone() - where memory that is not asked for as kernel memory goes
 * @tun: tunables
 * @wanted: what the user set
 * @kernel: bytes that the kernel can use for itself
 * @movable: bytes in the movable zone
 * @more: bytes that come
 *
 * Page tables, the struct pages of further blocks and other kernel memory do
 * not fit into the movable zone: too much of it starves the kernel.
 *
 * Return: the zone.
 */
enum policy_zone policy_zone(const struct policy_tunables *tun, enum policy_zone wanted,
			     __u64 kernel, __u64 movable, __u64 more)
{
	if (wanted == POLICY_ZONE_KERNEL)
		return POLICY_ZONE_KERNEL;
	if (tun->movable_max_percent &&
	    movable + more > kernel / 100 * tun->movable_max_percent)
		return POLICY_ZONE_KERNEL;
	return POLICY_ZONE_MOVABLE;
}

/**
 * policy_retry_ms() - delay before something that failed is tried again
 * @tun: tunables
 * @last_ms: the delay before, 0 for the first failure
 *
 * Return: milliseconds; each time twice as many, up to a bound.
 */
__u32 policy_retry_ms(const struct policy_tunables *tun, __u32 last_ms)
{
	__u64 next = last_ms ? 2 * (__u64)last_ms : tun->mem_retry_ms;

	return min_u64(next, max_u64(tun->mem_retry_max_ms, tun->mem_retry_ms));
}
