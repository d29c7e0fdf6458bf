// SPDX-License-Identifier: GPL-2.0
/*
 * Memory in and out, by unit.
 *
 * Up: units that are withheld in a block (warm) need a grant and nothing else; when
 * there are none, blocks are added. Down: whole blocks, the emptiest first, then single
 * units. What left the allocator is released in batches. Warm units are refilled in
 * the background. The map of units changes under the worker's mutex alone.
 *
 * Every path marks what it did in the map and ends in settle(), which releases what is
 * granted and neither used nor a guard; what fails half way is mended by that, too.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/ktime.h>
#include <linux/mm.h>
#include <linux/sort.h>

#include "compat/memory_hotplug.h"
#include "trace.h"
#include "window.h"

/* Units that are taken out of the allocator between two looks at the clock. */
#define UNPLUG_BATCH	32
/* Units that come between two looks at the kinds of memory: 512 MiB. */
#define GROW_STEP	256
/* Blocks that go before the host is told: 512 MiB. */
#define SHRINK_STEP	4

/**
 * mem_units() - units in use: of boot memory and of the window
 */
u64 mem_units(void)
{
	return mem_view.boot_units + READ_ONCE(mem_view.used);
}

static u32 used(enum policy_zone zone)
{
	return zone == POLICY_ZONE_KERNEL ? mem_view.used_kernel :
					    mem_view.used - mem_view.used_kernel;
}

static u32 warm(enum policy_zone zone)
{
	return zone == POLICY_ZONE_KERNEL ? mem_view.warm_kernel :
					    mem_view.warm - mem_view.warm_kernel;
}

/* One batch of ranges at a time; static, because only the worker comes here. */
static struct elastic_range batch[ELASTIC_MAX_RANGES];

/* Ask for one unit that is not going to be used. */
static bool request_guard(u32 index, int *ret)
{
	u64 granted;

	*ret = session_request_units(units_number(&window.map, index), 1, &granted);
	units_granted(&window.map, index, granted, granted);
	return granted;
}

/* Guards that were in use: their pages are of no use to anybody. */
static void discard_guards(u32 nr)
{
	if (nr && session.features & ELASTIC_FEAT_DISCARD)
		session_discard_units(batch, nr);
}

/* Units that were to be released, but lie behind one in use. */
static void keep_guards(void)
{
	u32 index = 0, nr = 0;
	int ret;

	while ((index = units_lost_guard(&window.map, index)) != UNIT_NONE) {
		if (request_guard(index, &ret)) {
			batch[nr].first = units_number(&window.map, index);
			batch[nr++].nr = 1;
		} else {
			units_set(&window.map, index, 1, UNIT_WARM);
		}
		if (nr == ELASTIC_MAX_RANGES) {
			discard_guards(nr);
			nr = 0;
		}
		index++;
	}
	discard_guards(nr);
}

/**
 * mem_settle() - release what is granted and neither used nor a guard
 *
 * Context: worker, or before and after there is one.
 *
 * Return: 0, or the error of a release: what was not released is tried again the next
 * time.
 */
int mem_settle(void)
{
	u32 cursor = 0, nr;
	int ret = 0;

	keep_guards();
	if (units_settle(&window.map)) {
		while (!ret && (nr = units_releasing(&window.map, &cursor, batch,
						     ELASTIC_MAX_RANGES))) {
			ret = session_release_units(batch, nr);
			if (!ret)
				units_released(&window.map, batch, nr);
		}
	}
	window_count();
	return ret;
}

/* ---- up ---- */

/*
 * Ask for units to use, of one run by address, and for the guard behind them if one is
 * needed. What is granted is GUARD then.
 *
 * Return: how many of them can be used; *@ret: why not all.
 */
static u32 request(u32 index, u32 nr, int *ret)
{
	u32 guard = units_open_end(&window.map, index + nr - 1);
	u64 granted;

	*ret = session_request_units(units_number(&window.map, index), nr + guard, &granted);
	return units_granted(&window.map, index, nr, granted);
}

static void plug(u32 index, u32 nr, enum policy_zone zone, bool urgent, ktime_t begin)
{
	u64 ns;

	units_set(&window.map, index, nr, UNIT_USED);
	plug_units(index, nr, urgent);
	window_count();
	ns = ktime_to_ns(ktime_sub(ktime_get(), begin));
	stat_add(STAT_UNITS_PLUGGED, nr);
	sense_mem_came();
	stat_set(STAT_PLUG_LAST_NS, ns);
	trace_elastic_unit_change(units_number(&window.map, index), nr, true, zone, ns);
}

/* Use what is warm: a grant, and nothing else. */
static u32 grow_warm(enum policy_zone zone, u32 want, bool urgent, int *ret)
{
	u32 from = 0, n, usable, got = 0;

	while (got < want && !*ret) {
		ktime_t begin = ktime_get();

		n = units_warm_run(&window.map, zone, &from, want - got);
		if (!n)
			break;
		usable = request(from, n, ret);
		if (usable)
			plug(from, usable, zone, urgent, begin);
		got += usable;
		from += n;
	}
	return got;
}

/**
 * mem_grow_warm() - use what is warm, whatever its kind
 * @want: units
 *
 * Allocates nothing, takes no lock and mends no session.
 *
 * Context: any task that acts for the worker.
 *
 * Return: how many units came.
 */
u32 mem_grow_warm(u32 want)
{
	int ret = 0;
	u32 got;

	session_no_hello(true);
	got = grow_warm(POLICY_ZONE_KERNEL, want, true, &ret);
	if (!ret && got < want)
		got += grow_warm(POLICY_ZONE_MOVABLE, want - got, true, &ret);
	session_no_hello(false);
	return got;
}

static bool can_add(const struct block *block)
{
	return block->state != BLOCK_ONLINE && !retry_waits(&block->retry);
}

/*
 * A run of blocks that can be added, at most @max long: the first one for movable
 * memory, the last one for the kernel, so that each kind has its side of the window.
 */
static u32 absent_run(enum policy_zone zone, u32 *from, u32 max)
{
	struct unit_map *map = &window.map;
	u32 i, n = 0;

	if (zone == POLICY_ZONE_MOVABLE) {
		for (i = 0; i < map->nr_blocks && !can_add(&map->blocks[i]); i++)
			;
		*from = i;
		for (; i < map->nr_blocks && n < max && can_add(&map->blocks[i]); i++, n++)
			if (n && !map->blocks[i].joins)
				break;
		return n;
	}
	for (i = map->nr_blocks; i && !can_add(&map->blocks[i - 1]); i--)
		;
	for (; i && n < max && can_add(&map->blocks[i - 1]); i--, n++) {
		*from = i - 1;
		if (!map->blocks[i - 1].joins)
			return n + 1;
	}
	return n;
}

/* Add the blocks of units [index, index + nr), which are granted, and use those. */
static u32 add_blocks(u32 index, u32 nr, enum policy_zone zone, int *ret)
{
	u32 per = window.map.per_block, got = 0, n;
	int err;

	for (; nr; nr -= n, index += n) {
		struct block *block = units_block(&window.map, index);

		n = min(nr, per);
		units_set(&window.map, index, n, UNIT_USED);
		block->zone = zone;
		err = block_add(block);
		if (err)
			*ret = err;
		else
			got += n;
	}
	stat_add(STAT_UNITS_PLUGGED, got);
	if (got)
		sense_mem_came();
	return got;
}

static u32 grow_cold(enum policy_zone zone, u32 want, int *ret)
{
	u32 per = window.map.per_block, from = 0, n, nr, got = 0;
	bool whole;

	*ret = blocks_begin(zone, &whole);
	if (*ret)
		return 0;
	while (got < want && !*ret) {
		n = absent_run(zone, &from, min_t(u32, DIV_ROUND_UP(want - got, per),
						  ELASTIC_RANGE_NR_MAX / per - 1));
		if (!n)
			break;
		nr = request(from * per, whole ? n * per : min(want - got, n * per), ret);
		/* Nothing can be withheld: a block is granted whole, or of no use. */
		if (whole)
			nr -= nr % per;
		if (!nr)
			break;
		got += add_blocks(from * per, nr, zone, ret);
	}
	blocks_end();
	window_count();
	return got;
}

static u32 grow_zone(enum policy_zone zone, u32 want, bool urgent, int *ret)
{
	u32 got = grow_warm(zone, want, urgent, ret);

	if (got < want && !*ret)
		got += grow_cold(zone, want - got, ret);
	return got;
}

/*
 * Where the next units go that are not asked for as kernel memory. A step at a time:
 * each needs struct pages, and they are kernel memory.
 */
static enum policy_zone zone_for(u32 more)
{
	return policy_zone(&elastic_config.tun, READ_ONCE(elastic_config.zone),
			   (mem_view.boot_units + mem_view.used_kernel) * ELASTIC_UNIT_SIZE,
			   used(POLICY_ZONE_MOVABLE) * ELASTIC_UNIT_SIZE,
			   more * ELASTIC_UNIT_SIZE);
}

/**
 * mem_grow_warm_only() - use what is warm of the kind that is due, if it is enough
 * @want: units
 *
 * Context: any task that acts for the worker; as mem_grow_warm().
 *
 * Return: true if all of it came. Else some may have.
 */
bool mem_grow_warm_only(u32 want)
{
	enum policy_zone zone = zone_for(want);
	int ret = 0;
	u32 got;

	if (warm(zone) < want)
		return false;
	session_no_hello(true);
	got = grow_warm(zone, want, true, &ret);
	session_no_hello(false);
	return got == want;
}

static u32 grow_any(u32 want, bool urgent, int *ret)
{
	u32 got = 0, n, step;

	while (got < want && !*ret) {
		step = min_t(u32, want - got, GROW_STEP);
		n = grow_zone(zone_for(step), step, urgent, ret);
		if (!n)
			break;
		got += n;
	}
	return got;
}

static int mem_grow(u32 kernel, u32 other, bool urgent)
{
	u32 got = 0, want = kernel + other;
	int ret = 0;

	/* Memory has run out: first what allocates nothing, whatever its kind. */
	if (urgent)
		got = grow_warm(POLICY_ZONE_KERNEL, want, urgent, &ret);
	if (urgent && !ret && got < want)
		got += grow_warm(POLICY_ZONE_MOVABLE, want - got, urgent, &ret);
	kernel -= min(kernel, got);
	if (!ret && kernel)
		got += grow_zone(POLICY_ZONE_KERNEL, kernel, urgent, &ret);
	if (!ret && other)
		got += grow_any(other, urgent, &ret);
	/* No room for struct pages: make some, out of what needs none. */
	if (ret == -ENOMEM)
		ret = 0;
	/* What is left is warm, of whatever kind: better than nothing. */
	if (!ret && got < want)
		got += grow_warm(POLICY_ZONE_KERNEL, want - got, urgent, &ret);
	if (!ret && got < want)
		got += grow_warm(POLICY_ZONE_MOVABLE, want - got, urgent, &ret);
	mem_settle();
	if (got >= want)
		return 0;
	return ret ?: -EBUSY;
}

/* ---- down ---- */

/*
 * Movable first; then the emptiest; among equals the highest address. What is page
 * cache that can be dropped counts as empty: it goes before memory in use is moved.
 */
static int compare_blocks(const void *a, const void *b)
{
	const struct block *x = &window.map.blocks[*(const u32 *)a];
	const struct block *y = &window.map.blocks[*(const u32 *)b];

	if (x->zone != y->zone)
		return x->zone == POLICY_ZONE_MOVABLE ? -1 : 1;
	if (x->easy != y->easy)
		return x->easy > y->easy ? -1 : 1;
	return x->first > y->first ? -1 : 1;
}

/* Look at its pages, but not at its own struct pages. */
static void look_at_block(const struct block *block, struct pages_look *look)
{
	unsigned long skip = block->own_memmap ? UNIT_PAGES : 0;

	pages_look(block_pfn(block) + skip, PHYS_PFN(mem_view.block_bytes) - skip, look);
}

/* Fill window.order with the blocks that may go, in the order to try. */
static u32 choose_blocks(void)
{
	struct pages_look look;
	struct block *block;
	u32 i, n = 0;

	for (i = 0; i < window.map.nr_blocks && !worker_urgent(); i++) {
		block = &window.map.blocks[i];
		if (block->state != BLOCK_ONLINE || block_is_empty(block) ||
		    retry_waits(&block->retry))
			continue;
		look_at_block(block, &look);
		/* The kernel would only try, and fill its log with the pages that stay. */
		if (look.fixed && block->zone == POLICY_ZONE_KERNEL) {
			stat_inc(STAT_STUCK_UNMOVABLE);
			retry_later(&block->retry);
			continue;
		}
		block->free = look.free;
		block->easy = look.free + look.cache +
			      (u64)(window.map.per_block - block->nr[UNIT_USED]) *
			      ELASTIC_UNIT_SIZE;
		window.order[n++] = i;
	}
	sort(window.order, n, sizeof(*window.order), compare_blocks, NULL);
	return n;
}

/**
 * struct shrink - what is to go
 * @units: in use that may stay, of all
 * @kernel: in use that have to stay, in the kernel zones
 * @forced: also what has to be moved: the host wants it, or the user
 * @deadline: in jiffies
 *
 * By own decision nothing is moved that is worth staying: free pages go back to the
 * host anyway (reporting.c), and to move memory in use costs more than its grant.
 */
struct shrink {
	u32 units;
	u32 kernel;
	bool forced;
	unsigned long deadline;
};

/* Of a block, or a unit, that goes by own decision, at most a quarter is moved. */
static bool is_easy(const struct shrink *shrink, u64 easy, u64 size)
{
	return shrink->forced || easy >= size - size / 4;
}

/* How many of this kind may go. */
static u32 may_go(const struct shrink *shrink, enum policy_zone zone)
{
	u32 all = mem_view.used > shrink->units ? mem_view.used - shrink->units : 0;

	if (zone == POLICY_ZONE_MOVABLE)
		return all;
	return min(all, mem_view.used_kernel > shrink->kernel ?
			mem_view.used_kernel - shrink->kernel : 0);
}

/*
 * Why did it not go? The first page in it that cannot be moved tells.
 */
static void count_stuck(unsigned long pfn, unsigned long nr)
{
	unsigned long end = pfn + nr;

	for (; pfn < end; pfn++) {
		struct page *page = pfn_to_page(pfn);

		if (PageBuddy(page) || PageOffline(page) || !page_count(page))
			continue;
		if (!compat_page_can_move(page)) {
			stat_inc(STAT_STUCK_UNMOVABLE);
			return;
		}
		if (folio_maybe_dma_pinned(page_folio(page))) {
			stat_inc(STAT_STUCK_PINNED);
			return;
		}
	}
	stat_inc(STAT_STUCK_BUSY);
}

static void drop_cache(const struct block *block)
{
	u32 index = (block - window.map.blocks) * window.map.per_block;

	/* Helpers are no reason for more CPUs. */
	sched_quiet(true, 0);
	stat_add(STAT_CACHE_DROPPED, plug_drop_cache(index, window.map.per_block));
	sched_quiet(false, 0);
}

static int shrink_blocks(const struct shrink *shrink)
{
	u32 i, n = choose_blocks(), gone = 0;
	int ret = 0, err;

	for (i = 0; i < n && !worker_urgent() && time_before(jiffies, shrink->deadline); i++) {
		struct block *block = &window.map.blocks[window.order[i]];
		unsigned long bound;

		if (block->nr[UNIT_USED] > may_go(shrink, block->zone) ||
		    !is_easy(shrink, block->easy, mem_view.block_bytes))
			continue;
		bound = msecs_to_jiffies(READ_ONCE(elastic_config.tun.mem_offline_timeout_ms));
		bound += jiffies;
		drop_cache(block);
		err = block_remove(block, bound);
		if (err)
			count_stuck(block_pfn(block), PHYS_PFN(mem_view.block_bytes));
		else if (!(++gone % SHRINK_STEP))
			mem_settle();
		ret = err ?: ret;
		window_count();
	}
	return ret;
}

/* The emptiest units come first: empty, mostly empty, the others. */
static const u64 unit_easy[] = { ELASTIC_UNIT_SIZE, ELASTIC_UNIT_SIZE / 4 * 3, 0 };

/* Units of one kind that are in use, and of which @easy bytes are easy to empty. */
static u32 choose_units(enum policy_zone zone, u64 easy, u32 *cursor, u32 *indices, u32 max)
{
	struct pages_look look;
	u32 i, n = 0;

	for (i = *cursor; i < units_all(&window.map) && n < max && !worker_urgent(); i++) {
		const struct block *block = units_block(&window.map, i);

		if (block->state != BLOCK_ONLINE || block->zone != zone ||
		    retry_waits(&block->unit_retry) || block_is_empty(block)) {
			i += window.map.per_block - i % window.map.per_block - 1;
			continue;
		}
		if (window.map.state[i] != UNIT_USED ||
		    (block->own_memmap && !(i % window.map.per_block)))
			continue;
		pages_look(unit_pfn(i), UNIT_PAGES, &look);
		if (look.fixed && zone == POLICY_ZONE_KERNEL)
			continue;
		if (look.free + look.cache >= easy)
			indices[n++] = i;
	}
	*cursor = i;
	return n;
}

static u32 unplug(const u32 *indices, u32 nr)
{
	struct block *failed = NULL, *block;
	bool done[UNPLUG_BATCH] = {};
	ktime_t begin = ktime_get();
	u32 i, n;

	pressure_quiet(true);
	sched_quiet(true, 0);
	n = unplug_units(indices, nr, done);
	sched_quiet(false, 0);
	pressure_quiet(false);
	for (i = 0; i < nr; i++) {
		block = units_block(&window.map, indices[i]);
		if (done[i]) {
			units_set(&window.map, indices[i], 1, UNIT_RELEASING);
			block->unit_retry.ms = 0;
		} else if (!worker_urgent()) {
			count_stuck(unit_pfn(indices[i]), UNIT_PAGES);
			/* Ascending: each block is seen once. */
			if (block != failed)
				retry_later(&block->unit_retry);
			failed = block;
		}
	}
	stat_add(STAT_UNITS_UNPLUGGED, n);
	if (n < nr)
		sense_mem_came();
	trace_elastic_unit_change(units_number(&window.map, indices[0]), n, false,
				  units_block(&window.map, indices[0])->zone,
				  ktime_to_ns(ktime_sub(ktime_get(), begin)));
	window_count();
	return n;
}

/* Take units of one kind out; what cannot be moved is not tried twice. */
static int shrink_units(const struct shrink *shrink, enum policy_zone zone)
{
	u32 indices[UNPLUG_BATCH], cursor, nr, done, level, failed = 0;

	for (level = 0; level < ARRAY_SIZE(unit_easy); level++) {
		cursor = 0;
		while (may_go(shrink, zone) &&
		       is_easy(shrink, unit_easy[level], ELASTIC_UNIT_SIZE)) {
			if (worker_urgent() || time_after(jiffies, shrink->deadline))
				return -EINTR;
			nr = choose_units(zone, unit_easy[level], &cursor, indices,
					  min_t(u32, may_go(shrink, zone), UNPLUG_BATCH));
			if (!nr)
				break;
			done = unplug(indices, nr);
			failed += nr - done;
			/* Memory in use costs a try each; enough is enough. */
			if (failed > 4 * UNPLUG_BATCH)
				return -EBUSY;
		}
	}
	return may_go(shrink, zone) ? -EBUSY : 0;
}

static int mem_shrink(u32 units, u32 kernel, bool forced)
{
	struct shrink shrink = { .units = units, .kernel = kernel, .forced = forced };
	/* By own decision, and nothing went: what there is lies scattered. */
	static struct retry scattered;
	u32 before = mem_view.used;
	ktime_t begin = ktime_get();
	int ret, err;

	if (!forced && retry_waits(&scattered))
		return -EBUSY;

	shrink.deadline = jiffies +
		msecs_to_jiffies(4 * READ_ONCE(elastic_config.tun.mem_offline_timeout_ms));
	ret = shrink_blocks(&shrink);
	err = shrink_units(&shrink, POLICY_ZONE_MOVABLE);
	if (err || mem_view.used > units)
		err = shrink_units(&shrink, POLICY_ZONE_KERNEL) ?: err;
	ret = mem_settle() ?: ret;
	stat_set(STAT_UNPLUG_LAST_US, ktime_us_delta(ktime_get(), begin));
	if (mem_view.used < before)
		scattered.ms = 0;
	else if (!forced && !worker_urgent())
		retry_later(&scattered);
	if (mem_view.used <= units)
		return 0;
	return ret ?: err ?: -EBUSY;
}

/**
 * mem_set() - have this many units of the window in use
 * @want: units, and how many of them at least in the kernel zones
 * @how: why
 *
 * Context: worker. Takes the device and memory hotplug locks. May be ended early
 * by something urgent on the way down.
 *
 * Return: 0; -EAGAIN or -ENOSPC if the host granted fewer (what it granted is in
 * use); -EBUSY if there is nothing that could come or go now; -EINTR if it was ended;
 * the error of adding or removing a block.
 */
int mem_set(const struct policy_mem_want *want, enum mem_how how)
{
	bool urgent = how == MEM_URGENT;
	u32 kernel, more;

	if (want->units < mem_view.used)
		return mem_shrink(want->units, want->kernel, how == MEM_FORCED);
	more = want->units - mem_view.used;
	if (!more)
		return 0;
	kernel = want->kernel > mem_view.used_kernel ? want->kernel - mem_view.used_kernel : 0;
	kernel = min(kernel, more);
	return mem_grow(kernel, more - kernel, urgent);
}

/* ---- the warm reserve ---- */

/* Get what has to be granted of a block before it is in the kernel. */
static bool prepare_warm(u32 index)
{
	int ret;

	if (block_holds_memmap()) {
		if (!request(index, 1, &ret))
			return false;
		units_set(&window.map, index, 1, UNIT_USED);
		return true;
	}
	/* What lies before it may be in use. */
	return !units_guards(&window.map, index) || request_guard(index, &ret);
}

/* Add a block and withhold all of it. */
static bool add_warm(enum policy_zone zone)
{
	struct block *block;
	bool whole, done = false;
	u32 from = 0;

	if (!absent_run(zone, &from, 1) || blocks_begin(zone, &whole))
		return false;
	block = &window.map.blocks[from];
	block->zone = zone;
	if (!whole && prepare_warm(from * window.map.per_block))
		done = !block_add(block);
	else
		retry_later(&block->retry);
	blocks_end();
	mem_settle();
	return done;
}

/* Remove a block of which nothing is used. */
static bool drop_warm(enum policy_zone zone)
{
	u32 b, bound = READ_ONCE(elastic_config.tun.mem_offline_timeout_ms);

	for (b = window.map.nr_blocks; b--; ) {
		struct block *block = &window.map.blocks[b];

		if (block->state != BLOCK_ONLINE || block->zone != zone ||
		    !block_is_empty(block) || retry_waits(&block->retry))
			continue;
		if (block_remove(block, jiffies + msecs_to_jiffies(bound)))
			return false;
		mem_settle();
		return true;
	}
	return false;
}

/**
 * mem_keep_warm() - add or remove one block, if the warm reserve wants it
 * @zone: of which kind
 * @want: units to keep warm
 *
 * Half of it is left before it is filled up again; a block more than wanted goes.
 *
 * Context: worker. Takes the device and memory hotplug locks.
 *
 * Return: true if it did something, and may want to do more.
 */
bool mem_keep_warm(enum policy_zone zone, u32 want)
{
	/* A block may need one for its struct pages. */
	u32 block = window.map.per_block - block_holds_memmap(), have = warm(zone);

	if (want && have <= want / 2)
		return add_warm(zone);
	if (have >= want + block)
		return drop_warm(zone);
	return false;
}

/**
 * mem_guard() - get a grant for guards that have none
 * @all: ask for all of them: an earlier life of the module, or of the host's, may have
 *	given them up
 *
 * Context: worker.
 */
void mem_guard(bool all)
{
	u32 index;
	int ret;

	for (index = 0; all && index < units_all(&window.map); index++)
		if (window.map.state[index] == UNIT_GUARD && !request_guard(index, &ret))
			units_set(&window.map, index, 1, UNIT_WARM);
	index = 0;
	while ((index = units_unguarded(&window.map, index)) != UNIT_NONE) {
		if (!request_guard(index, &ret))
			pr_warn_once("the memory behind what is in use is not granted: %d\n", ret);
		index++;
	}
}
