// SPDX-License-Identifier: GPL-2.0
/*
 * Memory blocks into the kernel and out of it.
 *
 * A block is brought online with some of its units for the allocator and the others
 * withheld: their pages stay as the kernel made them for new memory, referenced once
 * and marked offline, so that nobody touches them (nor reads them through
 * /proc/kcore). The callback for that belongs to one owner at a time; it is ours only
 * while one of our blocks comes online, so that virtio-mem can live beside us.
 *
 * Our blocks come and go by us alone. Somebody who brought one online by hand would
 * use memory that is not granted, and taking one offline needs our references
 * dropped, so both are refused.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/ktime.h>
#include <linux/memory.h>
#include <linux/notifier.h>
#include <linux/sched.h>
#include <linux/sched/mm.h>
#include <linux/timer.h>

#include "compat/memory_hotplug.h"
#include "trace.h"
#include "window.h"

/* The block that the worker brings online now. */
static const struct block *onlining;
static bool have_callback;
/* New blocks hold their own struct pages, if their first unit is granted. */
static bool own_memmap;
/* Who unloads the module, and may take blocks offline. */
static struct task_struct *leaving;

/* Bytes that are isolated because their block is being taken offline, by enum policy_zone. */
static u64 isolated_bytes[2];

/**
 * mem_isolated_bytes() - free memory that is hidden from the kernel's counters
 * @zone: of which kind
 *
 * While a block is taken offline its free pages do not count as available, which
 * looks as if memory fell fast.
 */
u64 mem_isolated_bytes(enum policy_zone zone)
{
	return READ_ONCE(isolated_bytes[zone]);
}

/**
 * retry_later() - it failed: do not try it again for a while
 * @retry: of it
 */
void retry_later(struct retry *retry)
{
	retry->ms = policy_retry_ms(&elastic_config.tun, retry->ms);
	retry->at_ms = elastic_now_ms() + retry->ms;
}

/**
 * retry_waits() - is it not to be tried again yet?
 * @retry: of it
 */
bool retry_waits(const struct retry *retry)
{
	return retry->ms && elastic_now_ms() < retry->at_ms;
}

/**
 * block_holds_memmap() - do new blocks hold their own struct pages?
 */
bool block_holds_memmap(void)
{
	return own_memmap;
}

/* ---- pages of a block that comes online ---- */

static bool is_of(const struct block *block, unsigned long pfn)
{
	return block && pfn >= block_pfn(block) &&
	       pfn - block_pfn(block) < PHYS_PFN(mem_view.block_bytes);
}

static bool all_used(u32 index, u32 nr)
{
	while (nr--)
		if (window.map.state[index++] != UNIT_USED)
			return false;
	return true;
}

/* Called for each chunk of a block that comes online, whosever it is. */
static void online_chunk(struct page *page, unsigned int order)
{
	const struct block *block = READ_ONCE(onlining);
	unsigned long pfn = page_to_pfn(page);
	u32 index, nr = order > UNIT_ORDER ? 1U << (order - UNIT_ORDER) : 1;

	if (!is_of(block, pfn)) {
		generic_online_page(page, order);
		return;
	}
	index = units_index(&window.map, pfn >> UNIT_ORDER);
	if (all_used(index, nr)) {
		generic_online_page(page, order);
		return;
	}
	order = min_t(unsigned int, order, UNIT_ORDER);
	for (; nr; nr--, index++, page += UNIT_PAGES) {
		if (window.map.state[index] == UNIT_USED)
			generic_online_page(page, order);
		else
			compat_withhold_new_pages(page, 1UL << order);
	}
}

/*
 * While the worker waits for memory, a task that ran out of it waits for the worker, and
 * the kernel for that task: so it takes what there is, or fails.
 */
static unsigned int memalloc_flags;

/**
 * blocks_begin() - get ready to add blocks; blocks_end() follows
 * @zone: where they go
 * @whole: set if units cannot be withheld now: somebody else has the callback
 *
 * Context: worker; may sleep.
 *
 * Return: 0 or the error of the policy for new memory.
 */
int blocks_begin(enum policy_zone zone, bool *whole)
{
	int ret;

	memalloc_flags = memalloc_noreclaim_save();
	ret = auto_online_override(zone);
	if (ret) {
		memalloc_noreclaim_restore(memalloc_flags);
		return ret;
	}
	have_callback = !set_online_page_callback(online_chunk);
	*whole = !have_callback;
	return 0;
}

/**
 * blocks_end() - no more blocks for now
 */
void blocks_end(void)
{
	if (have_callback)
		restore_online_page_callback(online_chunk);
	have_callback = false;
	auto_online_restore();
	memalloc_noreclaim_restore(memalloc_flags);
}

static u32 first_index(const struct block *block)
{
	return (block - window.map.blocks) * window.map.per_block;
}

/* Is it where the block has its own struct pages? */
static bool is_memmap(const struct block *block, u32 index)
{
	return block->own_memmap && index == first_index(block);
}

/* Units of a block from one state into another; but its own struct pages stay. */
static void change_units(struct block *block, enum unit_state from, enum unit_state to)
{
	u32 i, index = first_index(block);

	for (i = index; i < index + window.map.per_block; i++)
		if (window.map.state[i] == from && !is_memmap(block, i))
			units_set(&window.map, i, 1, to);
}

/* It is out of the kernel: what is granted of it is to be released. */
static void left_kernel(struct block *block)
{
	block->state = BLOCK_ABSENT;
	block->own_memmap = false;
	change_units(block, UNIT_WARM, UNIT_ABSENT);
	change_units(block, UNIT_GUARD, UNIT_RELEASING);
	change_units(block, UNIT_USED, UNIT_RELEASING);
}

static int add_to_kernel(struct block *block)
{
	u64 start = block_start(block);
	int nid = compat_absent_memory_nid(start), ret;

	/* Only where its first unit is granted, and in use from now on. */
	block->own_memmap = own_memmap && window.map.state[first_index(block)] == UNIT_USED;
	ret = add_memory_driver_managed(nid, start, mem_view.block_bytes, window.name,
					block->own_memmap ? MHP_MEMMAP_ON_MEMORY : MHP_NONE);
	if (ret != -EINVAL || !block->own_memmap)
		return ret;
	block->own_memmap = false;
	return add_memory_driver_managed(nid, start, mem_view.block_bytes, window.name,
					 MHP_NONE);
}

/* In the same call it comes online, as auto_online_override() has it. */
static int add_absent(struct block *block)
{
	int ret;

	block->state = BLOCK_OFFLINE;
	change_units(block, UNIT_ABSENT, UNIT_WARM);
	WRITE_ONCE(onlining, block);
	ret = add_to_kernel(block);
	WRITE_ONCE(onlining, NULL);
	if (!ret) {
		window.name_used = true;
		return 0;
	}
	block->state = BLOCK_ABSENT;
	change_units(block, UNIT_WARM, UNIT_ABSENT);
	return ret;
}

/* It was left offline by a failure, or somebody else has changed that policy. */
static int bring_online(struct block *block)
{
	int ret;

	if (block_is_online(block))
		return 0;
	WRITE_ONCE(onlining, block);
	ret = online_block(block_start(block), block->zone);
	WRITE_ONCE(onlining, NULL);
	return ret;
}

static int add_and_online(struct block *block)
{
	u64 start = block_start(block);
	int ret = 0;

	if (block->state == BLOCK_ABSENT)
		ret = add_absent(block);
	if (ret)
		return ret;
	ret = bring_online(block);
	if (!ret) {
		block->state = BLOCK_ONLINE;
		block->zone = is_zone_movable_page(pfn_to_page(block_pfn(block))) ?
			      POLICY_ZONE_MOVABLE : POLICY_ZONE_KERNEL;
		return 0;
	}
	if (!compat_offline_and_remove_memory(compat_absent_memory_nid(start), start,
					      mem_view.block_bytes))
		block->state = BLOCK_ABSENT;
	else
		change_units(block, UNIT_USED, UNIT_RELEASING);
	return ret;
}

/**
 * block_add() - bring a block into the kernel
 * @block: absent, or left offline by a failure; its units that are to go to the
 *	allocator are granted and USED, other granted ones are GUARD; its zone is set
 *
 * Context: worker, between blocks_begin() and blocks_end(). Takes the device and
 * memory hotplug locks.
 *
 * Return: 0, or the kernel's error: its granted units are RELEASING then.
 */
int block_add(struct block *block)
{
	ktime_t begin = ktime_get();
	int ret;
	u64 us;

	pressure_quiet(true);
	ret = add_and_online(block);
	pressure_quiet(false);
	us = ktime_us_delta(ktime_get(), begin);
	trace_elastic_block_change(block_start(block), true, block->zone, ret, us);
	if (ret) {
		pr_warn_ratelimited("memory block at %#llx cannot be used: %d\n",
				    block_start(block), ret);
		stat_inc(STAT_BLOCK_ADD_FAILURES);
		if (block->state == BLOCK_ABSENT)
			left_kernel(block);
		retry_later(&block->retry);
		return ret;
	}
	block->retry.ms = 0;
	stat_inc(STAT_BLOCKS_ADDED);
	stat_set(STAT_BLOCK_ADD_LAST_US, us);
	return 0;
}

/* ---- out ---- */

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
static int remove_bounded(const struct block *block, unsigned long deadline)
{
	u64 start = block_start(block);
	struct timer_list timer;
	int ret;

	timer_setup_on_stack(&timer, offline_timeout, 0);
	mod_timer(&timer, deadline);
	worker_removing(true);
	pressure_quiet(true);
	/* Offlining gives every CPU work: no reason for more CPUs. */
	sched_quiet(true, 0);
	WRITE_ONCE(isolated_bytes[block->zone], block_is_empty(block) ? 0 : block->free);
	ret = compat_offline_and_remove_memory(compat_absent_memory_nid(start), start,
					       mem_view.block_bytes);
	WRITE_ONCE(isolated_bytes[block->zone], 0);
	sched_quiet(false, 0);
	pressure_quiet(false);
	timer_delete_sync(&timer);
	destroy_timer_on_stack(&timer);
	worker_removing(false);
	return ret;
}

/**
 * block_remove() - take a block out of the kernel
 * @block: online, or offline
 * @deadline: in jiffies; then it is given up
 *
 * Context: worker. Takes the device and memory hotplug locks.
 *
 * Return: 0: its granted units are RELEASING; or the kernel's error: it is as it was
 * before, or offline at least.
 */
int block_remove(struct block *block, unsigned long deadline)
{
	ktime_t begin = ktime_get();
	int ret = remove_bounded(block, deadline);
	u64 us = ktime_us_delta(ktime_get(), begin);

	trace_elastic_block_change(block_start(block), false, block->zone, ret, us);
	if (ret && block_is_online(block)) {
		sense_mem_came();
		count_offline_failure(ret);
		/* It was we who ended it, for something urgent: not the block's fault. */
		if (ret != -EINTR || !worker_urgent())
			retry_later(&block->retry);
		return ret;
	}
	if (ret) {
		/* It is empty, and could not be removed. */
		block->state = BLOCK_OFFLINE;
		change_units(block, UNIT_USED, UNIT_RELEASING);
		retry_later(&block->retry);
		return ret;
	}
	left_kernel(block);
	block->retry.ms = 0;
	stat_inc(STAT_BLOCKS_REMOVED);
	stat_set(STAT_BLOCK_REMOVE_LAST_US, us);
	return 0;
}

/* ---- what the kernel says of blocks ---- */

/* Drop our references to withheld pages, or take them again. */
static void withheld_go(const struct block *block, bool go)
{
	u32 i, index = first_index(block);

	for (i = index; i < index + window.map.per_block; i++)
		if (window.map.state[i] != UNIT_USED)
			compat_withheld_go(pfn_to_page(unit_pfn(i)), UNIT_PAGES, go);
}

static int memory_event(struct notifier_block *nb, unsigned long action, void *arg)
{
	/* Whose references are dropped; under the memory hotplug lock. */
	static const struct block *going;
	const struct memory_notify *what = arg;
	u32 index = units_index(&window.map, what->start_pfn >> UNIT_ORDER);
	const struct block *block;

	if (index == UNIT_NONE)
		return NOTIFY_DONE;
	block = units_block(&window.map, index);
	switch (action) {
	case MEM_GOING_ONLINE:
		/* Also not by the kernel's own hand, when adding or a rollback does it. */
		if (!worker_is_current() || READ_ONCE(onlining) != block)
			return notifier_from_errno(-EPERM);
		break;
	case MEM_GOING_OFFLINE:
		if (!worker_is_current() && current != READ_ONCE(leaving))
			return notifier_from_errno(-EPERM);
		withheld_go(block, true);
		going = block;
		break;
	case MEM_CANCEL_OFFLINE:
		if (going == block)
			withheld_go(block, false);
		fallthrough;
	case MEM_OFFLINE:
		going = NULL;
	}
	return NOTIFY_OK;
}

static struct notifier_block memory_notifier = {
	.notifier_call = memory_event,
};

/**
 * blocks_start() - blocks come and go by the worker alone from now on
 *
 * Return: 0 or an error.
 */
int blocks_start(void)
{
	WRITE_ONCE(leaving, NULL);
	/* In larger blocks, more than one unit would be taken up by that. */
	own_memmap = blocks_hold_memmap() && mem_view.block_bytes == SZ_128M;
	return register_memory_notifier(&memory_notifier);
}

/**
 * blocks_stop() - leave the blocks to whoever comes
 *
 * What is not in use goes: nobody could tell any more that it is not granted.
 *
 * Context: process; the worker is gone.
 */
void blocks_stop(void)
{
	u32 b;

	WRITE_ONCE(leaving, current);
	for (b = 0; b < window.map.nr_blocks; b++) {
		struct block *block = &window.map.blocks[b];
		u64 start = block_start(block);
		int ret;

		if (block->state == BLOCK_ABSENT || !block_is_empty(block))
			continue;
		ret = compat_offline_and_remove_memory(compat_absent_memory_nid(start), start,
						       mem_view.block_bytes);
		if (ret)
			pr_warn("memory block at %#llx stays: %d; do not bring it online\n",
				start, ret);
		else
			left_kernel(block);
	}
	unregister_memory_notifier(&memory_notifier);
}
