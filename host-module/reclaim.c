// SPDX-License-Identifier: GPL-2.0
// Copyright (C) the kvm-elastic authors
/*
 * Gives the memory behind released units back to the host.
 *
 * What a VMM's RAM is made of decides how: shared memory (memfd, tmpfs,
 * hugetlbfs) is punched out of its file, private anonymous memory is zapped.
 * Either way KVM's MMU notifier drops the guest's mappings. What is locked,
 * pinned for a device, watched by userfaultfd or of any other kind stays where
 * it is, and is counted; the guest loses its mappings of it all the same.
 */
#include <linux/fs.h>
#include <linux/falloc.h>
#include <linux/magic.h>
#include <linux/mmu_notifier.h>
#include <linux/pagevec.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>

#include "compat/mm.h"
#include "elastic_host.h"
#include "trace.h"

#define UNIT_PAGES	BIT(ELASTIC_UNIT_GFN_SHIFT)
/* At a time, so that the VMM's own use of its memory does not wait for long. */
#define ROUND_PAGES	(32 * UNIT_PAGES)

enum backing {
	BACKING_UNKNOWN,
	BACKING_FILE,
	BACKING_ANON,
};

/*
 * Whoever gave up memory on huge pages of hugetlbfs does not get it back for sure: the
 * host may have given it away. That is not for memory that may be used again any time.
 */
static enum backing backing_of(struct vm_area_struct *vma, bool released)
{
	if (!released && is_vm_hugetlb_page(vma))
		return BACKING_UNKNOWN;
	if (vma->vm_flags & (VM_LOCKED | VM_IO | VM_PFNMAP | VM_MIXEDMAP |
			     __VM_UFFD_FLAGS))
		return BACKING_UNKNOWN;
	if (!(vma->vm_flags & VM_READ) || !(vma->vm_flags & VM_WRITE))
		return BACKING_UNKNOWN;
	if (vma->vm_flags & VM_SHARED) {
		unsigned long magic;

		if (!vma->vm_file)
			return BACKING_UNKNOWN;
		magic = file_inode(vma->vm_file)->i_sb->s_magic;
		return magic == TMPFS_MAGIC || magic == HUGETLBFS_MAGIC ?
		       BACKING_FILE : BACKING_UNKNOWN;
	}
	return vma_is_anonymous(vma) ? BACKING_ANON : BACKING_UNKNOWN;
}

/* Is a page of the file, from @start to @end in bytes, pinned for a device? */
static bool file_is_pinned(struct vm_area_struct *vma, loff_t start, loff_t end)
{
	struct address_space *mapping = vma->vm_file->f_mapping;
	bool huge = is_vm_hugetlb_page(vma);
	pgoff_t index = huge ? elastic_hugetlb_index(vma, start) :
			       start >> PAGE_SHIFT;
	pgoff_t last = huge ? elastic_hugetlb_index(vma, end - 1) :
			      (end - 1) >> PAGE_SHIFT;
	struct folio_batch batch;
	bool pinned = false;
	unsigned int i;

	folio_batch_init(&batch);
	while (!pinned && filemap_get_folios(mapping, &index, last, &batch)) {
		for (i = 0; i < folio_batch_count(&batch) && !pinned; i++)
			pinned = folio_maybe_dma_pinned(batch.folios[i]);
		folio_batch_release(&batch);
		cond_resched();
	}
	return pinned;
}

/*
 * Is a page of private memory pinned? Only what is mapped can be looked at.
 * NUMA balancing makes mapped pages unreachable for this look-up, so where
 * there is more than one node, all memory of a VMM that pins counts as pinned.
 */
static bool anon_is_pinned(struct mm_struct *mm, unsigned long start,
			   unsigned long end)
{
	struct page *page;
	bool pinned = false;

	if (!test_bit(MMF_HAS_PINNED, &mm->flags))
		return false;
	if (num_online_nodes() > 1)
		return true;
	for (; start < end && !pinned; start += PAGE_SIZE) {
		if (get_user_pages_fast_only(start, 1, 0, &page) != 1)
			continue;
		pinned = !is_zero_pfn(page_to_pfn(page)) &&
			 folio_maybe_dma_pinned(page_folio(page));
		put_page(page);
		cond_resched();
	}
	return pinned;
}

static loff_t file_offset(struct vm_area_struct *vma, unsigned long addr)
{
	return addr - vma->vm_start + ((loff_t)vma->vm_pgoff << PAGE_SHIFT);
}

static bool is_pinned(struct vm_area_struct *vma, enum backing backing,
		      unsigned long start, unsigned long end)
{
	if (backing == BACKING_ANON)
		return anon_is_pinned(vma->vm_mm, start, end);
	return file_is_pinned(vma, file_offset(vma, start),
			      file_offset(vma, end));
}

/*
 * From @start to @end, in steps of a unit: the end of the first run of units
 * that are all pinned or all not.
 */
static unsigned long pinned_run(struct vm_area_struct *vma,
				enum backing backing, unsigned long start,
				unsigned long end, bool *pinned)
{
	unsigned long next = min(end, start + (unsigned long)ELASTIC_UNIT_SIZE);

	*pinned = is_pinned(vma, backing, start, next);
	for (start = next; start < end; start = next) {
		next = min(end, start + (unsigned long)ELASTIC_UNIT_SIZE);
		if (is_pinned(vma, backing, start, next) != *pinned)
			break;
	}
	return start;
}

/*
 * Take one run of addresses of the VMM. The file is punched without mmap_lock,
 * which its own locks come before.
 *
 * Return: the end of the run; *@taken is set if it was taken.
 */
static unsigned long take_run(struct mm_struct *mm, unsigned long start,
			      unsigned long end, bool released, bool *taken)
{
	struct vm_area_struct *vma;
	struct file *file = NULL;
	enum backing backing;
	loff_t offset = 0;
	bool pinned;

	*taken = false;
	mmap_read_lock(mm);
	vma = find_vma(mm, start);
	if (!vma || vma->vm_start > start) {
		if (vma)
			end = min(end, vma->vm_start);
		goto out;
	}
	end = min(end, vma->vm_end);
	backing = backing_of(vma, released);
	if (backing == BACKING_UNKNOWN)
		goto out;
	end = pinned_run(vma, backing, start, end, &pinned);
	if (pinned)
		goto out;
	if (backing == BACKING_ANON) {
		elastic_zap_vma(vma, start, end - start);
		*taken = true;
	} else {
		file = get_file(vma->vm_file);
		offset = file_offset(vma, start);
	}
out:
	mmap_read_unlock(mm);
	if (file) {
		*taken = !vfs_fallocate(file, FALLOC_FL_PUNCH_HOLE |
					FALLOC_FL_KEEP_SIZE,
					offset, end - start);
		fput(file);
	}
	return end;
}

/* Frames from @gfn, which is in no memslot, to the next one of its unit that is in one. */
static unsigned long hole_pages(struct kvm *kvm, gfn_t gfn, gfn_t end)
{
	gfn_t next = gfn + 1;

	end = min(end, ALIGN(next, UNIT_PAGES));
	while (next < end && !__gfn_to_memslot(kvm_memslots(kvm), next))
		next++;
	return next - gfn;
}

/*
 * Addresses behind guest frames [gfn, end): the first piece in one memslot, 0
 * if there is none. What has become read-only is not RAM any more, and is not
 * taken. Context: kvm->srcu held.
 */
static unsigned long first_piece(struct kvm *kvm, gfn_t gfn, gfn_t end,
				 unsigned long *npages, bool *read_only)
{
	struct kvm_memory_slot *slot;

	slot = __gfn_to_memslot(kvm_memslots(kvm), gfn);
	*read_only = slot && slot->flags & KVM_MEM_READONLY;
	if (!slot) {
		*npages = hole_pages(kvm, gfn, end);
		return 0;
	}
	*npages = min(end, slot->base_gfn + slot->npages) - gfn;
	*npages = min(*npages, ROUND_PAGES);
	if (slot->id >= KVM_USER_MEM_SLOTS || slot->flags & KVM_MEMSLOT_INVALID)
		return 0;
	return __gfn_to_hva_memslot(slot, gfn);
}

/*
 * Drop what the guest has mapped of addresses that stay populated, as if they
 * were invalidated: the next access faults, and meets the gate.
 */
static void unmap(struct kvm *kvm, unsigned long start, unsigned long end)
{
	const struct mmu_notifier_ops *ops = kvm->mmu_notifier.ops;
	struct mmu_notifier_range range = {
		.mm = current->mm,
		.start = start,
		.end = end,
		.flags = MMU_NOTIFIER_RANGE_BLOCKABLE,
		.event = MMU_NOTIFY_CLEAR,
	};

	ops->invalidate_range_start(&kvm->mmu_notifier, &range);
	ops->invalidate_range_end(&kvm->mmu_notifier, &range);
}

static bool vma_range_has_giant_pages(unsigned long start, unsigned long end)
{
	struct vm_area_struct *vma;
	bool giant = false;

	mmap_read_lock(current->mm);
	for (; start < end && !giant; start = vma->vm_end) {
		vma = find_vma(current->mm, start);
		if (!vma || vma->vm_start >= end)
			break;
		giant = vma_is_dax(vma) ||
			(is_vm_hugetlb_page(vma) &&
			 huge_page_size(hstate_vma(vma)) > ELASTIC_UNIT_SIZE);
	}
	mmap_read_unlock(current->mm);
	return giant;
}

/**
 * elastic_has_giant_pages() - is guest RAM backed by pages larger than a unit?
 * @vcpu: the vCPU whose thread this is
 * @r: units of RAM
 *
 * Context: vCPU, kvm->srcu not held, may sleep.
 */
bool elastic_has_giant_pages(struct kvm_vcpu *vcpu,
			     const struct elastic_range *r)
{
	gfn_t gfn = r->first << ELASTIC_UNIT_GFN_SHIFT;
	gfn_t end = (r->first + r->nr) << ELASTIC_UNIT_GFN_SHIFT;
	unsigned long hva, npages;
	bool giant = false, read_only;

	for (; gfn < end && !giant; gfn += npages) {
		kvm_vcpu_srcu_read_lock(vcpu);
		hva = first_piece(vcpu->kvm, gfn, end, &npages, &read_only);
		if (hva)
			giant = vma_range_has_giant_pages(hva, hva +
						(npages << PAGE_SHIFT));
		kvm_vcpu_srcu_read_unlock(vcpu);
		cond_resched();
	}
	return giant;
}

/*
 * Take what is behind [hva, end), and have the guest lose its mappings of it, if it
 * was released, in any case: what the file system made of a hole is its own affair.
 *
 * Return: how many bytes were taken.
 */
static u64 take_piece(struct kvm *kvm, unsigned long hva, unsigned long end,
		      bool released)
{
	unsigned long next;
	u64 bytes = 0;
	bool taken;

	for (; hva < end; hva = next) {
		next = take_run(current->mm, hva, end, released, &taken);
		if (released)
			unmap(kvm, hva, next);
		if (taken)
			bytes += next - hva;
	}
	return bytes;
}

/**
 * elastic_reclaim_wait() - wait for accesses that began when units were granted
 * @vcpu: the vCPU whose thread this is
 *
 * KVM asks the gate first and gets the page then. If the memory were taken in
 * between, the invalidation would undo the mapping, but not the page: it would
 * stay behind a unit that is not granted, and nobody would count it. All of that
 * is in one section of kvm->srcu.
 *
 * Context: vCPU, kvm->srcu not held, may sleep; after units were withheld and
 * before they are taken.
 */
void elastic_reclaim_wait(struct kvm_vcpu *vcpu)
{
	synchronize_srcu_expedited(&vcpu->kvm->srcu);
}

/**
 * elastic_reclaim() - give the memory behind units back to the host
 * @vm: the VM
 * @vcpu: the vCPU whose thread this is
 * @r: the units
 * @released: they are withheld already; else the guest may use them again
 *
 * kvm->srcu is held over each round: until the VMM may delete the memslot and
 * use the addresses for something else. Nothing below it waits for KVM.
 *
 * Context: vCPU, kvm->srcu not held, may sleep; @vm->lock held, so that
 * nobody is granted the units meanwhile.
 * Return: how many units were taken; the rest of what was released is counted as
 * unreclaimed.
 */
u64 elastic_reclaim(struct elastic_vm *vm, struct kvm_vcpu *vcpu,
		    const struct elastic_range *r, bool released)
{
	gfn_t gfn = r->first << ELASTIC_UNIT_GFN_SHIFT;
	gfn_t end = (r->first + r->nr) << ELASTIC_UNIT_GFN_SHIFT;
	unsigned long hva, npages;
	bool read_only;
	u64 bytes = 0;

	lockdep_assert_held(&vm->lock);

	for (; gfn < end && !fatal_signal_pending(current); gfn += npages) {
		kvm_vcpu_srcu_read_lock(vcpu);
		hva = first_piece(vcpu->kvm, gfn, end, &npages, &read_only);
		if (hva && read_only && released)
			unmap(vcpu->kvm, hva, hva + (npages << PAGE_SHIFT));
		else if (hva && !read_only)
			bytes += take_piece(vcpu->kvm, hva,
					    hva + (npages << PAGE_SHIFT),
					    released);
		kvm_vcpu_srcu_read_unlock(vcpu);
		cond_resched();
	}
	elastic_stat_add(vm, released ? ELASTIC_STAT_TAKEN :
					ELASTIC_STAT_DISCARDED, bytes);
	if (released)
		elastic_stat_add(vm, ELASTIC_STAT_UNRECLAIMED,
				 (r->nr << ELASTIC_UNIT_SHIFT) - bytes);
	trace_elastic_take(vm->pid, r->first, r->nr, bytes);
	return bytes >> ELASTIC_UNIT_SHIFT;
}
