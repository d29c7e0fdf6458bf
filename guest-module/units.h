/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The map of units: which unit of which memory block is in which state.
 *
 * Bookkeeping alone: no page is touched and no hypercall made here, and only
 * linux/types.h is needed, so that selftests/units.c compiles the same file in user
 * space. The worker alone changes a map.
 *
 *	          grant                    plug
 *	ABSENT --------> GUARD <--------> USED
 *	  |  ^           ^   |              |
 *	  |  |     guard |   | not needed   | unplug
 *	  |  | release   |   v              |
 *	  |  +------- RELEASING <-----------+
 *	  |              |
 *	  +---> WARM <---+  (as its block is in the kernel, or not)
 *
 * GUARD: the kernel reads up to seven bytes beyond the end of a string
 * (load_unaligned_zeropad()), which may be the end of a page, a unit, and what is in
 * use. Such a read of a page that is not mapped is mended by its exception handler;
 * one of a page that is mapped and not granted ends the VM. So the unit behind one in
 * use stays granted wherever its block is in the kernel's direct map.
 */
#ifndef _ELASTIC_UNITS_H
#define _ELASTIC_UNITS_H

#include "elastic_hypercall.h"
#include "policy.h"

/**
 * enum block_state - of a memory block of the window
 * @BLOCK_ABSENT: not in the kernel
 * @BLOCK_OFFLINE: in the kernel and mapped, offline
 * @BLOCK_ONLINE: online: each of its units is in use or withheld
 */
enum block_state {
	BLOCK_ABSENT,
	BLOCK_OFFLINE,
	BLOCK_ONLINE,
};

/**
 * enum unit_state - of a unit of the window
 * @UNIT_ABSENT: not in the kernel, not granted
 * @UNIT_WARM: in the kernel and withheld from its allocator, not granted
 * @UNIT_RELEASING: granted, not in the allocator; to be released
 * @UNIT_GUARD: granted, not in the allocator; to stay so
 * @UNIT_USED: granted, and in the allocator
 *
 * From @UNIT_GUARD on a unit is held, for HELLO.
 */
enum unit_state {
	UNIT_ABSENT,
	UNIT_WARM,
	UNIT_RELEASING,
	UNIT_GUARD,
	UNIT_USED,
	UNIT_NR_STATES,
};

/**
 * struct retry - of something that failed
 * @ms: delay after the last failure, 0 if there was none
 * @at_ms: not to be tried before
 */
struct retry {
	__u32 ms;
	__u64 at_ms;
};

/**
 * struct block - a memory block that lies in the window from end to end
 * @first: number of its first unit
 * @state: of it
 * @zone: where it was brought online
 * @joins: the units before it are those of the block before
 * @behind_foreign: what lies before it is not of the window: boot memory, mostly
 * @own_memmap: its first unit holds its struct pages, and counts as used
 * @nr: its units by state
 * @retry: when to try it again as a whole
 * @unit_retry: when to try to empty units of it again
 * @free: bytes of it that are free or withheld, when somebody looked last
 * @easy: the same, and what is page cache that can be dropped
 */
struct block {
	__u64 first;
	enum block_state state;
	enum policy_zone zone;
	bool joins;
	bool behind_foreign;
	bool own_memmap;
	__u32 nr[UNIT_NR_STATES];
	struct retry retry;
	struct retry unit_retry;
	__u64 free;
	__u64 easy;
};

/**
 * struct unit_map - all units of all blocks, by index
 * @per_block: units of a block
 * @nr_blocks: how many blocks
 * @blocks: ascending
 * @state: enum unit_state of unit i % per_block of block i / per_block
 */
struct unit_map {
	__u32 per_block;
	__u32 nr_blocks;
	struct block *blocks;
	__u8 *state;
};

/* No such unit. */
#define UNIT_NONE	(~0U)

static inline __u32 units_all(const struct unit_map *map)
{
	return map->nr_blocks * map->per_block;
}

static inline struct block *units_block(const struct unit_map *map, __u32 index)
{
	return &map->blocks[index / map->per_block];
}

/* Is there nothing in it but, perhaps, its own struct pages? */
static inline bool block_is_empty(const struct block *block)
{
	return block->nr[UNIT_USED] == block->own_memmap;
}

static inline __u64 units_number(const struct unit_map *map, __u32 index)
{
	return units_block(map, index)->first + index % map->per_block;
}

void units_init(struct unit_map *map);
__u32 units_index(const struct unit_map *map, __u64 unit);
__u32 units_block_at(const struct unit_map *map, __u64 unit);
void units_set(struct unit_map *map, __u32 index, __u32 nr, enum unit_state state);
__u32 units_behind(const struct unit_map *map, __u32 index);
bool units_guards(const struct unit_map *map, __u32 index);
bool units_open_end(const struct unit_map *map, __u32 index);
__u32 units_granted(struct unit_map *map, __u32 index, __u32 nr, __u32 granted);
__u32 units_warm_run(const struct unit_map *map, enum policy_zone zone, __u32 *from, __u32 max);
__u32 units_lost_guard(const struct unit_map *map, __u32 from);
__u32 units_settle(struct unit_map *map);
__u32 units_unguarded(const struct unit_map *map, __u32 from);
__u32 units_releasing(const struct unit_map *map, __u32 *cursor, struct elastic_range *ranges,
		      __u32 max);
void units_released(struct unit_map *map, const struct elastic_range *ranges, __u32 nr);
__u32 units_count(const struct unit_map *map, enum policy_zone zone, enum unit_state state);

#endif /* _ELASTIC_UNITS_H */
