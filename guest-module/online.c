// SPDX-License-Identifier: GPL-2.0
/*
 * Memory blocks brought into use, as user space does it.
 *
 * No kernel exports the function behind these files in sysfs to modules.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/err.h>
#include <linux/fs.h>
#include <linux/sched/signal.h>
#include <linux/string.h>

#include "window.h"

#define SYSFS_MEMORY	"/sys/devices/system/memory"

/* restart_syscall() in a sysfs store: somebody else holds the hotplug lock. */
#define LOCK_TRIES	2000

/* A store that finds the hotplug lock taken asks to be called again. */
static ssize_t write_again(struct file *file, const char *text)
{
	unsigned int tries;
	ssize_t ret;

	for (tries = 0; tries < LOCK_TRIES; tries++) {
		loff_t pos = 0;

		ret = kernel_write(file, text, strlen(text), &pos);
		if (ret != -ERESTARTNOINTR)
			break;
		clear_thread_flag(TIF_SIGPENDING);
	}
	return ret == -ERESTARTNOINTR ? -EBUSY : ret;
}

static int write_file(const char *path, const char *text)
{
	struct file *file = filp_open(path, O_WRONLY, 0);
	ssize_t ret;

	if (IS_ERR(file))
		return PTR_ERR(file);
	ret = write_again(file, text);
	filp_close(file, NULL);
	return ret < 0 ? ret : 0;
}

static int read_file(const char *path, char *text, size_t size)
{
	struct file *file = filp_open(path, O_RDONLY, 0);
	loff_t pos = 0;
	ssize_t ret;

	if (IS_ERR(file))
		return PTR_ERR(file);
	ret = kernel_read(file, text, size - 1, &pos);
	filp_close(file, NULL);
	if (ret < 0)
		return ret;
	text[ret] = 0;
	strim(text);
	return 0;
}

static const char *zone_word(enum policy_zone zone)
{
	return zone == POLICY_ZONE_MOVABLE ? "online_movable" : "online_kernel";
}

/* What the administrator wants of new memory, and what is wanted now. */
static char saved[24];
static const char *now;

/**
 * auto_online_override() - have new memory come online at once
 * @zone: where it is to go
 *
 * What the administrator wants of new memory does not concern ours.
 *
 * Return: 0 or the error of the file.
 */
int auto_online_override(enum policy_zone zone)
{
	int ret = read_file(SYSFS_MEMORY "/auto_online_blocks", saved, sizeof(saved));

	if (ret)
		pr_err_once("no " SYSFS_MEMORY ": %d; is sysfs mounted?\n", ret);
	now = zone_word(zone);
	if (ret || !strcmp(saved, now))
		return ret;
	return write_file(SYSFS_MEMORY "/auto_online_blocks", now);
}

/**
 * auto_online_restore() - have new memory do what it did before
 */
void auto_online_restore(void)
{
	int ret = 0;

	if (strcmp(saved, now))
		ret = write_file(SYSFS_MEMORY "/auto_online_blocks", saved);
	if (ret)
		pr_warn("cannot restore auto_online_blocks to %s: %d\n", saved, ret);
}

/**
 * online_block() - bring a memory block online
 * @start: its address
 * @zone: where it is to go
 *
 * Context: may sleep; takes the device and memory hotplug locks.
 * Return: 0; -EBUSY if the hotplug lock was not to be had; the kernel's error.
 */
int online_block(u64 start, enum policy_zone zone)
{
	char path[64];

	scnprintf(path, sizeof(path), SYSFS_MEMORY "/memory%llu/state",
		  start / mem_view.block_bytes);
	return write_file(path, zone_word(zone));
}

/**
 * blocks_hold_memmap() - do new blocks hold their own struct pages?
 *
 * Only where the kernel was told to (memory_hotplug.memmap_on_memory).
 */
bool blocks_hold_memmap(void)
{
	char text[8];

	return !read_file("/sys/module/memory_hotplug/parameters/memmap_on_memory", text,
			  sizeof(text)) && (text[0] == 'Y' || text[0] == 'f');
}
