// SPDX-License-Identifier: GPL-2.0
/*
 * Page cache is given up before memory in use is moved.
 *
 * What is clean, not mapped and was not used again since it was read is dropped from
 * memory that is to go: that costs less than to copy it elsewhere, and what it is worth
 * can be read again. All else is left to the kernel, which moves it.
 */
#include <linux/fs.h>
#include <linux/mm.h>
#include <linux/pagemap.h>

#include "compat/memory_hotplug.h"
#include "window.h"

/**
 * struct run - pages of one file, one behind the other in it
 * @inode: referenced, its super block locked against unmounting; NULL if there is none
 * @first: index in the file
 * @next: the first index behind it
 */
struct run {
	struct inode *inode;
	pgoff_t first;
	pgoff_t next;
};

static u64 drop_run(struct run *run)
{
	struct super_block *sb;
	u64 pages;

	if (!run->inode)
		return 0;
	sb = run->inode->i_sb;
	pages = invalidate_mapping_pages(run->inode->i_mapping, run->first, run->next - 1);
	iput(run->inode);
	up_read(&sb->s_umount);
	run->inode = NULL;
	return pages;
}

static bool is_idle_cache(struct folio *folio)
{
	return folio_test_lru(folio) && !folio_test_anon(folio) &&
	       !folio_test_swapbacked(folio) && !folio_test_active(folio) &&
	       !folio_test_unevictable(folio) && !folio_test_dirty(folio) &&
	       !folio_test_writeback(folio) && !folio_mapped(folio);
}

/* Whoever unmounts the file system waits until the inode is put. */
static struct inode *get_inode(struct inode *inode)
{
	struct super_block *sb = inode->i_sb;

	if (!down_read_trylock(&sb->s_umount))
		return NULL;
	if (sb->s_flags & SB_ACTIVE && igrab(inode))
		return inode;
	up_read(&sb->s_umount);
	return NULL;
}

/* While a page is locked, its file cannot go away. */
static struct inode *inode_of(struct folio *folio)
{
	struct inode *inode = NULL;

	if (!folio_trylock(folio))
		return NULL;
	if (folio->mapping && is_idle_cache(folio))
		inode = get_inode(folio->mapping->host);
	folio_unlock(folio);
	return inode;
}

static u64 add_to_run(struct run *run, struct folio *folio)
{
	u64 dropped = 0;

	if (!run->inode || READ_ONCE(folio->mapping) != run->inode->i_mapping ||
	    folio->index != run->next) {
		dropped = drop_run(run);
		run->inode = inode_of(folio);
		run->first = folio->index;
	}
	run->next = folio->index + folio_nr_pages(folio);
	return dropped;
}

/*
 * Is it a page that follows in the file? Read without a reference to it: a wrong guess
 * drops another idle page of the same file.
 */
static bool goes_on(const struct run *run, struct page *page)
{
	struct folio *folio = (struct folio *)page;

	return run->inode && PageLRU(page) && !PageCompound(page) &&
	       READ_ONCE(folio->mapping) == run->inode->i_mapping &&
	       READ_ONCE(folio->index) == run->next && is_idle_cache(folio);
}

/* Pages of a free buddy, 0 if it is none. Read without the zone's lock. */
static unsigned long buddy_pages(struct page *page)
{
	unsigned long order = PageBuddy(page) ? READ_ONCE(page->private) : ~0UL;

	return order <= UNIT_ORDER + 1 ? 1UL << order : 0;
}

/**
 * pages_look() - what is in a range
 * @pfn: first page of an online block, or of a part of it
 * @nr: pages
 * @look: is filled
 *
 * Read without any lock: a wrong guess costs a slower removal. Buddies are aligned, so
 * a step never leaves the range unless the guess was wrong.
 *
 * Context: process; may sleep.
 */
void pages_look(unsigned long pfn, unsigned long nr, struct pages_look *look)
{
	unsigned long end = pfn + nr, step;

	look->free = 0;
	look->cache = 0;
	look->fixed = 0;
	for (; pfn < end; pfn += step) {
		struct page *page = pfn_to_page(pfn);

		if (!(pfn % UNIT_PAGES))
			cond_resched();
		step = buddy_pages(page);
		look->free += (u64)step << PAGE_SHIFT;
		if (step)
			continue;
		step = 1;
		/* A folio may go away, or change, any time: so look at each page alone. */
		if (PageTail(page) || PageOffline(page) || !page_count(page))
			continue;
		if (!compat_page_can_move(page))
			look->fixed += PAGE_SIZE;
		else if (is_idle_cache((struct folio *)page))
			look->cache += PAGE_SIZE;
	}
	look->free = min_t(u64, look->free, (u64)nr << PAGE_SHIFT);
}

/**
 * cache_give_up() - drop idle page cache
 * @pfn: first page of an online block, or of a part of it
 * @nr: pages
 *
 * Context: process; may sleep.
 *
 * Return: how many pages were dropped.
 */
u64 cache_give_up(unsigned long pfn, unsigned long nr)
{
	unsigned long end = pfn + nr;
	struct run run = {};
	u64 dropped = 0;

	while (pfn < end && !worker_urgent()) {
		struct page *page = pfn_to_page(pfn);
		unsigned long step = 1;
		struct folio *folio;

		if (!(pfn % UNIT_PAGES))
			cond_resched();
		if (buddy_pages(page)) {
			pfn += buddy_pages(page) ?: 1;
			continue;
		}
		if (goes_on(&run, page)) {
			run.next++;
			pfn++;
			continue;
		}
		folio = page_folio(page);
		if (!PageLRU(page) || !folio_try_get(folio)) {
			pfn++;
			continue;
		}
		if (page_folio(page) == folio) {
			if (is_idle_cache(folio))
				dropped += add_to_run(&run, folio);
			step = folio_nr_pages(folio) - folio_page_idx(folio, page);
		}
		folio_put(folio);
		pfn += step;
	}
	return dropped + drop_run(&run);
}
