// SPDX-License-Identifier: GPL-2.0
/*
 * The memory window.
 *
 * It is what the firmware's map calls RAM and the kernel did not get at boot
 * (mem=). Of its units, those that make up whole memory blocks can be used; the
 * rest stays absent. Units that an earlier life of the module left withheld in a block
 * are known by their pages: offline for the kernel.
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

/* Write every whole block of the window to @blocks, if not NULL; return how many. */
static u32 whole_blocks(struct block *blocks)
{
	u64 units = mem_block_units(), first, end;
	u32 i, n = 0;

	for (i = 0; i < window.nr_ranges; i++) {
		end = window.ranges[i].first + window.ranges[i].nr;
		first = DIV_ROUND_UP(window.ranges[i].first, units) * units;
		for (; first + units <= end; first += units, n++) {
			if (!blocks)
				continue;
			blocks[n].first = first;
			blocks[n].joins = n && blocks[n - 1].first + units == first;
			blocks[n].behind_foreign = first == window.ranges[i].first;
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
	return pfn_to_online_page(block_pfn(block));
}

static bool is_withheld(unsigned long pfn)
{
	return compat_is_withheld(pfn_to_page(pfn), UNIT_PAGES);
}

/* Guards are taken for granted here; mem_guard() makes sure. */
static void adopt_units(struct block *block, u32 index)
{
	struct unit_map *map = &window.map;
	bool online = block->state == BLOCK_ONLINE;
	u32 i;

	for (i = index; i < index + map->per_block; i++)
		if (online && !is_withheld(unit_pfn(i)))
			units_set(map, i, 1, UNIT_USED);
	if (block->own_memmap)
		units_set(map, index, 1, UNIT_USED);
	for (i = index; i < index + map->per_block; i++)
		if (map->state[i] == UNIT_WARM && units_guards(map, i))
			units_set(map, i, 1, UNIT_GUARD);
}

/* What an earlier life of the module left in the kernel. */
static void adopt(u32 number)
{
	struct unit_map *map = &window.map;
	struct block *block = &map->blocks[number];
	u32 index = number * map->per_block;
	struct page *page;

	if (!driver_managed(block_start(block), mem_view.block_bytes))
		return;
	block->state = BLOCK_OFFLINE;
	block->own_memmap = PageVmemmapSelfHosted(pfn_to_page(block_pfn(block)));
	units_set(map, index, map->per_block, UNIT_WARM);
	if (!block_is_online(block)) {
		adopt_units(block, index);
		return;
	}
	block->state = BLOCK_ONLINE;
	/* The first pages may be struct pages, which are in no zone of their own. */
	page = pfn_to_page(block_pfn(block) + PHYS_PFN(mem_view.block_bytes) - 1);
	block->zone = is_zone_movable_page(page) ? POLICY_ZONE_MOVABLE : POLICY_ZONE_KERNEL;
	adopt_units(block, index);
}

/**
 * window_count() - the map in numbers, for mem_view
 *
 * Context: worker, or before it runs.
 */
void window_count(void)
{
	u32 b, blocks = 0, movable = 0, used = 0, kernel = 0, warm = 0, warm_kernel = 0;

	for (b = 0; b < window.map.nr_blocks; b++) {
		const struct block *block = &window.map.blocks[b];
		u32 withheld = block->nr[UNIT_WARM] + block->nr[UNIT_GUARD];

		if (block->state != BLOCK_ONLINE)
			continue;
		used += block->nr[UNIT_USED];
		warm += withheld;
		if (block->zone == POLICY_ZONE_KERNEL) {
			kernel += block->nr[UNIT_USED];
			warm_kernel += withheld;
		}
		if (block_is_empty(block))
			continue;
		blocks++;
		movable += block->zone == POLICY_ZONE_MOVABLE;
	}
	WRITE_ONCE(mem_view.blocks, blocks);
	WRITE_ONCE(mem_view.movable_blocks, movable);
	WRITE_ONCE(mem_view.used, used);
	WRITE_ONCE(mem_view.used_kernel, kernel);
	WRITE_ONCE(mem_view.warm, warm);
	WRITE_ONCE(mem_view.warm_kernel, warm_kernel);
}

static int make_map(void)
{
	struct unit_map *map = &window.map;
	u32 i;

	map->nr_blocks = whole_blocks(NULL);
	map->per_block = mem_block_units();
	map->blocks = kvcalloc(max(map->nr_blocks, 1u), sizeof(*map->blocks), GFP_KERNEL);
	map->state = kvcalloc(max(units_all(map), 1u), sizeof(*map->state), GFP_KERNEL);
	window.order = kvcalloc(max(map->nr_blocks, 1u), sizeof(*window.order), GFP_KERNEL);
	if (!map->blocks || !map->state || !window.order)
		return -ENOMEM;
	whole_blocks(map->blocks);
	units_init(map);
	for (i = 0; i < map->nr_blocks; i++)
		adopt(i);
	mem_view.usable_blocks = map->nr_blocks;
	window_count();
	return 0;
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
	if (!ret)
		ret = make_map();
	if (ret)
		mem_forget();
	return ret;
}

void mem_forget(void)
{
	/* The resource tree keeps the name of what stays behind. */
	if (!window.name_used)
		kfree(window.name);
	kvfree(window.order);
	kvfree(window.map.state);
	kvfree(window.map.blocks);
	kvfree(window.ranges);
}

/* The first held unit from @unit on, and the end of the run of them. */
static u64 next_held(u64 unit, u64 *end)
{
	const struct unit_map *map = &window.map;
	u32 i = units_block_at(map, unit) * map->per_block;
	u64 first;

	for (; i < units_all(map); i++) {
		const struct block *block = units_block(map, i);

		if (!block->nr[UNIT_GUARD] && !block->nr[UNIT_USED]) {
			i += map->per_block - i % map->per_block - 1;
			continue;
		}
		first = units_number(map, i);
		if (first < unit || map->state[i] < UNIT_GUARD)
			continue;
		for (*end = first + 1; ; ++*end) {
			i = units_behind(map, i);
			if (i == UNIT_NONE || map->state[i] < UNIT_GUARD)
				return first;
		}
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
