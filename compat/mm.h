/* SPDX-License-Identifier: GPL-2.0 */
/* Copyright (C) the kvm-elastic authors */
/* <linux/mm.h> and <linux/hugetlb.h>: giving memory back. */
#ifndef COMPAT_MM_H
#define COMPAT_MM_H

#include <linux/hugetlb.h>
#include <linux/mm.h>
#include <linux/version.h>
#include <linux/vmstat.h>

/*
 * Drop the pages of a private mapping. zap_page_range() may run over several
 * VMAs; it went in 6.3, when the form for one VMA was exported in its place.
 */
static inline void elastic_zap_vma(struct vm_area_struct *vma,
				   unsigned long start, unsigned long size)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 3, 0)
	zap_page_range_single(vma, start, size, NULL);
#else
	zap_page_range(vma, start, size);
#endif
}

/* Until 6.6 hugetlb's page cache was indexed in huge pages. */
static inline pgoff_t elastic_hugetlb_index(struct vm_area_struct *vma,
					    loff_t offset)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 7, 0)
	return offset >> PAGE_SHIFT;
#else
	return offset >> huge_page_shift(hstate_vma(vma));
#endif
}

/**
 * elastic_resident_pages() - what a process has of the host's memory
 * @mm: its memory
 *
 * Swapped pages count: the host keeps them for it. The files of rss_stat are
 * single counters up to 6.1 and per CPU from 6.2 on; the kernel's own inline
 * functions know.
 *
 * Return: pages, about.
 */
static inline u64 elastic_resident_pages(struct mm_struct *mm)
{
	u64 pages = get_mm_rss(mm) + get_mm_counter(mm, MM_SWAPENTS);

#ifdef CONFIG_HUGETLB_PAGE
	pages += atomic_long_read(&mm->hugetlb_usage);
#endif
	return pages;
}

/**
 * elastic_direct_reclaims() - times that somebody had to free memory himself
 *
 * Context: may sleep.
 * Return: a counter of the whole host.
 */
static inline u64 elastic_direct_reclaims(void)
{
	unsigned long events[NR_VM_EVENT_ITEMS];
	u64 n = 0;
	int i;

	all_vm_events(events);
	for (i = ALLOCSTALL_NORMAL; i <= ALLOCSTALL_MOVABLE; i++)
		n += events[i];
	return n;
}

#endif /* COMPAT_MM_H */
