// SPDX-License-Identifier: GPL-2.0
/*
 * Lets a test in a guest make any hypercall from its kernel:
 *
 *	echo 0 0 1 2 >page		words of the memory argument
 *	echo RBX RCX RDX RSI >call	RDX may be "page", its address
 *	cat call			RAX RBX RCX RDX
 *
 * Numbers are taken as in C.
 */
#include <linux/gfp.h>
#include <linux/io.h>
#include <linux/kvm_para.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <asm/cpufeature.h>

#include "elastic_hypercall.h"

/* Protects what follows. */
static DEFINE_MUTEX(call_lock);
static u64 *page;
static u64 rax, rbx, rcx, rdx;

static void call(u64 rsi)
{
	rax = ELASTIC_HC_NR;
	if (boot_cpu_has(X86_FEATURE_VMMCALL))
		asm volatile("vmmcall" : "+a"(rax), "+b"(rbx), "+c"(rcx), "+d"(rdx)
			     : "S"(rsi) : "memory");
	else
		asm volatile("vmcall" : "+a"(rax), "+b"(rbx), "+c"(rcx), "+d"(rdx)
			     : "S"(rsi) : "memory");
}

/* Take words of @text into @to; return how many, or an error. */
static int words(const char *text, u64 *to, int max)
{
	char *copy = kstrdup(text, GFP_KERNEL), *at = copy, *word;
	int n = 0, ret = 0;

	if (!copy)
		return -ENOMEM;
	while (!ret && (word = strsep(&at, " \n"))) {
		if (!*word)
			continue;
		if (n == max)
			ret = -E2BIG;
		else if (!strcmp(word, "page"))
			to[n++] = virt_to_phys(page);
		else
			ret = kstrtou64(word, 0, &to[n++]);
	}
	kfree(copy);
	return ret ?: n;
}

static int call_set(const char *text, const struct kernel_param *kp)
{
	u64 args[4];
	int ret = words(text, args, ARRAY_SIZE(args));

	if (ret != ARRAY_SIZE(args))
		return ret < 0 ? ret : -EINVAL;
	mutex_lock(&call_lock);
	rbx = args[0];
	rcx = args[1];
	rdx = args[2];
	call(args[3]);
	mutex_unlock(&call_lock);
	return 0;
}

static int call_get(char *buffer, const struct kernel_param *kp)
{
	return sysfs_emit(buffer, "%lld %#llx %#llx %#llx\n", (s64)rax, rbx, rcx, rdx);
}

static const struct kernel_param_ops call_ops = { .set = call_set, .get = call_get };
module_param_cb(call, &call_ops, NULL, 0600);

static int page_set(const char *text, const struct kernel_param *kp)
{
	int ret;

	mutex_lock(&call_lock);
	memset(page, 0, PAGE_SIZE);
	ret = words(text, page, PAGE_SIZE / sizeof(*page));
	mutex_unlock(&call_lock);
	return ret < 0 ? ret : 0;
}

static const struct kernel_param_ops page_ops = { .set = page_set };
module_param_cb(page, &page_ops, NULL, 0200);

static int __init elastic_call_init(void)
{
	if (!kvm_para_available())
		return -ENODEV;
	page = (u64 *)get_zeroed_page(GFP_KERNEL);
	return page ? 0 : -ENOMEM;
}

static void __exit elastic_call_exit(void)
{
	free_page((unsigned long)page);
}

module_init(elastic_call_init);
module_exit(elastic_call_exit);

MODULE_DESCRIPTION("test only: hypercalls by hand");
MODULE_LICENSE("GPL");
