// SPDX-License-Identifier: GPL-2.0
/*
 * Memory blocks in and out.
 *
 * Up: ask, add, bring online. Down: take offline and remove, then release. The
 * worker alone changes the state of blocks.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/ktime.h>
#include <linux/mm.h>
#include <linux/sched/mm.h>
#include <linux/sort.h>
#include <linux/timer.h>

#include "compat/memory_hotplug.h"
#include "trace.h"
#include "window.h"

/* Blocks that are released in one batch. */
#define BATCH	64

/* Bytes that are isolated because their block is being taken offline. */
static u64 isolated_bytes;

/**
 * mem_units() - units in use: of boot memory and of the window
 */
u64 mem_units(void)
{
	return mem_view.boot_units + READ_ONCE(mem_view.blocks) * mem_block_units();
}

/**
 * mem_isolated_bytes() - free memory that is hidden from the kernel's counters
 *
 * While a block is taken offline its free pages do not count as available, which
 * looks as if memory fell fast.
 */
u64 mem_isolated_bytes(void)
{
	return READ_ONCE(isolated_bytes);
}

/* ---- up ---- */

static void block_failed(struct block *block)
{
	block->retry_ms = policy_retry_ms(&elastic_config.tun, block->retry_ms);
	block->retry_at_ms = elastic_now_ms() + block->retry_ms;
}

static bool block_waits(const struct block *block)
{
	return block->retry_ms && elastic_now_ms() < block->retry_at_ms;
}

static int bring_online(struct block *block, bool urgent)
{
	u64 start = block->first << ELASTIC_UNIT_SHIFT;
	u64 movable = mem_view.movable_blocks * mem_view.block_bytes;
	u64 kernel = mem_units() * ELASTIC_UNIT_SIZE - movable;
	enum policy_zone zone;
	int ret;

	zone = policy_zone(&elastic_config.tun, READ_ONCE(elastic_config.zone), kernel, movable,
			   mem_view.block_bytes, urgent);
	ret = online_block(start, zone);
	/* Somebody was faster: a udev rule, say. */
	if (ret && block_is_online(block))
		ret = 0;
	if (ret)
		return ret;
	block->state = BLOCK_ONLINE;
	block->zone = zone;
	return 0;
}

static int add_one(struct block *block, bool urgent)
{
	u64 start = block->first << ELASTIC_UNIT_SHIFT;
	ktime_t begin = ktime_get();
	int ret = 0;
	u64 us;

	pressure_quiet(true);
	if (block->state == BLOCK_GRANTED)
		ret = add_memory_driver_managed(compat_absent_memory_nid(start), start,
						mem_view.block_bytes, window.name, MHP_NONE);
	if (!ret) {
		window.name_used = true;
		block->state = BLOCK_ADDED;
		ret = bring_online(block, urgent);
	}
	pressure_quiet(false);
	us = ktime_us_delta(ktime_get(), begin);
	trace_elastic_block_change(start, true, block->zone, ret, us);
	if (ret) {
		pr_warn_ratelimited("memory block at %#llx cannot be used: %d\n", start, ret);
		stat_inc(STAT_BLOCK_ADD_FAILURES);
		block_failed(block);
		return ret;
	}
	block->retry_ms = 0;
	stat_inc(STAT_BLOCKS_ADDED);
	stat_set(STAT_BLOCK_ADD_LAST_US, us);
	window_count();
	return 0;
}

/*
 * When memory has run out, the worker may not wait for memory: the task that
 * ran out waits for the worker.
 */
static int add_some(u32 from, u32 to, bool urgent)
{
	unsigned int flags = 0;
	char saved[AUTO_ONLINE_LEN];
	int ret, err;

	if (urgent)
		flags = memalloc_noreclaim_save();
	ret = auto_online_override(saved);
	if (ret)
		goto out;
	for (; from < to; from++) {
		err = add_one(&window.blocks[from], urgent);
		if (err)
			ret = err;
	}
	auto_online_restore(saved);
out:
	if (urgent)
		memalloc_noreclaim_restore(flags);
	return ret;
}

/* The first run of usable absent blocks from *from on, at most @max long. */
static u32 absent_run(u32 *from, u32 max)
{
	u64 units = mem_block_units();
	u32 i, n = 0;

	for (i = *from; i < window.nr_blocks && n < max; i++) {
		const struct block *block = &window.blocks[i];

		/* GRANTED may be wrong: what is asked for is never touched unasked. */
		if (block->state > BLOCK_GRANTED || block_waits(block)) {
			if (n)
				break;
			continue;
		}
		if (n && block->first != window.blocks[i - 1].first + units)
			break;
		if (!n)
			*from = i;
		n++;
	}
	return n;
}

/* Give up a block that is granted and not in the kernel. */
static int release_block(struct block *block)
{
	struct elastic_range range = { block->first, mem_block_units() };
	int ret;

	/* Before, so that a HELLO in between gives it up, too. */
	block->state = BLOCK_ABSENT;
	ret = session_release_units(&range, 1);
	if (ret == -EINVAL)	/* it was not granted */
		return 0;
	if (ret)
		block->state = BLOCK_GRANTED;
	return ret;
}

/* A block is whole or of no use: give back what does not make one. */
static void release_granted(u32 from, u32 to, u64 tail)
{
	struct elastic_range range;
	u32 i;

	for (i = from; i < to; i++)
		if (window.blocks[i].state == BLOCK_GRANTED)
			release_block(&window.blocks[i]);
	if (tail) {
		range.first = window.blocks[to - 1].first + mem_block_units();
		range.nr = tail;
		session_release_units(&range, 1);
	}
}

/* Ask for blocks [from, from + nr) and use what is granted. */
static int grow_run(u32 from, u32 nr, bool urgent)
{
	u64 units = mem_block_units(), granted, tail;
	u32 i, to;
	int ret, err;

	ret = session_request_units(window.blocks[from].first, nr * units, &granted);
	to = from + granted / units;
	tail = granted % units;
	for (i = from; i < to; i++)
		window.blocks[i].state = BLOCK_GRANTED;
	if (to == from && tail) {
		struct elastic_range range = { window.blocks[from].first, tail };

		session_release_units(&range, 1);
		return ret;
	}
	err = to > from ? add_some(from, to, urgent) : 0;
	release_granted(from, to, tail);
	return ret ?: err;
}

/* Blocks that are added and offline cost no request. */
static int grow_added(u32 want, bool urgent)
{
	int ret = 0, err;
	u32 i;

	for (i = 0; i < window.nr_blocks && mem_view.blocks < want; i++) {
		if (window.blocks[i].state != BLOCK_ADDED || block_waits(&window.blocks[i]))
			continue;
		err = add_one(&window.blocks[i], urgent);
		if (err)
			ret = err;
	}
	return ret;
}

static int mem_grow(u32 want, bool urgent)
{
	u32 from = 0, nr;
	int ret = grow_added(want, urgent);

	while (mem_view.blocks < want) {
		nr = absent_run(&from, min_t(u64, want - mem_view.blocks,
					     ELASTIC_RANGE_NR_MAX / mem_block_units()));
		if (!nr)
			break;
		ret = grow_run(from, nr, urgent);
		if (ret)
			break;
		from += nr;
	}
	if (mem_view.blocks >= want)
		return 0;
	return ret ?: -EBUSY;
}

/* ---- down ---- */

/*
 * Free bytes of an online block. Read without the zone's lock: a wrong guess
 * costs a slower removal. Buddies are aligned, so a step never leaves the block
 * unless the guess was wrong.
 */
static u64 free_bytes(const struct block *block)
{
	unsigned long pfn = PHYS_PFN(block->first << ELASTIC_UNIT_SHIFT);
	unsigned long end = pfn + PHYS_PFN(mem_view.block_bytes);
	u64 free = 0;

	while (pfn < end) {
		struct page *page = pfn_to_page(pfn);
		unsigned long order = PageBuddy(page) ? READ_ONCE(page->private) : 0;

		if (PageBuddy(page) && order <= ilog2(PHYS_PFN(SZ_4M)))
			free += PAGE_SIZE << order;
		else
			order = 0;
		pfn += 1UL << order;
	}
	return free;
}

static void count_offline_failure(int err)
{
	switch (err) {
	case -EBUSY:
		stat_inc(STAT_OFFLINE_EBUSY);
		break;
	case -EINTR:
		stat_inc(STAT_OFFLINE_EINTR);
		break;
	case -ENOMEM:
		stat_inc(STAT_OFFLINE_ENOMEM);
		break;
	default:
		stat_inc(STAT_OFFLINE_OTHER);
	}
}

static void offline_timeout(struct timer_list *timer)
{
	worker_interrupt();
}

/*
 * Offlining tries as long as pages can be moved "soon", which may be never. A
 * signal ends it: after a time, or when there is something urgent to do.
 */
static int remove_bounded(const struct block *block)
{
	u64 start = block->first << ELASTIC_UNIT_SHIFT;
	struct timer_list timer;
	int ret;

	timer_setup_on_stack(&timer, offline_timeout, 0);
	mod_timer(&timer, jiffies + msecs_to_jiffies(elastic_config.tun.mem_offline_timeout_ms));
	worker_removing(true);
	pressure_quiet(true);
	/* Offlining gives every CPU work: no reason for more CPUs. */
	sched_quiet(true, 0);
	WRITE_ONCE(isolated_bytes, block->free);
	ret = compat_offline_and_remove_memory(compat_absent_memory_nid(start), start,
					       mem_view.block_bytes);
	WRITE_ONCE(isolated_bytes, 0);
	sched_quiet(false, 0);
	pressure_quiet(false);
	timer_delete_sync(&timer);
	destroy_timer_on_stack(&timer);
	worker_removing(false);
	return ret;
}

static int remove_one(struct block *block)
{
	ktime_t begin = ktime_get();
	int ret = remove_bounded(block);
	u64 us = ktime_us_delta(ktime_get(), begin);

	trace_elastic_block_change(block->first << ELASTIC_UNIT_SHIFT, false, block->zone, ret, us);
	if (ret) {
		count_offline_failure(ret);
		/* It was we who ended it, for something urgent: not the block's fault. */
		if (ret != -EINTR || !worker_urgent())
			block_failed(block);
		return ret;
	}
	block->state = BLOCK_ABSENT;
	block->retry_ms = 0;
	stat_inc(STAT_BLOCKS_REMOVED);
	stat_set(STAT_BLOCK_REMOVE_LAST_US, us);
	window_count();
	return 0;
}

/* Emptiest first; among equals the highest address. */
static int compare_blocks(const void *a, const void *b)
{
	const struct block *x = &window.blocks[*(const u32 *)a];
	const struct block *y = &window.blocks[*(const u32 *)b];

	if (x->free != y->free)
		return x->free > y->free ? -1 : 1;
	return x->first > y->first ? -1 : 1;
}

/* Fill window.order with the blocks that may go, in the order to try. */
static u32 choose_blocks(void)
{
	struct block *block;
	u32 i, n = 0;

	for (i = 0; i < window.nr_blocks; i++) {
		block = &window.blocks[i];
		if (block->state < BLOCK_ADDED || block_waits(block))
			continue;
		block->free = mem_view.block_bytes;
		if (block->state == BLOCK_ONLINE)
			block->free = free_bytes(block);
		window.order[n++] = i;
		cond_resched();
	}
	sort(window.order, n, sizeof(*window.order), compare_blocks, NULL);
	return n;
}

static int compare_ranges(const void *a, const void *b)
{
	const struct elastic_range *x = a, *y = b;

	return x->first < y->first ? -1 : x->first > y->first;
}

/* Blocks that could not be released: mem_release_stray() tries again. */
static void release_failed(const struct elastic_range *ranges, u32 nr)
{
	u64 unit;
	u32 i;

	for (i = 0; i < nr; i++)
		for (unit = ranges[i].first; unit < ranges[i].first + ranges[i].nr;
		     unit += mem_block_units())
			window.blocks[window_block_at(unit)].state = BLOCK_GRANTED;
}

/* Release blocks in one batch, in ascending order. */
static int release_batch(struct elastic_range *ranges, u32 nr)
{
	u32 i, n = 0;
	int ret;

	if (!nr)
		return 0;
	sort(ranges, nr, sizeof(*ranges), compare_ranges, NULL);
	for (i = 1; i < nr; i++) {
		if (ranges[n].first + ranges[n].nr == ranges[i].first)
			ranges[n].nr += ranges[i].nr;
		else
			ranges[++n] = ranges[i];
	}
	ret = session_release_units(ranges, n + 1);
	if (ret)
		release_failed(ranges, n + 1);
	return ret;
}

static int mem_shrink(u32 want)
{
	static struct elastic_range batch[BATCH];
	u32 i, n = choose_blocks(), nr = 0;
	int ret = 0, err;

	for (i = 0; i < n && mem_view.blocks > want && !worker_urgent(); i++) {
		struct block *block = &window.blocks[window.order[i]];

		err = remove_one(block);
		if (err) {
			ret = err;
			continue;
		}
		batch[nr++] = (struct elastic_range){ block->first, mem_block_units() };
		if (nr < BATCH)
			continue;
		release_batch(batch, nr);
		nr = 0;
	}
	err = release_batch(batch, nr);
	if (mem_view.blocks <= want)
		return err;
	return ret ?: -EBUSY;
}

/**
 * mem_release_stray() - give up what is granted and not in the kernel
 *
 * An earlier release failed.
 */
void mem_release_stray(void)
{
	u32 i;

	for (i = 0; i < window.nr_blocks; i++)
		if (window.blocks[i].state == BLOCK_GRANTED && release_block(&window.blocks[i]))
			break;
}

/**
 * mem_set() - have this many blocks of the window in use
 * @want: blocks
 * @urgent: memory has run out: do not wait for memory, and bring the new blocks
 *	online for the kernel
 *
 * Context: worker. Takes the device and memory hotplug locks. May be ended early
 * by something urgent on the way down.
 *
 * Return: 0; -EAGAIN or -ENOSPC if the host granted fewer (what it granted is in
 * use); -EBUSY if there is no block that is not waiting after a failure; the
 * error of adding or removing a block.
 */
int mem_set(u32 want, bool urgent)
{
	if (want > mem_view.blocks)
		return mem_grow(want, urgent);
	if (want < mem_view.blocks)
		return mem_shrink(want);
	return 0;
}

/**
 * mem_refresh() - see what others did to our blocks
 *
 * An administrator may have taken one offline or brought it online.
 */
void mem_refresh(void)
{
	u32 i;

	for (i = 0; i < window.nr_blocks; i++) {
		struct block *block = &window.blocks[i];

		if (block->state >= BLOCK_ADDED)
			block->state = block_is_online(block) ? BLOCK_ONLINE : BLOCK_ADDED;
	}
	window_count();
}
