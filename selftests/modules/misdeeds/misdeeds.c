// SPDX-License-Identifier: GPL-2.0
// Copyright (C) the kvm-elastic authors
/*
 * Test only: does one thing that a kernel built to find faults has to report
 * (selftests/debug.config), so that silence of such a kernel means something.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/delay.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/preempt.h>
#include <linux/rcupdate.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/timer.h>

static char *what = "";
module_param(what, charp, 0444);
MODULE_PARM_DESC(what, "the misdeed: leak, oob, uaf, shift, sleep, timer, rcu or lock");

static void leak(void)
{
	void *lost = kmalloc(123, GFP_KERNEL);

	if (lost)
		memset(lost, 0x5a, 123);
}

/* The compiler must not see what is done here; the report names it. */
static noinline void touch(char *at)
{
	OPTIMIZER_HIDE_VAR(at);
	WRITE_ONCE(*at, READ_ONCE(*at));
}

static void oob(void)
{
	char *block = kmalloc(100, GFP_KERNEL);

	if (block)
		touch(block + 101);
	kfree(block);
}

static void uaf(void)
{
	char *block = kmalloc(100, GFP_KERNEL);
	char *stale = block;

	OPTIMIZER_HIDE_VAR(stale);
	kfree(block);
	if (stale)
		touch(stale);
}

static void shift(void)
{
	int by = 40, result;

	OPTIMIZER_HIDE_VAR(by);
	result = 1 << by;
	OPTIMIZER_HIDE_VAR(result);
}

static void sleep(void)
{
	preempt_disable();
	msleep(20);
	preempt_enable();
}

static void expired(struct timer_list *unused)
{
}

static void timer(void)
{
	static struct timer_list timer;

	timer_setup(&timer, expired, 0);
	mod_timer(&timer, jiffies + 100 * HZ);
	timer_setup(&timer, expired, 0);	/* it is running */
	timer_delete_sync(&timer);
}

static void rcu(void)
{
	static int __rcu *pointer;
	int *unprotected = rcu_dereference(pointer);

	OPTIMIZER_HIDE_VAR(unprotected);
}

static void lock(void)
{
	static DEFINE_MUTEX(a);
	static DEFINE_MUTEX(b);

	mutex_lock(&a);
	mutex_lock(&b);
	mutex_unlock(&b);
	mutex_unlock(&a);
	mutex_lock(&b);
	mutex_lock(&a);
	mutex_unlock(&a);
	mutex_unlock(&b);
}

static const struct {
	const char *name;
	void (*fn)(void);
} misdeeds[] = {
	{ "leak", leak }, { "oob", oob }, { "uaf", uaf }, { "shift", shift },
	{ "sleep", sleep }, { "timer", timer }, { "rcu", rcu }, { "lock", lock },
};

static int __init misdeeds_init(void)
{
	size_t i;

	/* Elsewhere it would be a misdeed indeed. */
	if (!IS_ENABLED(CONFIG_KASAN))
		return -EOPNOTSUPP;
	for (i = 0; i < ARRAY_SIZE(misdeeds); i++) {
		if (!strcmp(what, misdeeds[i].name)) {
			misdeeds[i].fn();
			return 0;
		}
	}
	return -EINVAL;
}

static void __exit misdeeds_exit(void)
{
}

module_init(misdeeds_init);
module_exit(misdeeds_exit);

MODULE_DESCRIPTION("Self-test: does what a debugging kernel has to find");
MODULE_AUTHOR("the kvm-elastic authors");
MODULE_LICENSE("GPL");
