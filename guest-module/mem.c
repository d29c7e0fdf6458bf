// SPDX-License-Identifier: GPL-2.0
/*
 * Memory blocks in and out.
 *
 * The window is what the firmware's map calls RAM and the kernel did not get at
 * boot (mem=). Of its units, those that make up whole memory blocks can be used;
 * the rest stays absent. Up: ask, add, bring online. Down: take offline and
 * remove, then release. The worker alone changes what this file keeps.
 *
 * Blocks that an earlier life of the module added are recognised by what they
 * are: driver-managed System RAM at the top of the resource tree, inside the
 * firmware's RAM. dax/kmem and virtio-mem put theirs below a resource of their
 * own.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/fs.h>
#include <linux/ioport.h>
#include <linux/limits.h>
#include <linux/mm.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/sort.h>
#include <asm/e820/api.h>
#include <asm/processor.h>

#include "compat/memory_hotplug.h"
#include "elastic_guest.h"
#include "trace.h"

#define RESOURCE_NAME	"System RAM (kvm_elastic)"
#define SYSFS_MEMORY	"/sys/devices/system/memory"

/* Step of the search for holes that no entry of the firmware's map describes. */
#define HOLE_STEP	SZ_64K

/* Blocks that are released in one batch. */
#define BATCH	64

/* restart_syscall() in a sysfs store: somebody else holds the hotplug lock. */
#define LOCK_TRIES	2000

/**
 * enum block_state - of a memory block of the window
 * @BLOCK_ABSENT: not in the kernel, and not granted as far as known
 * @BLOCK_GRANTED: granted, not in the kernel; if it stays so, a release failed
 * @BLOCK_ADDED: in the kernel, offline
 * @BLOCK_ONLINE: in use
 */
enum block_state {
	BLOCK_ABSENT,
	BLOCK_GRANTED,
	BLOCK_ADDED,
	BLOCK_ONLINE,
};

/**
 * struct block - a memory block that lies in the window from end to end
 * @first: number of its first unit
 * @state: of it
 * @zone: where it was brought online
 * @retry_ms: delay after the last failure, 0 if there was none
 * @retry_at_ms: not to be tried before
 * @free: bytes of it that are free, when somebody asked last
 */
struct block {
	u64 first;
	enum block_state state;
	enum policy_zone zone;
	u32 retry_ms;
	u64 retry_at_ms;
	u64 free;
};

/**
 * struct window - the memory that the kernel did not get at boot
 * @ranges: its units, ascending
 * @nr_ranges: how many ranges
 * @max_ranges: how many there is room for
 * @blocks: its whole blocks, ascending
 * @order: their indices, for sorting
 * @nr_blocks: how many
 * @name: of our memory in the resource tree, which keeps the pointer
 * @name_used: it does, so the string outlives the module
 */
struct window {
	struct elastic_range *ranges;
	u32 nr_ranges;
	u32 max_ranges;
	struct block *blocks;
	u32 *order;
	u32 nr_blocks;
	char *name;
	bool name_used;
};

static struct window window;
struct mem_view mem_view;

/* Bytes that are isolated because their block is being taken offline. */
static u64 isolated_bytes;

/* ---- the window ---- */

static bool other_type_in(u64 start, u64 end)
{
	static const enum e820_type types[] = {
		E820_TYPE_RESERVED, E820_TYPE_ACPI, E820_TYPE_NVS, E820_TYPE_UNUSABLE,
		E820_TYPE_PMEM, E820_TYPE_PRAM, E820_TYPE_SOFT_RESERVED,
		E820_TYPE_RESERVED_KERN,
	};
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(types); i++)
		if (e820__mapped_raw_any(start, end, types[i]))
			return true;
	return false;
}

static bool ram_in(u64 start, u64 end)
{
	return e820__mapped_raw_any(start, end, E820_TYPE_RAM);
}

/* Only "is there any" can be asked, so look for what is not. */
static bool ram_end_to_end(u64 start, u64 end)
{
	u64 at;

	if (!ram_in(start, end) || other_type_in(start, end))
		return false;
	for (at = start; at < end; at += HOLE_STEP)
		if (!ram_in(at, at + 1) || !ram_in(at + HOLE_STEP - 1, at + HOLE_STEP))
			return false;
	return true;
}

static bool in_use(u64 start, u64 size)
{
	return region_intersects(start, size, IORESOURCE_MEM, IORES_DESC_NONE) !=
	       REGION_DISJOINT;
}

static int is_top_level(struct resource *res, void *arg)
{
	struct resource *found = arg;

	if (res->parent != &iomem_resource)
		return 0;
	*found = *res;
	return 1;
}

/* Did an earlier life of this module add it? */
static bool driver_managed(u64 start, u64 size)
{
	struct resource found = {};

	walk_iomem_res_desc(IORES_DESC_NONE,
			    IORESOURCE_SYSTEM_RAM | IORESOURCE_SYSRAM_DRIVER_MANAGED,
			    start, start + size - 1, &found, is_top_level);
	return found.start == start && found.end == start + size - 1;
}

/* A unit is part of the window if the kernel did not get it at boot. */
static bool unit_in_window(u64 unit)
{
	u64 start = unit << ELASTIC_UNIT_SHIFT;

	if (!ram_end_to_end(start, start + ELASTIC_UNIT_SIZE))
		return false;
	return !in_use(start, ELASTIC_UNIT_SIZE) || driver_managed(start, ELASTIC_UNIT_SIZE);
}

static int window_append(u64 unit)
{
	struct elastic_range *last = window.ranges + window.nr_ranges - 1;
	struct elastic_range *more;
	u32 max;

	if (window.nr_ranges && last->first + last->nr == unit) {
		last->nr++;
		return 0;
	}
	if (window.nr_ranges == window.max_ranges) {
		max = window.max_ranges ? 2 * window.max_ranges : 16;
		more = kvcalloc(max, sizeof(*more), GFP_KERNEL);
		if (!more)
			return -ENOMEM;
		if (window.nr_ranges)
			memcpy(more, window.ranges, window.nr_ranges * sizeof(*more));
		kvfree(window.ranges);
		window.ranges = more;
		window.max_ranges = max;
	}
	window.ranges[window.nr_ranges++] = (struct elastic_range){ .first = unit, .nr = 1 };
	return 0;
}

static void count_boot_unit(u64 unit)
{
	if (region_intersects(unit << ELASTIC_UNIT_SHIFT, ELASTIC_UNIT_SIZE,
			      IORESOURCE_SYSTEM_RAM, IORES_DESC_NONE) != REGION_DISJOINT)
		mem_view.boot_units++;
}

/*
 * Look at [first, first + nr), a power of two of units. Halve it as long as
 * there is any RAM in it: the address space is large and mostly empty.
 */
static int scan(u64 first, u64 nr)
{
	u64 start = first << ELASTIC_UNIT_SHIFT;
	u64 end = (first + nr) << ELASTIC_UNIT_SHIFT;
	int ret;

	if (!ram_in(start, end))
		return 0;
	cond_resched();
	if (nr > 1) {
		ret = scan(first, nr / 2);
		return ret ?: scan(first + nr / 2, nr / 2);
	}
	if (unit_in_window(first)) {
		mem_view.window_units++;
		return window_append(first);
	}
	count_boot_unit(first);
	return 0;
}

/* Call @found for every whole block of the window; return how many. */
static u32 walk_whole_blocks(void (*found)(u32 index, u64 first))
{
	u64 units = mem_block_units(), first, end;
	u32 i, n = 0;

	for (i = 0; i < window.nr_ranges; i++) {
		end = window.ranges[i].first + window.ranges[i].nr;
		first = DIV_ROUND_UP(window.ranges[i].first, units) * units;
		for (; first + units <= end; first += units) {
			if (found)
				found(n, first);
			n++;
		}
	}
	return n;
}

static bool is_online(u64 first)
{
	return pfn_to_online_page(PHYS_PFN(first << ELASTIC_UNIT_SHIFT));
}

static void adopt(u32 index, u64 first)
{
	struct block *block = &window.blocks[index];
	u64 start = first << ELASTIC_UNIT_SHIFT;

	block->first = first;
	if (!driver_managed(start, mem_view.block_bytes))
		return;
	block->state = BLOCK_ADDED;
	if (!is_online(first))
		return;
	block->state = BLOCK_ONLINE;
	block->zone = is_zone_movable_page(pfn_to_page(PHYS_PFN(start))) ?
		      POLICY_ZONE_MOVABLE : POLICY_ZONE_KERNEL;
}

static void update_view(void)
{
	u32 i, blocks = 0, movable = 0;

	for (i = 0; i < window.nr_blocks; i++) {
		if (window.blocks[i].state != BLOCK_ONLINE)
			continue;
		blocks++;
		movable += window.blocks[i].zone == POLICY_ZONE_MOVABLE;
	}
	WRITE_ONCE(mem_view.blocks, blocks);
	WRITE_ONCE(mem_view.movable_blocks, movable);
}

/**
 * mem_find() - find the window and what of it is in use already
 *
 * Return: 0 or -ENOMEM.
 */
int mem_find(void)
{
	u64 all = 1ULL << (boot_cpu_data.x86_phys_bits - ELASTIC_UNIT_SHIFT);
	int ret;

	mem_view.block_bytes = memory_block_size_bytes();
	window.name_used = false;
	window.name = kstrdup(RESOURCE_NAME, GFP_KERNEL);
	if (!window.name)
		return -ENOMEM;
	ret = scan(0, min(all, ELASTIC_MAX_UNIT));
	if (ret)
		goto err_free;
	window.nr_blocks = walk_whole_blocks(NULL);
	window.blocks = kvcalloc(max(window.nr_blocks, 1u), sizeof(*window.blocks), GFP_KERNEL);
	window.order = kvcalloc(max(window.nr_blocks, 1u), sizeof(*window.order), GFP_KERNEL);
	if (!window.blocks || !window.order) {
		ret = -ENOMEM;
		goto err_free;
	}
	walk_whole_blocks(adopt);
	mem_view.usable_blocks = window.nr_blocks;
	update_view();
	return 0;

err_free:
	mem_forget();
	return ret;
}

void mem_forget(void)
{
	/* The resource tree keeps the name of what stays behind. */
	if (!window.name_used)
		kfree(window.name);
	kvfree(window.order);
	kvfree(window.blocks);
	kvfree(window.ranges);
}

/* ---- what is absent ---- */

/* Index of the first block that ends behind @unit. */
static u32 block_at(u64 unit)
{
	u64 units = mem_block_units();
	u32 low = 0, high = window.nr_blocks;

	while (low < high) {
		u32 mid = low + (high - low) / 2;

		if (window.blocks[mid].first + units <= unit)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

/* The first unit from @unit on that is in a held block, and the end of it. */
static u64 next_held(u64 unit, u64 *end)
{
	u32 i;

	for (i = block_at(unit); i < window.nr_blocks; i++) {
		if (window.blocks[i].state == BLOCK_ABSENT)
			continue;
		*end = window.blocks[i].first + mem_block_units();
		return max(unit, window.blocks[i].first);
	}
	*end = U64_MAX;
	return U64_MAX;
}

/**
 * mem_absent() - the units of the window that are not held
 * @cursor: 0 at the start; where the next call goes on
 * @ranges: room for @max ranges
 * @max: at least 1
 *
 * Return: how many ranges were written; 0 at the end.
 */
u32 mem_absent(u64 *cursor, struct elastic_range *ranges, u32 max)
{
	u64 at, end, held, held_end;
	u32 i, n = 0;

	for (i = 0; i < window.nr_ranges; i++) {
		end = window.ranges[i].first + window.ranges[i].nr;
		at = max(window.ranges[i].first, *cursor);
		while (at < end) {
			held = next_held(at, &held_end);
			if (at < held) {
				if (n == max)
					return n;
				ranges[n].first = at;
				ranges[n++].nr = min(held, end) - at;
			}
			at = held_end;
			*cursor = min(held_end, end);
		}
	}
	return n;
}

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

/* ---- sysfs from inside ---- */

/* A store that finds the hotplug lock taken asks to be called again. */
static ssize_t write_again(struct file *file, const char *text)
{
	unsigned int tries;
	ssize_t ret;

	for (tries = 0; tries < LOCK_TRIES; tries++) {
		loff_t pos = 0;

		ret = kernel_write(file, text, strlen(text), &pos);
		if (ret != -ERESTARTNOINTR)
			break;
		clear_thread_flag(TIF_SIGPENDING);
	}
	return ret == -ERESTARTNOINTR ? -EBUSY : ret;
}

static int write_file(const char *path, const char *text)
{
	struct file *file = filp_open(path, O_WRONLY, 0);
	ssize_t ret;

	if (IS_ERR(file))
		return PTR_ERR(file);
	ret = write_again(file, text);
	filp_close(file, NULL);
	return ret < 0 ? ret : 0;
}

static int read_file(const char *path, char *text, size_t size)
{
	struct file *file = filp_open(path, O_RDONLY, 0);
	loff_t pos = 0;
	ssize_t ret;

	if (IS_ERR(file))
		return PTR_ERR(file);
	ret = kernel_read(file, text, size - 1, &pos);
	filp_close(file, NULL);
	if (ret < 0)
		return ret;
	text[ret] = 0;
	strim(text);
	return 0;
}

/* What the administrator wants of new memory does not concern ours. */
static int override_auto_online(char *saved, size_t size)
{
	int ret = read_file(SYSFS_MEMORY "/auto_online_blocks", saved, size);

	if (ret)
		pr_err_once("no " SYSFS_MEMORY ": %d; is sysfs mounted?\n", ret);
	if (ret || !strcmp(saved, "offline"))
		return ret;
	return write_file(SYSFS_MEMORY "/auto_online_blocks", "offline");
}

static void restore_auto_online(const char *saved)
{
	int ret = 0;

	if (strcmp(saved, "offline"))
		ret = write_file(SYSFS_MEMORY "/auto_online_blocks", saved);
	if (ret)
		pr_warn("cannot restore auto_online_blocks to %s: %d\n", saved, ret);
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
	char path[64];
	int ret;

	zone = policy_zone(&elastic_config.tun, READ_ONCE(elastic_config.zone), kernel, movable,
			   mem_view.block_bytes, urgent);
	scnprintf(path, sizeof(path), SYSFS_MEMORY "/memory%llu/state",
		  start / mem_view.block_bytes);
	ret = write_file(path, zone == POLICY_ZONE_MOVABLE ? "online_movable" : "online_kernel");
	/* Somebody was faster: a udev rule, say. */
	if (ret && is_online(block->first))
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
	update_view();
	return 0;
}

/*
 * When memory has run out, the worker may not wait for memory: the task that
 * ran out waits for the worker.
 */
static int add_some(u32 from, u32 to, bool urgent)
{
	unsigned int flags = 0;
	char saved[24];
	int ret, err;

	if (urgent)
		flags = memalloc_noreclaim_save();
	ret = override_auto_online(saved, sizeof(saved));
	if (ret)
		goto out;
	for (; from < to; from++) {
		err = add_one(&window.blocks[from], urgent);
		if (err)
			ret = err;
	}
	restore_auto_online(saved);
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
	update_view();
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
			window.blocks[block_at(unit)].state = BLOCK_GRANTED;
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
			block->state = is_online(block->first) ? BLOCK_ONLINE : BLOCK_ADDED;
	}
	update_view();
}
