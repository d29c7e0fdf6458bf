/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Wrappers for <linux/memory_hotplug.h> and <linux/memory.h>.
 *
 * offline_and_remove_memory() has had a node as its first argument up to 5.10.
 * New blocks come up by the policy in auto_online_blocks: offline in 6.1, online
 * at once (and in ZONE_NORMAL) in 6.12. online.c overrides it on both.
 *
 * The pages of new memory have been reserved up to 6.10, and are offline from 6.11 on;
 * taking memory offline subtracted offline pages from the managed ones up to 6.10, and
 * does not from 6.11 on. Both have one reference. Balloons mark their pages offline,
 * too: the first of ours carries a mark of its own.
 */
#ifndef _COMPAT_MEMORY_HOTPLUG_H
#define _COMPAT_MEMORY_HOTPLUG_H

#include <linux/memory.h>
#include <linux/memory_hotplug.h>
#include <linux/mm.h>
#include <linux/numa.h>
#include <linux/version.h>

static inline int compat_offline_and_remove_memory(int nid, u64 start, u64 size)
{
#if LINUX_VERSION_CODE < KERNEL_VERSION(5, 11, 0)
	return offline_and_remove_memory(nid, start, size);
#else
	return offline_and_remove_memory(start, size);
#endif
}

/*
 * The node of memory that the kernel did not get at boot. Memory beyond mem= is
 * moved to a table of its own at boot, which only phys_to_target_node() reads.
 */
static inline int compat_absent_memory_nid(u64 start)
{
	int nid = phys_to_target_node(start);

	return nid == NUMA_NO_NODE ? memory_add_physaddr_to_nid(start) : nid;
}

#define COMPAT_WITHHELD_MARK	0x656c617374696300UL	/* "elastic" */

/* Are these pages that were withheld by the functions below? */
static inline bool compat_is_withheld(struct page *page, unsigned long nr)
{
	if (page_private(page) != COMPAT_WITHHELD_MARK)
		return false;
	while (nr--)
		if (!PageOffline(page++))
			return false;
	return true;
}

/* Withhold pages that the kernel has just made for a block that comes online. */
static inline void compat_withhold_new_pages(struct page *page, unsigned long nr)
{
	set_page_private(page, COMPAT_WITHHELD_MARK);
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 11, 0)
	for (; nr; nr--, page++) {
		__ClearPageReserved(page);
		__SetPageOffline(page);
	}
#endif
}

/* Withhold pages that were allocated: bring them into the same state. */
static inline void compat_withhold_pages(struct page *page, unsigned long nr)
{
	unsigned long i;

	page_offline_begin();
	set_page_private(page, COMPAT_WITHHELD_MARK);
	for (i = 0; i < nr; i++)
		__SetPageOffline(page + i);
	page_offline_end();
	adjust_managed_page_count(page, -(long)nr);
}

/* Give withheld pages to the allocator. */
static inline void compat_plug_pages(struct page *page, unsigned int order)
{
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 11, 0)
	unsigned long i;

	for (i = 0; i < 1UL << order; i++)
		__ClearPageOffline(page + i);
#endif
	set_page_private(page, 0);
	generic_online_page(page, order);
}

/* Drop the reference to each withheld page, so that its block can go, or take it again. */
static inline void compat_withheld_go(struct page *page, unsigned long nr, bool go)
{
	unsigned long i;

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 11, 0)
	adjust_managed_page_count(page, go ? nr : -(long)nr);
#endif
	for (i = 0; i < nr; i++) {
		if (go)
			page_ref_dec(page + i);
		else
			page_ref_inc(page + i);
	}
}

/* Is it of a kind that can be moved? (Huge pages of hugetlbfs are taken for others.) */
static inline bool compat_page_can_move(struct page *page)
{
	return PageLRU(page) || __PageMovable(page);
}

/* Empty and allocate a range. */
static inline int compat_alloc_contig_range(unsigned long start, unsigned long end)
{
	/* 6.12 refuses __GFP_NORETRY. */
	return alloc_contig_range(start, end, MIGRATE_MOVABLE,
				  GFP_KERNEL | __GFP_RETRY_MAYFAIL | __GFP_NOWARN);
}

#endif /* _COMPAT_MEMORY_HOTPLUG_H */
