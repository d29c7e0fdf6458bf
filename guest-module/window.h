/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the files about memory share: window.c finds the memory that the kernel
 * did not get at boot, mem.c takes blocks of it in and out, online.c brings them
 * into use.
 */
#ifndef _ELASTIC_WINDOW_H
#define _ELASTIC_WINDOW_H

#include "elastic_guest.h"

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

extern struct window window;

/* window.c */
void window_count(void);
u32 window_block_at(u64 unit);
bool block_is_online(const struct block *block);

/* online.c */

/* Room for what auto_online_blocks can say. */
#define AUTO_ONLINE_LEN	24

int auto_online_override(char *saved);
void auto_online_restore(const char *saved);
int online_block(u64 start, enum policy_zone zone);

#endif /* _ELASTIC_WINDOW_H */
