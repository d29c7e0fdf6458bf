// SPDX-License-Identifier: GPL-2.0
/*
 * The memory window.
 *
 * It is what the firmware's map calls RAM and the kernel did not get at boot
 * (mem=). Of its units, those that make up whole memory blocks can be used; the
 * rest stays absent.
 *
 * Blocks that an earlier life of the module added are recognised by what they
 * are: driver-managed System RAM at the top of the resource tree, inside the
 * firmware's RAM. dax/kmem and virtio-mem put theirs below a resource of their
 * own.
 */
#include <linux/ioport.h>
#include <linux/limits.h>
#include <linux/mm.h>
#include <linux/slab.h>
#include <asm/e820/api.h>
#include <asm/processor.h>

#include "compat/memory_hotplug.h"
#include "window.h"

#define RESOURCE_NAME	"System RAM (kvm_elastic)"

/* Step of the search for holes that no entry of the firmware's map describes. */
#define HOLE_STEP	SZ_64K

struct window window;
struct mem_view mem_view;

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

/**
 * block_is_online() - does the kernel use it?
 * @block: of the window
 */
bool block_is_online(const struct block *block)
{
	return pfn_to_online_page(PHYS_PFN(block->first << ELASTIC_UNIT_SHIFT));
}

static void adopt(u32 index, u64 first)
{
	struct block *block = &window.blocks[index];
	u64 start = first << ELASTIC_UNIT_SHIFT;

	block->first = first;
	if (!driver_managed(start, mem_view.block_bytes))
		return;
	block->state = BLOCK_ADDED;
	if (!block_is_online(block))
		return;
	block->state = BLOCK_ONLINE;
	block->zone = is_zone_movable_page(pfn_to_page(PHYS_PFN(start))) ?
		      POLICY_ZONE_MOVABLE : POLICY_ZONE_KERNEL;
}

/**
 * window_count() - the blocks in use, for mem_view
 *
 * Context: worker, or before it runs.
 */
void window_count(void)
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
	window_count();
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

/**
 * window_block_at() - index of the first block that ends behind a unit
 * @unit: number of the unit
 *
 * Return: the number of blocks if there is none.
 */
u32 window_block_at(u64 unit)
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

	for (i = window_block_at(unit); i < window.nr_blocks; i++) {
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
