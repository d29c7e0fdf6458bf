// SPDX-License-Identifier: GPL-2.0
// Copyright (C) the kvm-elastic authors
/*
 * Test only: owns one of KVM's functions as a live patch would, and does nothing
 * with it. ftrace lets one owner change a function's instruction pointer.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/ftrace.h>
#include <linux/module.h>

static char *function = "kvm_apic_accept_events";
module_param(function, charp, 0444);
MODULE_PARM_DESC(function, "name of the function to own");

/* Changes nothing: the function runs as ever. */
static void callback(unsigned long ip, unsigned long parent_ip,
		     struct ftrace_ops *op, struct ftrace_regs *fregs)
{
}

static struct ftrace_ops ops = {
	.func = callback,
	.flags = FTRACE_OPS_FL_SAVE_REGS | FTRACE_OPS_FL_IPMODIFY,
};

static int __init hook_taken_init(void)
{
	int ret;

	ret = ftrace_set_filter(&ops, function, strlen(function), 1);
	if (ret)
		return ret;
	ret = register_ftrace_function(&ops);
	if (ret)
		ftrace_free_filter(&ops);
	return ret;
}

static void __exit hook_taken_exit(void)
{
	unregister_ftrace_function(&ops);
	ftrace_free_filter(&ops);
}

module_init(hook_taken_init);
module_exit(hook_taken_exit);

MODULE_DESCRIPTION("Self-test: takes a function that kvm-elastic wants");
MODULE_AUTHOR("the kvm-elastic authors");
MODULE_LICENSE("GPL");
