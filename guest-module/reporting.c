// SPDX-License-Identifier: GPL-2.0
/*
 * Free pages given back to the host, with their grant kept.
 *
 * The kernel's free page reporting hands out free memory, isolated, some two seconds
 * after it became free; DISCARD tells the host. It has one owner: if another driver
 * (virtio-balloon, say) is there first, that one does it, and this module stays out of
 * its way until it is told to try again.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/mm.h>
#include <linux/mutex.h>
#include <linux/page_reporting.h>
#include <linux/scatterlist.h>
#include <linux/sort.h>

#include "elastic_guest.h"

/* Protects the state. */
static DEFINE_MUTEX(reporting_lock);
static enum reporting_state state;

static int compare_ranges(const void *a, const void *b)
{
	const struct elastic_range *x = a, *y = b;

	return x->first < y->first ? -1 : x->first > y->first;
}

/* Whole units of what is reported, ascending, what joins in one range. */
static u32 to_ranges(struct scatterlist *sgl, unsigned int nents, struct elastic_range *ranges)
{
	u32 i, n = 0, merged = 0;
	struct scatterlist *sg;

	for_each_sg(sgl, sg, nents, i) {
		u64 start = sg_phys(sg);
		u64 end = (start + sg->length) >> ELASTIC_UNIT_SHIFT;

		start = DIV_ROUND_UP(start, ELASTIC_UNIT_SIZE);
		if (start < end)
			ranges[n++] = (struct elastic_range){ start, end - start };
	}
	if (!n)
		return 0;
	sort(ranges, n, sizeof(*ranges), compare_ranges, NULL);
	for (i = 1; i < n; i++) {
		if (ranges[merged].first + ranges[merged].nr == ranges[i].first)
			ranges[merged].nr += ranges[i].nr;
		else
			ranges[++merged] = ranges[i];
	}
	return merged + 1;
}

/* Bytes of what is being reported, by enum policy_zone. */
static u64 hidden_bytes[2];

/**
 * reporting_hidden_bytes() - free memory that is hidden from the kernel's counters
 * @zone: of which kind
 *
 * While pages are reported, up to 128 MiB at a time, they do not count as free.
 */
u64 reporting_hidden_bytes(enum policy_zone zone)
{
	return READ_ONCE(hidden_bytes[zone]);
}

static void hide(struct scatterlist *sgl, unsigned int nents)
{
	u64 bytes = 0;
	struct scatterlist *sg;
	unsigned int i;

	for_each_sg(sgl, sg, nents, i)
		bytes += sg->length;
	/* All of one zone. */
	WRITE_ONCE(hidden_bytes[is_zone_movable_page(sg_page(sgl)) ? POLICY_ZONE_MOVABLE :
								     POLICY_ZONE_KERNEL], bytes);
}

static int report_free(struct page_reporting_dev_info *info, struct scatterlist *sgl,
		       unsigned int nents)
{
	struct elastic_range ranges[PAGE_REPORTING_CAPACITY];
	int ret = 0;
	u32 nr;

	if (nents > ARRAY_SIZE(ranges))
		return -EINVAL;
	hide(sgl, nents);
	nr = to_ranges(sgl, nents, ranges);
	if (nr)
		ret = session_discard_units(ranges, nr);
	WRITE_ONCE(hidden_bytes[POLICY_ZONE_MOVABLE], 0);
	WRITE_ONCE(hidden_bytes[POLICY_ZONE_KERNEL], 0);
	return ret;
}

static struct page_reporting_dev_info reporting = {
	.report = report_free,
};

static int turn_on(void)
{
	int ret;

	/* With page poisoning a free page may not change. */
	if (!(READ_ONCE(session.features) & ELASTIC_FEAT_DISCARD) ||
	    (page_poisoning_enabled_static() && !want_init_on_free())) {
		state = REPORTING_ABSENT;
		return -EOPNOTSUPP;
	}
	/* What the kernel left in it the last time. */
	memset(&reporting, 0, sizeof(reporting));
	reporting.report = report_free;
	ret = page_reporting_register(&reporting);
	state = ret ? REPORTING_BUSY : REPORTING_ON;
	return ret;
}

/**
 * reporting_set() - give free pages back, or do not
 * @on: which of both
 *
 * Context: process, may sleep.
 *
 * Return: 0; -EBUSY if another driver has free page reporting; -EOPNOTSUPP if the host
 * knows no DISCARD.
 */
int reporting_set(bool on)
{
	int ret = 0;

	mutex_lock(&reporting_lock);
	if (on && state != REPORTING_ON) {
		ret = turn_on();
	} else if (!on) {
		if (state == REPORTING_ON)
			page_reporting_unregister(&reporting);
		state = REPORTING_OFF;
	}
	mutex_unlock(&reporting_lock);
	return ret;
}

/**
 * reporting_state() - who gives free pages back?
 */
enum reporting_state reporting_state(void)
{
	return READ_ONCE(state);
}

/**
 * reporting_start() - give free pages back, if nobody else does
 */
void reporting_start(void)
{
	if (reporting_set(true) == -EBUSY)
		pr_info("another driver has free page reporting; this one stays out of its way\n");
}

/**
 * reporting_stop() - give no more free pages back
 */
void reporting_stop(void)
{
	reporting_set(false);
}
