// SPDX-License-Identifier: GPL-2.0
/*
 * Units into the kernel's allocator and out of it.
 *
 * In: their pages were withheld, so nothing is allocated, and only struct pages are
 * touched. Out: what is in them is moved away. The kernel zeroes what is allocated
 * (init_on_alloc), this too, so whole blocks go where they can (block.c).
 *
 * Both use several CPUs where there is much to do, and so does dropping page cache.
 */
#include <linux/workqueue.h>

#include "compat/memory_hotplug.h"
#include "window.h"

/* Fewer units are not worth a second CPU. */
#define PLUG_SHARE	64
#define UNPLUG_SHARE	4
#define CACHE_SHARE	16
#define MAX_JOBS	8

/**
 * struct job - a part of the units, for one CPU
 * @work: on jobs_wq
 * @run: what to do
 * @first: index of the first unit
 * @nr: how many
 * @indices: of the units, if they are not one behind the other
 * @done: which of them were unplugged
 * @pages: how many pages of cache were dropped
 */
struct job {
	struct work_struct work;
	void (*run)(struct job *job);
	u32 first;
	u32 nr;
	const u32 *indices;
	bool *done;
	u64 pages;
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

static void unplug(struct job *job)
{
	u32 i;

	for (i = 0; i < job->nr; i++)
		job->done[i] = !worker_urgent() && unplug_one(job->indices[i]);
}

static void plug(struct job *job)
{
	u32 i;

	for (i = 0; i < job->nr; i++)
		compat_plug_pages(pfn_to_page(unit_pfn(job->first + i)), UNIT_ORDER);
}

static void drop_cache(struct job *job)
{
	job->pages = cache_give_up(unit_pfn(job->first), (unsigned long)job->nr * UNIT_PAGES);
}

static void run_job(struct work_struct *work)
{
	struct job *job = container_of(work, struct job, work);

	job->run(job);
}

/*
 * Share the work of @all among CPUs, at least @share units for each.
 *
 * Return: the sum of what they have in pages.
 */
static u64 run_jobs(const struct job *all, u32 share)
{
	struct job jobs[MAX_JOBS];
	u32 i, begin = 0, n = min3(all->nr / share, num_online_cpus(), (u32)MAX_JOBS);
	u64 pages = 0;

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
		pages += jobs[i].pages;
	}
	return pages;
}

/**
 * plug_units() - give units to the allocator
 * @index: of the first one, withheld
 * @nr: how many, one behind the other, of online blocks
 * @urgent: ask nobody for help, who may need memory for it
 *
 * Context: who acts for the worker.
 */
void plug_units(u32 index, u32 nr, bool urgent)
{
	struct job all = { .run = plug, .first = index, .nr = nr };

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
	struct job all = { .run = unplug, .nr = nr, .indices = indices, .done = done };
	u32 i, n = 0;

	run_jobs(&all, UNPLUG_SHARE);
	for (i = 0; i < nr; i++)
		n += done[i];
	return n;
}

/**
 * plug_drop_cache() - drop idle page cache
 * @index: of the first unit, of an online block
 * @nr: how many units, one behind the other, of online blocks
 *
 * Context: worker; may sleep.
 *
 * Return: how many pages were dropped.
 */
u64 plug_drop_cache(u32 index, u32 nr)
{
	struct job all = { .run = drop_cache, .first = index, .nr = nr };

	return run_jobs(&all, CACHE_SHARE);
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
