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

/* vCPUs, per cent, milliseconds: 32 bits will do. */
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

static struct kobj_attribute abi_version_attr = __ATTR_RO(abi_version);

/**
 * struct pool_attr - a number of a pool
 * @attr: the file
 * @pool: the pool
 * @value: the number
 * @scale: what the file shows of one
 * @parse: reads what is written
 * @low: least that may be written
 * @high: most that may be written
 * @set: takes it; NULL: a tunable
 */
struct pool_attr {
	struct kobj_attribute attr;
	struct elastic_pool *pool;
	u64 *value;
	u64 scale;
	int (*parse)(const char *buf, u64 *n);
	u64 low;
	u64 high;
	int (*set)(struct elastic_pool *pool, u64 n);
};

static ssize_t pool_attr_show(struct kobject *kobj, struct kobj_attribute *attr,
			      char *buf)
{
	struct pool_attr *a = container_of(attr, struct pool_attr, attr);

	return sysfs_emit(buf, "%llu\n", READ_ONCE(*a->value) * a->scale);
}

static ssize_t pool_attr_store(struct kobject *kobj,
			       struct kobj_attribute *attr, const char *buf,
			       size_t count)
{
	struct pool_attr *a = container_of(attr, struct pool_attr, attr);
	u64 n;
	int ret = a->parse(buf, &n);

	if (ret)
		return ret;
	if (n < a->low || n > a->high)
		return -ERANGE;
	if (!a->set)
		elastic_pool_set_tunable(a->value, n);
	else
		ret = a->set(a->pool, n);
	return ret ?: count;
}

static int set_overcommit(struct elastic_pool *pool, u64 percent)
{
	return elastic_pool_set_overcommit(percent);
}

static int set_placement(struct elastic_pool *pool, u64 on)
{
	return elastic_place_set(on);
}

#define POOL_RO(var, file, p, field, factor) \
	static struct pool_attr var = { \
		.attr = __ATTR(file, 0444, pool_attr_show, NULL), \
		.pool = &(p), .value = &(p).field, .scale = factor, \
	}
#define POOL_RW(var, file, p, number, factor, parser, from, to, setter) \
	static struct pool_attr var = { \
		.attr = __ATTR(file, 0644, pool_attr_show, pool_attr_store), \
		.pool = &(p), .value = &(number), .scale = factor, \
		.parse = parser, .low = from, .high = to, .set = setter, \
	}

#define MIB		ELASTIC_UNITS_PER_MIB
#define DEADLINE_MIN_MS	100
#define DEADLINE_MAX_MS	3600000
#define GROWTH_MAX	1000

POOL_RW(cpu_pool, pool, elastic_cpu_pool, elastic_cpu_pool.total, 1,
	parse_cpus, 0, U64_MAX, elastic_pool_set);
POOL_RO(cpu_used, used, elastic_cpu_pool, used, 1);
POOL_RW(cpu_overcommit, overcommit, elastic_cpu_pool, elastic_overcommit, 1,
	parse_cpus, 0, U64_MAX, set_overcommit);
POOL_RW(cpu_reserve, reserve, elastic_cpu_pool, elastic_cpu_pool.reserve, 1,
	parse_cpus, 0, U64_MAX, elastic_pool_set_reserve);
POOL_RW(cpu_default_min, default_min, elastic_cpu_pool, elastic_cpu_pool.min,
	1, parse_cpus, 0, ELASTIC_MAX_CPUS, NULL);
POOL_RW(cpu_deadline, deadline_ms, elastic_cpu_pool,
	elastic_cpu_pool.deadline_ms, 1, parse_cpus, DEADLINE_MIN_MS,
	DEADLINE_MAX_MS, NULL);
POOL_RW(cpu_growth, growth, elastic_cpu_pool, elastic_cpu_pool.growth, 1,
	parse_cpus, 1, GROWTH_MAX, NULL);

POOL_RW(cpu_placement, placement, elastic_cpu_pool, elastic_placement, 1,
	parse_cpus, 0, 1, set_placement);

POOL_RW(mem_pool, pool_mib, elastic_mem_pool, elastic_mem_pool.total, MIB,
	parse_mib, 0, U64_MAX, elastic_pool_set);
POOL_RO(mem_now, now_mib, elastic_mem_pool, now, MIB);
POOL_RO(mem_used, used_mib, elastic_mem_pool, used, MIB);
POOL_RW(mem_reserve, reserve_mib, elastic_mem_pool, elastic_mem_pool.reserve,
	MIB, parse_mib, 0, U64_MAX, elastic_pool_set_reserve);
POOL_RW(mem_low, low_mib, elastic_mem_pool, elastic_mem_low, MIB, parse_mib,
	0, ELASTIC_MAX_UNIT, NULL);
POOL_RW(mem_default_min, default_min_mib, elastic_mem_pool,
	elastic_mem_pool.min, MIB, parse_mib, 0, ELASTIC_MAX_UNIT, NULL);
POOL_RW(mem_deadline, deadline_ms, elastic_mem_pool,
	elastic_mem_pool.deadline_ms, 1, parse_cpus, DEADLINE_MIN_MS,
	DEADLINE_MAX_MS, NULL);
POOL_RW(mem_growth, growth, elastic_mem_pool, elastic_mem_pool.growth, 1,
	parse_cpus, 1, GROWTH_MAX, NULL);

static ssize_t advice_show(struct kobject *kobj, struct kobj_attribute *attr,
			   char *buf)
{
	struct pool_attr *a = container_of(attr, struct pool_attr, attr);

	return elastic_advice_show(a->pool, buf);
}

static struct pool_attr cpu_advice = {
	.attr = __ATTR_RO(advice), .pool = &elastic_cpu_pool,
};
static struct pool_attr mem_advice = {
	.attr = __ATTR_RO(advice), .pool = &elastic_mem_pool,
};
POOL_RW(advice_after, advice_ms, elastic_cpu_pool, elastic_advice_ms, 1,
	parse_cpus, DEADLINE_MIN_MS, DEADLINE_MAX_MS, NULL);

/**
 * elastic_sysfs_notify_advice() - wake who polls for advice
 * @cpu: cpu/advice, else memory/advice
 *
 * Context: may sleep.
 */
void elastic_sysfs_notify_advice(bool cpu)
{
	sysfs_notify(root, cpu ? "cpu" : "memory", "advice");
}

static struct attribute *root_attrs[] = {
	&abi_version_attr.attr, &advice_after.attr.attr, NULL
};
static struct attribute *pool_cpu_attrs[] = {
	&cpu_pool.attr.attr, &cpu_used.attr.attr, &cpu_overcommit.attr.attr,
	&cpu_reserve.attr.attr, &cpu_default_min.attr.attr,
	&cpu_deadline.attr.attr, &cpu_growth.attr.attr, &cpu_advice.attr.attr,
	&cpu_placement.attr.attr, NULL
};
static struct attribute *pool_mem_attrs[] = {
	&mem_pool.attr.attr, &mem_now.attr.attr, &mem_used.attr.attr,
	&mem_reserve.attr.attr, &mem_low.attr.attr, &mem_default_min.attr.attr,
	&mem_deadline.attr.attr, &mem_growth.attr.attr, &mem_advice.attr.attr,
	NULL
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

static ssize_t vm_uncooperative_show(struct elastic_vm *vm, char *buf)
{
	static const char * const names[] = {
		"none", "cpu", "memory", "cpu memory"
	};

	return sysfs_emit(buf, "%s\n",
			  names[READ_ONCE(vm->cpu.uncooperative) +
				2 * READ_ONCE(vm->mem.uncooperative)]);
}
VM_RO(vm, uncooperative);

static ssize_t cpu_list_show(struct elastic_vm *vm, char *buf)
{
	unsigned long *granted = bitmap_alloc(ELASTIC_MAX_CPUS, GFP_KERNEL);
	ssize_t ret;

	if (!granted)
		return -ENOMEM;
	bitmap_copy(granted, vm->cpu_ceiling, ELASTIC_MAX_CPUS);
	if (elastic_vm_enforced(vm)) {
		bitmap_andnot(granted, granted, vm->cpu_withheld,
			      ELASTIC_MAX_CPUS);
		bitmap_andnot(granted, granted, vm->cpu_seized,
			      ELASTIC_MAX_CPUS);
	}
	ret = sysfs_emit(buf, "%*pbl\n", ELASTIC_MAX_CPUS, granted);
	bitmap_free(granted);
	return ret;
}
VM_RO(cpu, list);

static ssize_t cpu_placed_show(struct elastic_vm *vm, char *buf)
{
	return sysfs_emit(buf, "%u\n", elastic_place_nr(vm));
}
VM_RO(cpu, placed);

/* A number of an account; @scale turns it into what the file shows. */
#define ACCOUNT_RO(acc, file, field, scale) \
	static ssize_t acc##_##file##_show(struct elastic_vm *vm, char *buf) \
	{ \
		return sysfs_emit(buf, "%llu\n", \
				  READ_ONCE(vm->acc.field) * (scale)); \
	} \
	VM_RO(acc, file)
#define ACCOUNT_WEIGHT(acc) \
	static ssize_t acc##_weight_show(struct elastic_vm *vm, char *buf) \
	{ \
		return sysfs_emit(buf, "%llu\n", READ_ONCE(vm->acc.weight)); \
	} \
	static ssize_t acc##_weight_store(struct elastic_vm *vm, \
					  const char *buf, size_t count) \
	{ \
		u64 n; \
		int ret = parse_cpus(buf, &n); \
		\
		return ret ?: elastic_grant_set_weight(vm, &vm->acc, n) ?: \
			count; \
	} \
	VM_RW(acc, weight)
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
ACCOUNT_WEIGHT(cpu);
ACCOUNT_RO(cpu, entitled, entitled, 1);
ACCOUNT_RO(cpu, busy, demand, 1);
ACCOUNT_RO(cpu, need, need, 1);
ACCOUNT_RO(cpu, target, target, 1);
ACCOUNT_RO(cpu, seized, seized, 1);
ACCOUNT_RO(mem, ceiling_mib, ceiling, ELASTIC_UNITS_PER_MIB);
ACCOUNT_RO(mem, grant_mib, grant, ELASTIC_UNITS_PER_MIB);
ACCOUNT_RO(mem, use_mib, use, ELASTIC_UNITS_PER_MIB);
ACCOUNT_RW(mem, min_mib, min, ELASTIC_UNITS_PER_MIB, parse_mib, false);
ACCOUNT_RW(mem, max_mib, max, ELASTIC_UNITS_PER_MIB, parse_mib, true);
ACCOUNT_WEIGHT(mem);
ACCOUNT_RO(mem, entitled_mib, entitled, ELASTIC_UNITS_PER_MIB);
ACCOUNT_RO(mem, busy_mib, demand, ELASTIC_UNITS_PER_MIB);
ACCOUNT_RO(mem, need_mib, need, ELASTIC_UNITS_PER_MIB);
ACCOUNT_RO(mem, target_mib, target, ELASTIC_UNITS_PER_MIB);

static struct attribute *vm_attrs[] = {
	&vm_state.attr, &vm_uncooperative.attr, NULL
};
static struct attribute *vm_cpu_attrs[] = {
	&cpu_ceiling.attr, &cpu_grant.attr, &cpu_list.attr, &cpu_use.attr,
	&cpu_min.attr, &cpu_max.attr, &cpu_weight.attr, &cpu_entitled.attr,
	&cpu_busy.attr, &cpu_need.attr, &cpu_target.attr, &cpu_seized.attr,
	&cpu_placed.attr, NULL
};
static struct attribute *vm_mem_attrs[] = {
	&mem_ceiling_mib.attr, &mem_grant_mib.attr, &mem_use_mib.attr,
	&mem_min_mib.attr, &mem_max_mib.attr, &mem_weight.attr,
	&mem_entitled_mib.attr, &mem_busy_mib.attr, &mem_need_mib.attr,
	&mem_target_mib.attr, NULL
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
	[ELASTIC_STAT_REFUSED_RATE] = "refused_rate",
	[ELASTIC_STAT_UNCOOPERATIVE] = "uncooperative",
	[ELASTIC_STAT_FORGIVEN] = "forgiven",
	[ELASTIC_STAT_SEIZED] = "seized",
	[ELASTIC_STAT_HELD] = "held",
	[ELASTIC_STAT_GATED] = "gated",
	[ELASTIC_STAT_TAKEN] = "taken_bytes",
	[ELASTIC_STAT_DISCARDED] = "discarded_bytes",
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
