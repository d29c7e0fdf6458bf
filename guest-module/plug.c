// SPDX-License-Identifier: GPL-2.0
/*
 * Units into the kernel's allocator and out of it.
 *
 * In: their pages were withheld, so nothing is allocated, and only struct pages are
 * touched. Out: what is in them is moved away. The kernel zeroes what is allocated
 * (init_on_alloc), this too, so whole blocks go where they can (block.c).
 *
 * Both use several CPUs where there is much to do.
 */
#include <linux/workqueue.h>

#include "compat/memory_hotplug.h"
#include "window.h"

/* Fewer units are not worth a second CPU. */
#define PLUG_SHARE	64
#define UNPLUG_SHARE	4
#define MAX_JOBS	8

/**
 * struct job - a part of the units, for one CPU
 * @work: on jobs_wq
 * @first: index of the first unit to plug
 * @nr: how many
 * @indices: of the units to unplug, NULL to plug
 * @done: which of them were unplugged
 */
struct job {
	struct work_struct work;
	u32 first;
	u32 nr;
	const u32 *indices;
	bool *done;
};

static struct workqueue_struct *jobs_wq;

static bool unplug_one(u32 index)
{
	unsigned long pfn = unit_pfn(index);

	cache_give_up(pfn, UNIT_PAGES);
	if (compat_alloc_contig_range(pfn, pfn + UNIT_PAGES))
		return false;
	compat_withhold_pages(pfn_to_page(pfn), UNIT_PAGES);
	return true;
}

static void run_job(struct work_struct *work)
{
	struct job *job = container_of(work, struct job, work);
	u32 i;

	for (i = 0; i < job->nr; i++) {
		if (job->indices)
			job->done[i] = !worker_urgent() && unplug_one(job->indices[i]);
		else
			compat_plug_pages(pfn_to_page(unit_pfn(job->first + i)), UNIT_ORDER);
	}
}

/* Share the work of @all among CPUs, at least @share units for each. */
static void run_jobs(const struct job *all, u32 share)
{
	struct job jobs[MAX_JOBS];
	u32 i, begin = 0, n = min3(all->nr / share, num_online_cpus(), (u32)MAX_JOBS);

	n = max(n, 1U);
	for (i = 0; i < n; i++) {
		u32 end = (u64)all->nr * (i + 1) / n;

		jobs[i] = *all;
		jobs[i].first += begin;
		jobs[i].nr = end - begin;
		if (all->indices) {
			jobs[i].indices += begin;
			jobs[i].done += begin;
		}
		INIT_WORK_ONSTACK(&jobs[i].work, run_job);
		if (i)
			queue_work(jobs_wq, &jobs[i].work);
		begin = end;
	}
	run_job(&jobs[0].work);
	for (i = 0; i < n; i++) {
		if (i)
			flush_work(&jobs[i].work);
		destroy_work_on_stack(&jobs[i].work);
	}
}

/**
 * plug_units() - give units to the allocator
 * @index: of the first one, withheld
 * @nr: how many, one behind the other, of online blocks
 * @urgent: memory has run out: ask nobody for help, who may need memory for it
 *
 * Context: worker.
 */
void plug_units(u32 index, u32 nr, bool urgent)
{
	struct job all = { .first = index, .nr = nr };

	run_jobs(&all, urgent ? U32_MAX : PLUG_SHARE);
}

/**
 * unplug_units() - take units out of the allocator
 * @indices: of the units, in use, of online blocks
 * @nr: how many
 * @done: which were taken out and are withheld now
 *
 * Context: worker; may sleep, allocates.
 *
 * Return: how many.
 */
u32 unplug_units(const u32 *indices, u32 nr, bool *done)
{
	struct job all = { .nr = nr, .indices = indices, .done = done };
	u32 i, n = 0;

	run_jobs(&all, UNPLUG_SHARE);
	for (i = 0; i < nr; i++)
		n += done[i];
	return n;
}

/**
 * plug_start() - get ready
 *
 * Return: 0 or -ENOMEM.
 */
int plug_start(void)
{
	jobs_wq = alloc_workqueue("elastic_guest", WQ_UNBOUND | WQ_MEM_RECLAIM, MAX_JOBS);
	return jobs_wq ? 0 : -ENOMEM;
}

void plug_stop(void)
{
	destroy_workqueue(jobs_wq);
}
