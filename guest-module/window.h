/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the files about memory share: window.c finds the memory that the kernel did
 * not get at boot, units.c keeps the map of it, mem.c decides what comes and goes,
 * block.c takes blocks in and out, online.c brings them online, plug.c gives units to
 * the allocator and takes them out of it, cache.c gives up page cache.
 */
#ifndef _ELASTIC_WINDOW_H
#define _ELASTIC_WINDOW_H

#include <linux/mm.h>

#include "elastic_guest.h"
#include "units.h"

#define UNIT_ORDER	(ELASTIC_UNIT_SHIFT - PAGE_SHIFT)
#define UNIT_PAGES	BIT(UNIT_ORDER)

/**
 * struct window - the memory that the kernel did not get at boot
 * @ranges: its units, ascending
 * @nr_ranges: how many ranges
 * @max_ranges: how many there is room for
 * @map: its whole blocks and their units
 * @order: indices of blocks, for sorting
 * @name: of our memory in the resource tree, which keeps the pointer
 * @name_used: it does, so the string outlives the module
 */
struct window {
	struct elastic_range *ranges;
	u32 nr_ranges;
	u32 max_ranges;
	struct unit_map map;
	u32 *order;
	char *name;
	bool name_used;
};

extern struct window window;

static inline unsigned long block_pfn(const struct block *block)
{
	return block->first << UNIT_ORDER;
}

static inline u64 block_start(const struct block *block)
{
	return block->first << ELASTIC_UNIT_SHIFT;
}

static inline unsigned long unit_pfn(u32 index)
{
	return units_number(&window.map, index) << UNIT_ORDER;
}

/* window.c */
void window_count(void);
bool block_is_online(const struct block *block);

/* block.c */
int blocks_begin(enum policy_zone zone, bool *whole);
void blocks_end(void);
int block_add(struct block *block);
int block_remove(struct block *block, unsigned long deadline);
bool block_holds_memmap(void);
void retry_later(struct retry *retry);
bool retry_waits(const struct retry *retry);

/* plug.c */
void plug_units(u32 index, u32 nr, bool urgent);
u32 unplug_units(const u32 *indices, u32 nr, bool *done);
u64 plug_drop_cache(u32 index, u32 nr);

/* cache.c */

/**
 * struct pages_look - what is in a range of pages
 * @free: bytes that are free
 * @cache: bytes of page cache that can be dropped
 * @fixed: bytes of pages that cannot be moved, or are on their way somewhere; of each
 *	larger one only its first page
 */
struct pages_look {
	u64 free;
	u64 cache;
	u64 fixed;
};

void pages_look(unsigned long pfn, unsigned long nr, struct pages_look *look);
u64 cache_give_up(unsigned long pfn, unsigned long nr);

/* online.c */

int auto_online_override(enum policy_zone zone);
void auto_online_restore(void);
int online_block(u64 start, enum policy_zone zone);
bool blocks_hold_memmap(void);

#endif /* _ELASTIC_WINDOW_H */
