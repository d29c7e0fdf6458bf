// SPDX-License-Identifier: GPL-2.0
/* The map of units; see units.h for its states and for what a guard is. */
#include "units.h"

/**
 * units_init() - all units absent
 * @map: with its blocks and room for the states
 */
void units_init(struct unit_map *map)
{
	__u32 i, state;

	for (i = 0; i < units_all(map); i++)
		map->state[i] = UNIT_ABSENT;
	for (i = 0; i < map->nr_blocks; i++) {
		for (state = 0; state < UNIT_NR_STATES; state++)
			map->blocks[i].nr[state] = 0;
		map->blocks[i].nr[UNIT_ABSENT] = map->per_block;
	}
}

/**
 * units_block_at() - the first block that ends behind a unit
 * @map: the map
 * @unit: number of the unit
 *
 * Return: its index; the number of blocks if there is none.
 */
__u32 units_block_at(const struct unit_map *map, __u64 unit)
{
	__u32 low = 0, high = map->nr_blocks;

	while (low < high) {
		__u32 mid = low + (high - low) / 2;

		if (map->blocks[mid].first + map->per_block <= unit)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

/**
 * units_index() - where a unit is in the map
 * @map: the map
 * @unit: number of the unit
 *
 * Return: its index, or UNIT_NONE if it is in no block.
 */
__u32 units_index(const struct unit_map *map, __u64 unit)
{
	__u32 block = units_block_at(map, unit);

	if (block == map->nr_blocks || map->blocks[block].first > unit)
		return UNIT_NONE;
	return block * map->per_block + (unit - map->blocks[block].first);
}

/**
 * units_set() - put units into a state
 * @map: the map
 * @index: of the first
 * @nr: how many; they may cross blocks
 * @state: the new one
 */
void units_set(struct unit_map *map, __u32 index, __u32 nr, enum unit_state state)
{
	for (; nr; nr--, index++) {
		struct block *block = units_block(map, index);

		block->nr[map->state[index]]--;
		block->nr[state]++;
		map->state[index] = state;
	}
}

/**
 * units_behind() - the unit at the address where another one ends
 * @map: the map
 * @index: the other one
 *
 * Return: its index, or UNIT_NONE if no block is there.
 */
__u32 units_behind(const struct unit_map *map, __u32 index)
{
	__u32 next = index + 1;

	if (next % map->per_block)
		return next;
	if (next == units_all(map) || !units_block(map, next)->joins)
		return UNIT_NONE;
	return next;
}

static bool is_mapped(const struct unit_map *map, __u32 index)
{
	return units_block(map, index)->state != BLOCK_ABSENT;
}

/**
 * units_guards() - is what ends where this unit begins in use?
 * @map: the map
 * @index: the unit
 *
 * Return: true if it has to be granted once its block is in the kernel.
 */
bool units_guards(const struct unit_map *map, __u32 index)
{
	if (!(index % map->per_block)) {
		const struct block *block = units_block(map, index);

		if (!block->joins)
			return block->behind_foreign;
	}
	return map->state[index - 1] == UNIT_USED;
}

/**
 * units_open_end() - if this unit is used, does the one behind it need a grant?
 * @map: the map
 * @index: the unit, of a block that is in the kernel or about to be
 *
 * Return: true if the unit behind is mapped then, and is not granted.
 */
bool units_open_end(const struct unit_map *map, __u32 index)
{
	__u32 behind = units_behind(map, index);

	/* One that is being released may be gone already: a HELLO does that, too. */
	if (behind == UNIT_NONE || map->state[behind] >= UNIT_GUARD)
		return false;
	return units_block(map, behind) == units_block(map, index) || is_mapped(map, behind);
}

/**
 * units_granted() - the host has granted units that are to be used
 * @map: the map
 * @index: of the first one
 * @nr: how many were wanted, one behind the other by address
 * @granted: how many from the first one on are granted now; more than @nr if the one
 *	behind them was asked for as well, since units_open_end()
 *
 * What is granted is GUARD then.
 *
 * Return: how many of @nr can be used: if what is granted ends before something that is
 * mapped and not granted, the last one has to be its guard.
 */
__u32 units_granted(struct unit_map *map, __u32 index, __u32 nr, __u32 granted)
{
	__u32 i;

	for (i = index; i < index + granted; i++)
		if (map->state[i] < UNIT_GUARD)
			units_set(map, i, 1, UNIT_GUARD);
	if (granted < nr)
		nr = granted;
	if (nr && units_open_end(map, index + nr - 1))
		nr--;
	return nr;
}

static bool can_plug(const struct unit_map *map, __u32 index, enum policy_zone zone)
{
	const struct block *block = units_block(map, index);

	return block->state == BLOCK_ONLINE && block->zone == zone &&
	       (map->state[index] == UNIT_WARM || map->state[index] == UNIT_GUARD);
}

/**
 * units_warm_run() - the next run of units that only need a grant
 * @map: the map
 * @zone: of which kind
 * @from: where to begin; then the index of the first one
 * @max: most that are wanted, at least 1
 *
 * Return: how many there are, one behind the other by address; 0 at the end.
 */
__u32 units_warm_run(const struct unit_map *map, enum policy_zone zone, __u32 *from, __u32 max)
{
	__u32 i = *from, n;

	for (;;) {
		if (i >= units_all(map))
			return 0;
		if (can_plug(map, i, zone))
			break;
		/* A block with nothing to offer is passed over as a whole. */
		if (!units_block(map, i)->nr[UNIT_WARM] && !units_block(map, i)->nr[UNIT_GUARD])
			i += map->per_block - i % map->per_block;
		else
			i++;
	}
	*from = i;
	for (n = 1; n < max; n++) {
		i = units_behind(map, i);
		if (i == UNIT_NONE || !can_plug(map, i, zone))
			break;
	}
	return n;
}

/**
 * units_lost_guard() - the next unit that is to be released and is needed as a guard
 * @map: the map
 * @from: where to begin
 *
 * It is asked for again before it counts as one: the host may have taken it.
 *
 * Return: its index, or UNIT_NONE.
 */
__u32 units_lost_guard(const struct unit_map *map, __u32 from)
{
	__u32 i;

	for (i = from; i < units_all(map); i++) {
		if (!units_block(map, i)->nr[UNIT_RELEASING])
			i += map->per_block - i % map->per_block - 1;
		else if (map->state[i] == UNIT_RELEASING && is_mapped(map, i) &&
			 units_guards(map, i))
			return i;
	}
	return UNIT_NONE;
}

/**
 * units_settle() - guards that are not needed any more are to be released
 * @map: the map
 *
 * Return: how many units are to be released.
 */
__u32 units_settle(struct unit_map *map)
{
	__u32 i, b, n = 0;

	for (b = 0; b < map->nr_blocks; b++) {
		const struct block *block = &map->blocks[b];

		for (i = b * map->per_block;
		     block->nr[UNIT_GUARD] && i < (b + 1) * map->per_block; i++)
			if (map->state[i] == UNIT_GUARD &&
			    (block->state == BLOCK_ABSENT || !units_guards(map, i)))
				units_set(map, i, 1, UNIT_RELEASING);
		n += block->nr[UNIT_RELEASING];
	}
	return n;
}

/**
 * units_unguarded() - the next unit that should be a guard and is not granted
 * @map: the map
 * @from: where to begin
 *
 * Return: its index, or UNIT_NONE.
 */
__u32 units_unguarded(const struct unit_map *map, __u32 from)
{
	__u32 i;

	for (i = from; i < units_all(map); i++) {
		if (!units_block(map, i)->nr[UNIT_WARM])
			i += map->per_block - i % map->per_block - 1;
		else if (map->state[i] == UNIT_WARM && units_guards(map, i))
			return i;
	}
	return UNIT_NONE;
}

/**
 * units_releasing() - the units that are to be released, as ranges
 * @map: the map
 * @cursor: 0 at the start; where the next call goes on
 * @ranges: ascending, disjoint, with a gap between them
 * @max: room in @ranges
 *
 * Return: how many ranges were written; 0 at the end.
 */
__u32 units_releasing(const struct unit_map *map, __u32 *cursor, struct elastic_range *ranges,
		      __u32 max)
{
	__u32 i, n = 0;

	for (i = *cursor; i < units_all(map); i++) {
		__u64 unit = units_number(map, i);

		if (!units_block(map, i)->nr[UNIT_RELEASING]) {
			i += map->per_block - i % map->per_block - 1;
			continue;
		}
		if (map->state[i] != UNIT_RELEASING)
			continue;
		if (n && ranges[n - 1].first + ranges[n - 1].nr == unit) {
			ranges[n - 1].nr++;
			continue;
		}
		if (n == max)
			break;
		ranges[n].first = unit;
		ranges[n++].nr = 1;
	}
	*cursor = i;
	return n;
}

/**
 * units_released() - the host has taken them
 * @map: the map
 * @ranges: as units_releasing() wrote them
 * @nr: how many
 */
void units_released(struct unit_map *map, const struct elastic_range *ranges, __u32 nr)
{
	__u32 i, k, index;

	for (i = 0; i < nr; i++) {
		for (k = 0; k < ranges[i].nr; k++) {
			index = units_index(map, ranges[i].first + k);
			units_set(map, index, 1, is_mapped(map, index) ? UNIT_WARM : UNIT_ABSENT);
		}
	}
}

/**
 * units_count() - units in a state
 * @map: the map
 * @zone: count the online blocks of this one alone
 * @state: of which state
 */
__u32 units_count(const struct unit_map *map, enum policy_zone zone, enum unit_state state)
{
	__u32 b, n = 0;

	for (b = 0; b < map->nr_blocks; b++)
		if (map->blocks[b].state == BLOCK_ONLINE && map->blocks[b].zone == zone)
			n += map->blocks[b].nr[state];
	return n;
}
