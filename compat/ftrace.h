/* SPDX-License-Identifier: GPL-2.0 */
/* Copyright (C) the kvm-elastic authors */
/*
 * <linux/ftrace.h>: the callback got a struct ftrace_regs in 5.11; before, it
 * got the pt_regs themselves.
 */
#ifndef COMPAT_FTRACE_H
#define COMPAT_FTRACE_H

#include <linux/ftrace.h>
#include <linux/version.h>

#if LINUX_VERSION_CODE >= KERNEL_VERSION(5, 11, 0)
typedef struct ftrace_regs elastic_ftrace_regs;
#define elastic_ftrace_pt_regs(fregs)	ftrace_get_regs(fregs)
/* Ask ftrace to keep a callback from being entered within itself. */
#define ELASTIC_FTRACE_RECURSION	FTRACE_OPS_FL_RECURSION
#else
typedef struct pt_regs elastic_ftrace_regs;
#define elastic_ftrace_pt_regs(fregs)	(fregs)
#define ELASTIC_FTRACE_RECURSION	0	/* the default there */
#endif

/* Breaks the build when the callback's prototype changes again. */
static inline void elastic_ftrace_canary(ftrace_func_t func,
					 struct ftrace_ops *op)
{
	void (*f)(unsigned long ip, unsigned long parent_ip,
		  struct ftrace_ops *op, elastic_ftrace_regs *fregs) = func;

	op->func = f;
}

#endif /* COMPAT_FTRACE_H */
