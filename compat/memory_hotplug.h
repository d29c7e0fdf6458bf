/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Wrappers for <linux/memory_hotplug.h> and <linux/memory.h>.
 *
 * offline_and_remove_memory() has had a node as its first argument up to 5.10.
 * New blocks come up by the policy in auto_online_blocks: offline in 6.1, online
 * at once (and in ZONE_NORMAL) in 6.12. online.c overrides it on both.
 */
#ifndef _COMPAT_MEMORY_HOTPLUG_H
#define _COMPAT_MEMORY_HOTPLUG_H

#include <linux/memory.h>
#include <linux/memory_hotplug.h>
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

#endif /* _COMPAT_MEMORY_HOTPLUG_H */
