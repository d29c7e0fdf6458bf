// SPDX-License-Identifier: GPL-2.0
// Copyright (C) the kvm-elastic authors
/* Starts and stops the host module. */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/fs.h>
#include <linux/module.h>

#include "elastic_host.h"

#define CREATE_TRACE_POINTS
#include "trace.h"

/* Does a boolean parameter of another module say no? Unreadable: unknown. */
static bool param_is_off(const char *path)
{
	struct file *file = filp_open(path, O_RDONLY, 0);
	loff_t pos = 0;
	char c = 0;

	if (IS_ERR(file))
		return false;
	if (kernel_read(file, &c, 1, &pos) != 1)
		c = 0;
	filp_close(file, NULL);
	return c == 'N' || c == '0';
}

/*
 * Without two-dimensional paging the guest's page faults come to KVM, and the
 * frames behind shadow page tables are looked up by other paths. KVM exports
 * no flag for it. Each HELLO asks its own vCPU again.
 */
static int check_paging(void)
{
	if (param_is_off("/sys/module/kvm_amd/parameters/npt") ||
	    param_is_off("/sys/module/kvm_intel/parameters/ept")) {
		pr_err("KVM runs without nested paging (kvm_amd npt=1 or kvm_intel ept=1 is needed)\n");
		return -EOPNOTSUPP;
	}
	return 0;
}

static int __init elastic_host_init(void)
{
	int ret;

	ret = check_paging();
	if (ret)
		return ret;
	elastic_ledger_init();
	ret = elastic_vms_start();
	if (ret)
		return ret;
	ret = elastic_sysfs_start();
	if (ret)
		goto err_vms;
	elastic_arbiter_start();
	ret = elastic_hooks_start();
	if (ret)
		goto err_sysfs;
	pr_info("loaded: %llu vCPUs and %llu MiB to grant\n",
		elastic_cpu_pool.total,
		elastic_mem_pool.total * ELASTIC_UNITS_PER_MIB);
	return 0;

err_sysfs:
	elastic_arbiter_stop();
	elastic_place_stop();
	elastic_vms_stop();
	elastic_sysfs_stop();
	elastic_arbiter_free();
	return ret;

err_vms:
	elastic_vms_stop();
	return ret;
}

/*
 * With the hooks gone no vCPU is in our text and every VM runs as it would
 * without us; then the records go.
 */
static void __exit elastic_host_exit(void)
{
	elastic_arbiter_stop();
	elastic_place_stop();
	elastic_hooks_stop();
	elastic_vms_stop();
	elastic_sysfs_stop();
	elastic_arbiter_free();
}

module_init(elastic_host_init);
module_exit(elastic_host_exit);

MODULE_DESCRIPTION("Grants vCPUs and memory to KVM guests by hypercall");
MODULE_AUTHOR("the kvm-elastic authors");
MODULE_LICENSE("GPL");
MODULE_VERSION("0.1");
