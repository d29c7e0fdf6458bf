// SPDX-License-Identifier: GPL-2.0
// Copyright (C) the kvm-elastic authors
/* /sys/kernel/elastic_host; every file is described in docs/abi/sysfs-host. */
#include <linux/kernel.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/sysfs.h>

#include "elastic_host.h"

static struct kobject *root;
static struct kset *vms;

/* Numbers in files are MiB; in the ledger they are units. */
static int parse_mib(const char *buf, u64 *units)
{
	u64 mib;
	int ret = kstrtou64(buf, 0, &mib);

	if (ret)
		return ret;
	if (mib % ELASTIC_UNITS_PER_MIB)
		return -EINVAL;
	*units = mib / ELASTIC_UNITS_PER_MIB;
	return 0;
}

static int parse_cpus(const char *buf, u64 *cpus)
{
	unsigned int n;
	int ret = kstrtouint(buf, 0, &n);

	*cpus = n;
	return ret;
}

/* The pools */

static ssize_t abi_version_show(struct kobject *kobj,
				struct kobj_attribute *attr, char *buf)
{
	return sysfs_emit(buf, "%d\n", ELASTIC_VERSION);
}

static ssize_t pool_store(struct elastic_pool *pool, const char *buf,
			  size_t count, int (*parse)(const char *, u64 *))
{
	u64 total;
	int ret = parse(buf, &total);

	return ret ?: elastic_pool_set(pool, total) ?: count;
}

static ssize_t pool_show(struct kobject *kobj, struct kobj_attribute *attr,
			 char *buf)
{
	return sysfs_emit(buf, "%llu\n", READ_ONCE(elastic_cpu_pool.total));
}

static ssize_t pool_cpus_store(struct kobject *kobj,
			       struct kobj_attribute *attr,
			       const char *buf, size_t count)
{
	return pool_store(&elastic_cpu_pool, buf, count, parse_cpus);
}

static ssize_t used_show(struct kobject *kobj, struct kobj_attribute *attr,
			 char *buf)
{
	return sysfs_emit(buf, "%llu\n", READ_ONCE(elastic_cpu_pool.used));
}

static ssize_t pool_mib_show(struct kobject *kobj, struct kobj_attribute *attr,
			     char *buf)
{
	return sysfs_emit(buf, "%llu\n", READ_ONCE(elastic_mem_pool.total) *
			  ELASTIC_UNITS_PER_MIB);
}

static ssize_t pool_mib_store(struct kobject *kobj,
			      struct kobj_attribute *attr,
			      const char *buf, size_t count)
{
	return pool_store(&elastic_mem_pool, buf, count, parse_mib);
}

static ssize_t used_mib_show(struct kobject *kobj, struct kobj_attribute *attr,
			     char *buf)
{
	return sysfs_emit(buf, "%llu\n", READ_ONCE(elastic_mem_pool.used) *
			  ELASTIC_UNITS_PER_MIB);
}

static struct kobj_attribute abi_version_attr = __ATTR_RO(abi_version);
static struct kobj_attribute pool_attr = __ATTR(pool, 0644, pool_show,
						pool_cpus_store);
static struct kobj_attribute used_attr = __ATTR_RO(used);
static struct kobj_attribute pool_mib_attr = __ATTR_RW(pool_mib);
static struct kobj_attribute used_mib_attr = __ATTR_RO(used_mib);

static struct attribute *root_attrs[] = { &abi_version_attr.attr, NULL };
static struct attribute *pool_cpu_attrs[] = {
	&pool_attr.attr, &used_attr.attr, NULL
};
static struct attribute *pool_mem_attrs[] = {
	&pool_mib_attr.attr, &used_mib_attr.attr, NULL
};

static const struct attribute_group root_group = { .attrs = root_attrs };
static const struct attribute_group pool_cpu_group = {
	.name = "cpu", .attrs = pool_cpu_attrs,
};
static const struct attribute_group pool_mem_group = {
	.name = "memory", .attrs = pool_mem_attrs,
};
static const struct attribute_group *root_groups[] = {
	&root_group, &pool_cpu_group, &pool_mem_group, NULL
};

/* The VMs */

struct vm_attr {
	struct attribute attr;
	ssize_t (*show)(struct elastic_vm *vm, char *buf);
	ssize_t (*store)(struct elastic_vm *vm, const char *buf, size_t count);
};

static struct elastic_vm *to_vm(struct kobject *kobj)
{
	return container_of(kobj, struct elastic_vm, kobj);
}

#define VM_RO(group, file) \
	static struct vm_attr group##_##file = { \
		.attr = { .name = #file, .mode = 0444 }, \
		.show = group##_##file##_show, \
	}
#define VM_RW(group, file) \
	static struct vm_attr group##_##file = { \
		.attr = { .name = #file, .mode = 0644 }, \
		.show = group##_##file##_show, \
		.store = group##_##file##_store, \
	}

static ssize_t vm_state_show(struct elastic_vm *vm, char *buf)
{
	static const char * const names[] = {
		[ELASTIC_VM_UNMANAGED] = "unmanaged",
		[ELASTIC_VM_MANAGED] = "managed",
		[ELASTIC_VM_DETACHED] = "detached",
	};

	return sysfs_emit(buf, "%s\n", names[elastic_vm_state(vm)]);
}
VM_RO(vm, state);

static ssize_t cpu_list_show(struct elastic_vm *vm, char *buf)
{
	unsigned long *granted = bitmap_alloc(ELASTIC_MAX_CPUS, GFP_KERNEL);
	ssize_t ret;

	if (!granted)
		return -ENOMEM;
	bitmap_copy(granted, vm->cpu_ceiling, ELASTIC_MAX_CPUS);
	if (elastic_vm_enforced(vm))
		bitmap_andnot(granted, granted, vm->cpu_withheld,
			      ELASTIC_MAX_CPUS);
	ret = sysfs_emit(buf, "%*pbl\n", ELASTIC_MAX_CPUS, granted);
	bitmap_free(granted);
	return ret;
}
VM_RO(cpu, list);

/* A number of an account; @scale turns it into what the file shows. */
#define ACCOUNT_RO(acc, file, field, scale) \
	static ssize_t acc##_##file##_show(struct elastic_vm *vm, char *buf) \
	{ \
		return sysfs_emit(buf, "%llu\n", \
				  READ_ONCE(vm->acc.field) * (scale)); \
	} \
	VM_RO(acc, file)
#define ACCOUNT_RW(acc, file, field, scale, parse, is_max) \
	static ssize_t acc##_##file##_show(struct elastic_vm *vm, char *buf) \
	{ \
		return sysfs_emit(buf, "%llu\n", \
				  READ_ONCE(vm->acc.field) * (scale)); \
	} \
	static ssize_t acc##_##file##_store(struct elastic_vm *vm, \
					    const char *buf, size_t count) \
	{ \
		u64 n; \
		int ret = parse(buf, &n); \
		\
		return ret ?: elastic_grant_set_limit(vm, &vm->acc, is_max, \
						      n) ?: count; \
	} \
	VM_RW(acc, file)

ACCOUNT_RO(cpu, ceiling, ceiling, 1);
ACCOUNT_RO(cpu, grant, grant, 1);
ACCOUNT_RO(cpu, use, use, 1);
ACCOUNT_RW(cpu, min, min, 1, parse_cpus, false);
ACCOUNT_RW(cpu, max, max, 1, parse_cpus, true);
ACCOUNT_RO(mem, ceiling_mib, ceiling, ELASTIC_UNITS_PER_MIB);
ACCOUNT_RO(mem, grant_mib, grant, ELASTIC_UNITS_PER_MIB);
ACCOUNT_RO(mem, use_mib, use, ELASTIC_UNITS_PER_MIB);
ACCOUNT_RW(mem, min_mib, min, ELASTIC_UNITS_PER_MIB, parse_mib, false);
ACCOUNT_RW(mem, max_mib, max, ELASTIC_UNITS_PER_MIB, parse_mib, true);

static struct attribute *vm_attrs[] = { &vm_state.attr, NULL };
static struct attribute *vm_cpu_attrs[] = {
	&cpu_ceiling.attr, &cpu_grant.attr, &cpu_list.attr, &cpu_use.attr,
	&cpu_min.attr, &cpu_max.attr, NULL
};
static struct attribute *vm_mem_attrs[] = {
	&mem_ceiling_mib.attr, &mem_grant_mib.attr, &mem_use_mib.attr,
	&mem_min_mib.attr, &mem_max_mib.attr, NULL
};

/* The counters */

static const char * const stat_names[ELASTIC_NR_STATS] = {
	[ELASTIC_OP_HELLO] = "hello",
	[ELASTIC_OP_REPORT] = "report",
	[ELASTIC_OP_REQUEST] = "request",
	[ELASTIC_OP_RELEASE_CPU] = "release_cpu",
	[ELASTIC_OP_RELEASE_MEM] = "release_mem",
	[ELASTIC_OP_DISCARD] = "discard",
	[ELASTIC_OP_BYE] = "bye",
	[ELASTIC_STAT_STALE] = "stale",
	[ELASTIC_STAT_INVALID] = "invalid",
	[ELASTIC_STAT_FAULT] = "fault",
	[ELASTIC_STAT_NOSYS] = "nosys",
	[ELASTIC_STAT_REFUSED_MAX] = "refused_max",
	[ELASTIC_STAT_REFUSED_POOL] = "refused_pool",
	[ELASTIC_STAT_REFUSED_CEILING] = "refused_ceiling",
	[ELASTIC_STAT_HELD] = "held",
	[ELASTIC_STAT_GATED] = "gated",
	[ELASTIC_STAT_TAKEN] = "taken_bytes",
	[ELASTIC_STAT_UNRECLAIMED] = "unreclaimed_bytes",
};

static struct vm_attr stat_files[ELASTIC_NR_STATS];
static struct attribute *vm_stat_attrs[ELASTIC_NR_STATS + 1];

static void stat_files_init(void)
{
	unsigned int i;

	for (i = 0; i < ELASTIC_NR_STATS; i++) {
		sysfs_attr_init(&stat_files[i].attr);
		stat_files[i].attr.name = stat_names[i];
		stat_files[i].attr.mode = 0444;
		vm_stat_attrs[i] = &stat_files[i].attr;
	}
}

static const struct attribute_group vm_group = { .attrs = vm_attrs };
static const struct attribute_group vm_cpu_group = {
	.name = "cpu", .attrs = vm_cpu_attrs,
};
static const struct attribute_group vm_mem_group = {
	.name = "memory", .attrs = vm_mem_attrs,
};
static const struct attribute_group vm_stat_group = {
	.name = "stats", .attrs = vm_stat_attrs,
};
static const struct attribute_group *vm_groups[] = {
	&vm_group, &vm_cpu_group, &vm_mem_group, &vm_stat_group, NULL
};

static ssize_t vm_show(struct kobject *kobj, struct attribute *attr, char *buf)
{
	struct vm_attr *a = container_of(attr, struct vm_attr, attr);
	struct elastic_vm *vm = to_vm(kobj);

	if (a >= stat_files && a < stat_files + ELASTIC_NR_STATS)
		return sysfs_emit(buf, "%lld\n",
				  atomic64_read(&vm->stats[a - stat_files]));
	return a->show(vm, buf);
}

static ssize_t vm_store(struct kobject *kobj, struct attribute *attr,
			const char *buf, size_t count)
{
	struct vm_attr *a = container_of(attr, struct vm_attr, attr);

	return a->store ? a->store(to_vm(kobj), buf, count) : -EIO;
}

static const struct sysfs_ops vm_sysfs_ops = {
	.show = vm_show,
	.store = vm_store,
};

static void vm_release(struct kobject *kobj)
{
	kfree_rcu(to_vm(kobj), rcu);
}

static const struct kobj_type vm_ktype = {
	.sysfs_ops = &vm_sysfs_ops,
	.release = vm_release,
	.default_groups = vm_groups,
};

/**
 * elastic_sysfs_add_vm() - make the directory of a VM
 * @vm: the VM, with its name
 *
 * Context: may sleep.
 * Return: 0 or an error; in both cases kobject_put() frees the VM from now on.
 */
int elastic_sysfs_add_vm(struct elastic_vm *vm)
{
	vm->kobj.kset = vms;
	return kobject_init_and_add(&vm->kobj, &vm_ktype, NULL, "%s",
				    vm->name);
}

/**
 * elastic_sysfs_start() - make /sys/kernel/elastic_host
 *
 * Return: 0 or -ENOMEM, or sysfs' error.
 */
int elastic_sysfs_start(void)
{
	int ret;

	stat_files_init();
	root = kobject_create_and_add("elastic_host", kernel_kobj);
	if (!root)
		return -ENOMEM;
	ret = sysfs_create_groups(root, root_groups);
	if (ret)
		goto err_root;
	vms = kset_create_and_add("vms", NULL, root);
	if (!vms) {
		ret = -ENOMEM;
		goto err_root;
	}
	return 0;

err_root:
	kobject_put(root);
	return ret;
}

/**
 * elastic_sysfs_stop() - remove /sys/kernel/elastic_host
 *
 * Context: may sleep; no VM is left.
 */
void elastic_sysfs_stop(void)
{
	kset_unregister(vms);
	sysfs_remove_groups(root, root_groups);
	kobject_put(root);
}
