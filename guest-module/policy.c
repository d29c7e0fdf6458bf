// SPDX-License-Identifier: GPL-2.0
/*
 * The guest's policy: how many CPUs and memory blocks it should have.
 *
 * Up quickly, because a shortage hurts at once; down slowly, because what was
 * given up may not come back. See policy.h for what goes in and out.
 */
#include "policy.h"

#define MIB(n)	((__u64)(n) << 20)

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
	.mem_lookahead_ms	= 300,
	.mem_up_step_mib	= 1024,
	.mem_down_margin_mib	= 64,
	.mem_down_delay_ms	= 5000,
	.mem_down_step_mib	= 512,
	.mem_regret_ms		= 30000,
	.mem_keep_max_mib	= 1024,
	.mem_keep_decay_ms	= 60000,
	.mem_offline_timeout_ms	= 1000,
	.mem_retry_ms		= 5000,
	.mem_retry_max_ms	= 300000,
	.movable_max_percent	= 1600,
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

/**
 * policy_mem_need() - memory that should be available
 * @tun: tunables
 * @total: memory that the kernel manages, in bytes
 * @rate: bytes a second by which available memory falls
 *
 * Return: bytes.
 */
__u64 policy_mem_need(const struct policy_tunables *tun, __u64 total, __u64 rate)
{
	__u64 reserve = max_u64(MIB(tun->mem_reserve_mib),
				total / 1000 * tun->mem_reserve_permille);

	return reserve + rate / 1000 * tun->mem_lookahead_ms;
}

/**
 * policy_mem_up() - blocks to add
 * @tun: tunables
 * @sample: what is known now
 *
 * Return: how many blocks more than there are, at most up to the limit.
 */
__u32 policy_mem_up(const struct policy_tunables *tun, const struct policy_mem_sample *sample)
{
	__u64 need = policy_mem_need(tun, sample->total, sample->rate);
	__u64 blocks = 0;

	if (sample->blocks >= sample->limit)
		return 0;
	if (sample->available < need)
		blocks = div_up(need - sample->available, sample->block);
	/* What the rate hides: reclaim means that it was already late. */
	if (sample->urgent || (sample->reclaims && sample->available < 2 * need))
		blocks = max_u64(blocks, 1);
	blocks = min_u64(blocks, div_up(MIB(tun->mem_up_step_mib), sample->block));
	return min_u64(blocks, sample->limit - sample->blocks);
}

/* Blocks that could go without missing them soon, as long as memory falls. */
static __u32 mem_surplus(const struct policy_tunables *tun, __u64 keep,
			 const struct policy_mem_sample *sample)
{
	__u64 margin = MIB(tun->mem_down_margin_mib) + keep +
		       sample->rate / 1000 * tun->mem_down_delay_ms;
	__u32 most = sample->blocks > sample->floor ? sample->blocks - sample->floor : 0;
	__u32 n;

	for (n = 0; n < most; n++) {
		__u64 gone = (n + 1) * sample->block;

		if (gone > sample->available || gone > sample->total)
			break;
		if (sample->available - gone <
		    policy_mem_need(tun, sample->total - gone, sample->rate) + margin)
			break;
	}
	return n;
}

/* An unwanted shrink makes the next one need more margin. */
static void mem_regret(const struct policy_tunables *tun, struct policy_mem_state *state,
		       const struct policy_mem_sample *sample)
{
	if (!state->shrunk || sample->now_ms - state->shrunk_at_ms > tun->mem_regret_ms)
		return;
	state->shrunk = false;
	state->keep = min_u64(max_u64(2 * state->keep, sample->block),
			      MIB(tun->mem_keep_max_mib));
	state->keep_at_ms = sample->now_ms;
}

static void mem_forget(const struct policy_tunables *tun, struct policy_mem_state *state,
		       const struct policy_mem_sample *sample)
{
	if (!state->keep || sample->now_ms - state->keep_at_ms < tun->mem_keep_decay_ms)
		return;
	state->keep = state->keep > sample->block ? state->keep / 2 : 0;
	state->keep_at_ms = sample->now_ms;
}

static __u32 mem_down(const struct policy_tunables *tun, struct policy_mem_state *state,
		      const struct policy_mem_sample *sample)
{
	__u64 step = max_u64(MIB(tun->mem_down_step_mib) / sample->block, 1);
	__u32 n = mem_surplus(tun, state->keep, sample);

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
	state->shrunk = true;
	state->shrunk_at_ms = sample->now_ms;
	return min_u64(n, step);
}

/**
 * policy_mem() - memory wanted
 * @tun: tunables
 * @state: memory of the policy, zero at the start
 * @sample: what is known now
 *
 * Return: the number of blocks to have. The host's limit goes before everything
 * else, also before the floor.
 */
__u32 policy_mem(const struct policy_tunables *tun, struct policy_mem_state *state,
		 const struct policy_mem_sample *sample)
{
	__u32 more;

	mem_forget(tun, state, sample);
	if (sample->blocks > sample->limit)
		return sample->limit;
	more = policy_mem_up(tun, sample);
	if (more) {
		mem_regret(tun, state, sample);
		state->surplus = false;
		return sample->blocks + more;
	}
	if (sample->blocks < sample->floor)
		return min_u64(sample->floor, sample->limit);
	if (!sample->period)
		return sample->blocks;
	return sample->blocks - mem_down(tun, state, sample);
}

/**
 * policy_zone() - where the next block goes
 * @tun: tunables
 * @wanted: what the user set
 * @kernel: bytes that the kernel can use for itself
 * @movable: bytes in the movable zone
 * @block: bytes of a block
 * @urgent: memory has run out
 *
 * Page tables, the struct pages of further blocks and other kernel memory do
 * not fit into the movable zone: too much of it starves the kernel, and when
 * memory has run out, movable memory may not be what is missing.
 *
 * Return: the zone.
 */
enum policy_zone policy_zone(const struct policy_tunables *tun, enum policy_zone wanted,
			     __u64 kernel, __u64 movable, __u64 block, bool urgent)
{
	if (wanted == POLICY_ZONE_KERNEL || urgent)
		return POLICY_ZONE_KERNEL;
	if (tun->movable_max_percent &&
	    movable + block > kernel / 100 * tun->movable_max_percent)
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
