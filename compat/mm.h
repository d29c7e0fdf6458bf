/* SPDX-License-Identifier: GPL-2.0 */
/* Copyright (C) the kvm-elastic authors */
/* <linux/mm.h> and <linux/hugetlb.h>: giving memory back. */
#ifndef COMPAT_MM_H
#define COMPAT_MM_H

#include <linux/hugetlb.h>
#include <linux/mm.h>
#include <linux/version.h>

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

#endif /* COMPAT_MM_H */
