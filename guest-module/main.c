// SPDX-License-Identifier: GPL-2.0
/* Start and stop of the guest module. Exit mirrors start. */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/cc_platform.h>
#include <linux/kvm_para.h>
#include <linux/module.h>
#include <linux/reboot.h>
#include <linux/suspend.h>

#include "elastic_guest.h"

#define CREATE_TRACE_POINTS
#include "trace.h"

atomic64_t elastic_stats[STAT_NR];
struct elastic_config elastic_config;

static bool manual;
module_param(manual, bool, 0444);
MODULE_PARM_DESC(manual, "start in manual mode (default: auto)");

static unsigned int floor_cpus;
module_param(floor_cpus, uint, 0444);
MODULE_PARM_DESC(floor_cpus, "never fewer CPUs by own decision (default 0: as booted)");

static int reboot_notify(struct notifier_block *nb, unsigned long action, void *data)
{
	worker_freeze();
	return NOTIFY_DONE;
}

static struct notifier_block reboot_notifier = {
	.notifier_call = reboot_notify,
};

/*
 * A system that goes to sleep takes its CPUs offline and wants them back; giving
 * them up would leave it with one. It ends when it wakes up, or does not sleep.
 */
static int pm_notify(struct notifier_block *nb, unsigned long action, void *data)
{
	int ret;

	switch (action) {
	case PM_SUSPEND_PREPARE:
	case PM_HIBERNATION_PREPARE:
	case PM_RESTORE_PREPARE:
		ret = worker_pause(true);
		/* Who failed is not told that the rest has been called off. */
		if (ret)
			worker_pause(false);
		return notifier_from_errno(ret);
	case PM_POST_SUSPEND:
	case PM_POST_HIBERNATION:
	case PM_POST_RESTORE:
		worker_pause(false);
		break;
	}
	return NOTIFY_DONE;
}

static struct notifier_block pm_notifier = {
	.notifier_call = pm_notify,
};

static int check_platform(void)
{
	if (!kvm_para_available()) {
		pr_err("not a KVM guest\n");
		return -ENODEV;
	}
	if (cc_platform_has(CC_ATTR_GUEST_MEM_ENCRYPT)) {
		pr_err("guests with encrypted memory are not supported\n");
		return -ENODEV;
	}
	return 0;
}

static int begin_session(void)
{
	int ret = session_hello();

	if (ret == -ENODEV)
		pr_err("host has no elastic_host module\n");
	else if (ret && ret != -EACCES && ret != -EPROTONOSUPPORT)
		pr_err("HELLO failed: %d\n", ret);
	return ret;
}

static void configure(void)
{
	elastic_config.tun = policy_defaults;
	elastic_config.tun.floor_cpus = min(floor_cpus, num_present_cpus());
	elastic_config.manual = manual;
}

static int __init elastic_guest_init(void)
{
	int ret = check_platform();

	if (ret)
		return ret;
	configure();
	ret = cpu_find();
	if (ret)
		return ret;
	ret = mem_find();
	if (ret)
		goto err_cpu;
	ret = session_init();
	if (ret)
		goto err_mem;
	ret = plug_start();
	if (ret)
		goto err_session;
	ret = begin_session();
	if (ret)
		goto err_bye;
	ret = blocks_start();
	if (ret)
		goto err_bye;
	ret = cpu_start();
	if (ret)
		goto err_blocks;
	ret = sense_start();
	if (ret)
		goto err_cpu_stop;
	ret = worker_start();
	if (ret)
		goto err_sense;
	ret = sysfs_start();
	if (ret)
		goto err_worker;
	ret = register_reboot_notifier(&reboot_notifier);
	if (ret)
		goto err_sysfs;
	ret = register_pm_notifier(&pm_notifier);
	if (ret)
		goto err_reboot;
	reporting_start();
	pr_info("%u of %u CPUs, %llu MiB, up to %llu MiB more in units of 2 MiB, blocks of %llu MiB\n",
		num_online_cpus(), cpu_present_limit(), mem_units() * 2,
		(u64)(mem_usable_units() - READ_ONCE(mem_view.used)) * 2,
		mem_view.block_bytes >> 20);
	return 0;

err_reboot:
	unregister_reboot_notifier(&reboot_notifier);
err_sysfs:
	worker_close();
	sysfs_stop();
	reporting_stop();
err_worker:
	worker_close();
	worker_stop();
	if (worker_view.enabled)
		sense_stop();
	goto err_cpu_stop;
err_sense:
	sense_stop();
err_cpu_stop:
	cpu_stop();
err_blocks:
	blocks_stop();
	mem_settle();
err_bye:
	session_bye();
	plug_stop();
err_session:
	session_exit();
err_mem:
	mem_forget();
err_cpu:
	cpu_forget();
	return ret;
}

static void __exit elastic_guest_exit(void)
{
	unregister_pm_notifier(&pm_notifier);
	unregister_reboot_notifier(&reboot_notifier);
	/* Who writes to sysfs waits for the worker: let them go first. */
	worker_close();
	sysfs_stop();
	/* Only then nobody enables or disables any more. */
	worker_stop();
	if (worker_view.enabled)
		sense_stop();
	reporting_stop();
	blocks_stop();
	mem_settle();
	session_bye();
	cpu_stop();
	plug_stop();
	session_exit();
	mem_forget();
	cpu_forget();
}

module_init(elastic_guest_init);
module_exit(elastic_guest_exit);

MODULE_DESCRIPTION("kvm-elastic: a KVM guest that asks for vCPUs and memory by hypercall");
MODULE_LICENSE("GPL");
MODULE_VERSION("0.1");
