// SPDX-License-Identifier: GPL-2.0
/*
 * /sys/kernel/elastic_guest: what people see and set. One value per file; what
 * each means stands in docs/abi/sysfs-guest.
 */
#include <linux/kobject.h>
#include <linux/kstrtox.h>
#include <linux/string.h>
#include <linux/sysfs.h>

#include "elastic_guest.h"

static struct kobject *root;

#define RO(name)	static struct kobj_attribute name##_attr = __ATTR_RO(name)
#define RW(name)	static struct kobj_attribute name##_attr = __ATTR_RW(name)

/* ---- the top ---- */

static ssize_t enable_show(struct kobject *kobj, struct kobj_attribute *attr, char *buf)
{
	return sysfs_emit(buf, "%d\n", READ_ONCE(worker_view.enabled));
}

static ssize_t enable_store(struct kobject *kobj, struct kobj_attribute *attr,
			    const char *buf, size_t count)
{
	bool value;
	int ret = kstrtobool(buf, &value);

	if (!ret)
		ret = worker_execute(COMMAND_ENABLE, value);
	return ret ?: count;
}
RW(enable);

static const char * const mode_names[] = { "auto", "manual" };

static ssize_t mode_show(struct kobject *kobj, struct kobj_attribute *attr, char *buf)
{
	return sysfs_emit(buf, "%s\n", mode_names[READ_ONCE(elastic_config.manual)]);
}

static ssize_t mode_store(struct kobject *kobj, struct kobj_attribute *attr,
			  const char *buf, size_t count)
{
	int ret = sysfs_match_string(mode_names, buf);

	if (ret < 0)
		return ret;
	WRITE_ONCE(elastic_config.manual, ret);
	return count;
}
RW(mode);

/* A request in manual mode: a number within bounds. */
static ssize_t request(const char *buf, size_t count, enum worker_command what, u64 min, u64 max)
{
	u64 value;
	int ret = kstrtou64(buf, 0, &value);

	if (ret)
		return ret;
	if (value < min || value > max)
		return -ERANGE;
	if (!READ_ONCE(elastic_config.manual))
		return -EPERM;
	ret = worker_execute(what, value);
	return ret ?: count;
}

static ssize_t cpus_show(struct kobject *kobj, struct kobj_attribute *attr, char *buf)
{
	return sysfs_emit(buf, "%u\n", num_online_cpus());
}

static ssize_t cpus_store(struct kobject *kobj, struct kobj_attribute *attr,
			  const char *buf, size_t count)
{
	return request(buf, count, COMMAND_CPUS, 1, cpu_present_limit());
}
RW(cpus);

static u64 units_to_mib(u64 units)
{
	return units << (ELASTIC_UNIT_SHIFT - 20);
}

static ssize_t memory_mib_show(struct kobject *kobj, struct kobj_attribute *attr, char *buf)
{
	return sysfs_emit(buf, "%llu\n", units_to_mib(mem_units()));
}

static ssize_t memory_mib_store(struct kobject *kobj, struct kobj_attribute *attr,
				const char *buf, size_t count)
{
	u64 boot = units_to_mib(mem_view.boot_units);

	return request(buf, count, COMMAND_MIB, boot,
		       boot + units_to_mib(mem_usable_units()));
}
RW(memory_mib);

static ssize_t free_page_reporting_show(struct kobject *kobj, struct kobj_attribute *attr,
					char *buf)
{
	static const char * const names[] = { "off", "on", "busy", "unsupported" };

	return sysfs_emit(buf, "%s\n", names[reporting_state()]);
}

static ssize_t free_page_reporting_store(struct kobject *kobj, struct kobj_attribute *attr,
					 const char *buf, size_t count)
{
	bool on;
	int ret = kstrtobool(buf, &on);

	return ret ?: reporting_set(on) ?: count;
}
RW(free_page_reporting);

static ssize_t last_refusal_show(struct kobject *kobj, struct kobj_attribute *attr, char *buf)
{
	char text[REFUSAL_LEN];

	session_refusal(text);
	return sysfs_emit(buf, "%s\n", text);
}
RO(last_refusal);

static struct attribute *top_attrs[] = {
	&enable_attr.attr,
	&mode_attr.attr,
	&cpus_attr.attr,
	&memory_mib_attr.attr,
	&free_page_reporting_attr.attr,
	&last_refusal_attr.attr,
	NULL
};

static const struct attribute_group top_group = { .attrs = top_attrs };

/* ---- state/ ---- */

/**
 * struct state_attr - one number of the state
 * @attr: its file
 * @read: what it shows
 */
struct state_attr {
	struct kobj_attribute attr;
	u64 (*read)(void);
};

static ssize_t state_show(struct kobject *kobj, struct kobj_attribute *attr, char *buf)
{
	return sysfs_emit(buf, "%lld\n", container_of(attr, struct state_attr, attr)->read());
}

#define STATE(_name, _value)						\
	static u64 _name##_read(void) { return _value; }		\
	static struct state_attr _name##_state = {			\
		.attr = __ATTR(_name, 0444, state_show, NULL),		\
		.read = _name##_read,					\
	}

STATE(version, READ_ONCE(session.version));
STATE(features, READ_ONCE(session.features));
STATE(cpus_online, num_online_cpus());
STATE(cpus_max, cpu_present_limit());
STATE(cpus_boot, cpu_boot_floor());
STATE(cpus_granted, READ_ONCE(session.cpus_granted));
STATE(cpus_target, READ_ONCE(session.cpus_target));
STATE(cpu_hint, READ_ONCE(session.cpu_hint));
STATE(cpus_wanted, READ_ONCE(worker_view.cpus_wanted));
STATE(units_online, mem_units());
STATE(units_granted, READ_ONCE(session.units_granted));
STATE(units_target, READ_ONCE(session.units_target));
STATE(units_wanted, READ_ONCE(worker_view.units_wanted));
STATE(window_mib, units_to_mib(mem_view.window_units));
STATE(usable_mib, units_to_mib(mem_usable_units()));
STATE(boot_mib, units_to_mib(mem_view.boot_units));
STATE(block_mib, mem_view.block_bytes >> 20);
STATE(blocks_online, READ_ONCE(mem_view.blocks));
STATE(blocks_movable, READ_ONCE(mem_view.movable_blocks));
STATE(units_kernel, READ_ONCE(mem_view.used_kernel));
STATE(units_warm, READ_ONCE(mem_view.warm));
STATE(units_warm_kernel, READ_ONCE(mem_view.warm_kernel));
STATE(keep_mib, decide_keep() >> 20);
STATE(runnable_milli, sched_window_milli());
STATE(runnable_now, sched_runnable());

static u64 kernel_mib(bool available)
{
	struct pressure_sample sample;

	pressure_read(&sample);
	return (available ? sample.kernel.available : sample.kernel.total) >> 20;
}

STATE(kernel_total_mib, kernel_mib(false));
STATE(kernel_available_mib, kernel_mib(true));

static ssize_t session_show(struct kobject *kobj, struct kobj_attribute *attr, char *buf)
{
	static const char * const names[] = { "none", "managed", "lost", "detached" };

	return sysfs_emit(buf, "%s\n", names[READ_ONCE(session.state)]);
}
RO(session);

static struct attribute *state_attrs[] = {
	&session_attr.attr,
	&version_state.attr.attr,
	&features_state.attr.attr,
	&cpus_online_state.attr.attr,
	&cpus_max_state.attr.attr,
	&cpus_boot_state.attr.attr,
	&cpus_granted_state.attr.attr,
	&cpus_target_state.attr.attr,
	&cpu_hint_state.attr.attr,
	&cpus_wanted_state.attr.attr,
	&units_online_state.attr.attr,
	&units_granted_state.attr.attr,
	&units_target_state.attr.attr,
	&units_wanted_state.attr.attr,
	&window_mib_state.attr.attr,
	&usable_mib_state.attr.attr,
	&boot_mib_state.attr.attr,
	&block_mib_state.attr.attr,
	&blocks_online_state.attr.attr,
	&blocks_movable_state.attr.attr,
	&units_kernel_state.attr.attr,
	&units_warm_state.attr.attr,
	&units_warm_kernel_state.attr.attr,
	&keep_mib_state.attr.attr,
	&kernel_total_mib_state.attr.attr,
	&kernel_available_mib_state.attr.attr,
	&runnable_milli_state.attr.attr,
	&runnable_now_state.attr.attr,
	NULL
};

static const struct attribute_group state_group = { .name = "state", .attrs = state_attrs };

/* ---- tunables/ ---- */

/**
 * struct tunable_attr - one tunable
 * @attr: its file
 * @value: where it lies in elastic_config.tun
 * @min: smallest value
 * @max: largest value
 */
struct tunable_attr {
	struct kobj_attribute attr;
	u32 *value;
	u32 min;
	u32 max;
};

static ssize_t tunable_show(struct kobject *kobj, struct kobj_attribute *attr, char *buf)
{
	struct tunable_attr *tunable = container_of(attr, struct tunable_attr, attr);

	return sysfs_emit(buf, "%u\n", READ_ONCE(*tunable->value));
}

static ssize_t tunable_store(struct kobject *kobj, struct kobj_attribute *attr,
			     const char *buf, size_t count)
{
	struct tunable_attr *tunable = container_of(attr, struct tunable_attr, attr);
	u32 value;
	int ret = kstrtou32(buf, 0, &value);

	if (ret)
		return ret;
	if (value < tunable->min || value > tunable->max)
		return -ERANGE;
	WRITE_ONCE(*tunable->value, value);
	return count;
}

#define TUNABLE(_name, _min, _max)					\
	static struct tunable_attr _name##_tunable = {			\
		.attr = __ATTR(_name, 0644, tunable_show, tunable_store), \
		.value = &elastic_config.tun._name,			\
		.min = _min,						\
		.max = _max,						\
	}

#define HOUR_MS	3600000

TUNABLE(report_period_ms, 100, 60000);
TUNABLE(cpu_window_ms, 1, 1000);
TUNABLE(cpu_up_slack_milli, 0, 100000);
TUNABLE(cpu_down_slack_milli, 0, 100000);
TUNABLE(cpu_down_delay_ms, 0, HOUR_MS);
TUNABLE(cpu_settle_ms, 0, 60000);
TUNABLE(cpu_steal_max_permille, 0, 1000);
TUNABLE(floor_cpus, 0, 4096);
TUNABLE(floor_mib, 0, U32_MAX);
TUNABLE(mem_reserve_mib, 0, 1 << 20);
TUNABLE(mem_reserve_permille, 0, 900);
TUNABLE(mem_kernel_reserve_mib, 0, 1 << 20);
TUNABLE(mem_kernel_reserve_permille, 0, 900);
TUNABLE(mem_lookahead_ms, 0, 60000);
TUNABLE(mem_up_step_mib, 1, U32_MAX);
TUNABLE(mem_burst_mib, 0, 1 << 20);
TUNABLE(mem_burst_ms, 0, HOUR_MS);
TUNABLE(mem_down_margin_mib, 0, 1 << 20);
TUNABLE(mem_down_delay_ms, 0, HOUR_MS);
TUNABLE(mem_down_step_mib, 1, U32_MAX);
TUNABLE(mem_regret_ms, 0, HOUR_MS);
TUNABLE(mem_keep_max_mib, 0, U32_MAX);
TUNABLE(mem_keep_decay_ms, 1, HOUR_MS);
TUNABLE(mem_warm_mib, 0, 1 << 20);
TUNABLE(mem_warm_kernel_mib, 0, 1 << 20);
TUNABLE(mem_warm_idle_ms, 0, HOUR_MS);
TUNABLE(mem_offline_timeout_ms, 10, 60000);
TUNABLE(mem_retry_ms, 10, HOUR_MS);
TUNABLE(mem_retry_max_ms, 10, HOUR_MS);
TUNABLE(movable_max_percent, 0, 1000000);
TUNABLE(kernel_max_percent, 0, 100);
TUNABLE(refused_retry_ms, 10, HOUR_MS);
TUNABLE(oom_wait_ms, 0, 60000);

static const char * const zone_names[] = { "movable", "kernel" };

static ssize_t zone_show(struct kobject *kobj, struct kobj_attribute *attr, char *buf)
{
	return sysfs_emit(buf, "%s\n", zone_names[READ_ONCE(elastic_config.zone)]);
}

static ssize_t zone_store(struct kobject *kobj, struct kobj_attribute *attr,
			  const char *buf, size_t count)
{
	int ret = sysfs_match_string(zone_names, buf);

	if (ret < 0)
		return ret;
	WRITE_ONCE(elastic_config.zone, ret);
	return count;
}
RW(zone);

static struct attribute *tunable_attrs[] = {
	&report_period_ms_tunable.attr.attr,
	&cpu_window_ms_tunable.attr.attr,
	&cpu_up_slack_milli_tunable.attr.attr,
	&cpu_down_slack_milli_tunable.attr.attr,
	&cpu_down_delay_ms_tunable.attr.attr,
	&cpu_settle_ms_tunable.attr.attr,
	&cpu_steal_max_permille_tunable.attr.attr,
	&floor_cpus_tunable.attr.attr,
	&floor_mib_tunable.attr.attr,
	&mem_reserve_mib_tunable.attr.attr,
	&mem_reserve_permille_tunable.attr.attr,
	&mem_kernel_reserve_mib_tunable.attr.attr,
	&mem_kernel_reserve_permille_tunable.attr.attr,
	&mem_lookahead_ms_tunable.attr.attr,
	&mem_up_step_mib_tunable.attr.attr,
	&mem_burst_mib_tunable.attr.attr,
	&mem_burst_ms_tunable.attr.attr,
	&mem_down_margin_mib_tunable.attr.attr,
	&mem_down_delay_ms_tunable.attr.attr,
	&mem_down_step_mib_tunable.attr.attr,
	&mem_regret_ms_tunable.attr.attr,
	&mem_keep_max_mib_tunable.attr.attr,
	&mem_keep_decay_ms_tunable.attr.attr,
	&mem_warm_mib_tunable.attr.attr,
	&mem_warm_kernel_mib_tunable.attr.attr,
	&mem_warm_idle_ms_tunable.attr.attr,
	&mem_offline_timeout_ms_tunable.attr.attr,
	&mem_retry_ms_tunable.attr.attr,
	&mem_retry_max_ms_tunable.attr.attr,
	&movable_max_percent_tunable.attr.attr,
	&kernel_max_percent_tunable.attr.attr,
	&refused_retry_ms_tunable.attr.attr,
	&oom_wait_ms_tunable.attr.attr,
	&zone_attr.attr,
	NULL
};

static const struct attribute_group tunables_group = {
	.name = "tunables",
	.attrs = tunable_attrs,
};

/* ---- stats/ ---- */

static const char * const stat_names[STAT_NR] = {
	[STAT_HYPERCALLS]		= "hypercalls",
	[STAT_HELLOS]			= "hellos",
	[STAT_REPORTS]			= "reports",
	[STAT_REQUESTS]			= "requests",
	[STAT_RELEASES]			= "releases",
	[STAT_STALE]			= "stale",
	[STAT_CALL_ERRORS]		= "call_errors",
	[STAT_REFUSED_CPUS]		= "refused_cpus",
	[STAT_REFUSED_UNITS]		= "refused_units",
	[STAT_CPUS_ADDED]		= "cpus_added",
	[STAT_CPUS_REMOVED]		= "cpus_removed",
	[STAT_CPUS_HINTED]		= "cpus_hinted",
	[STAT_CPU_ADD_FAILURES]		= "cpu_add_failures",
	[STAT_CPU_REMOVE_FAILURES]	= "cpu_remove_failures",
	[STAT_BLOCKS_ADDED]		= "blocks_added",
	[STAT_BLOCKS_REMOVED]		= "blocks_removed",
	[STAT_BLOCK_ADD_FAILURES]	= "block_add_failures",
	[STAT_OFFLINE_EBUSY]		= "offline_ebusy",
	[STAT_OFFLINE_EINTR]		= "offline_eintr",
	[STAT_OFFLINE_ENOMEM]		= "offline_enomem",
	[STAT_OFFLINE_OTHER]		= "offline_other",
	[STAT_UNITS_PLUGGED]		= "units_plugged",
	[STAT_UNITS_UNPLUGGED]		= "units_unplugged",
	[STAT_STUCK_UNMOVABLE]		= "stuck_unmovable",
	[STAT_STUCK_PINNED]		= "stuck_pinned",
	[STAT_STUCK_BUSY]		= "stuck_busy",
	[STAT_CACHE_DROPPED]		= "cache_pages_dropped",
	[STAT_DISCARDS]			= "discards",
	[STAT_UNITS_DISCARDED]		= "units_discarded",
	[STAT_KERNEL_GROWTHS]		= "kernel_growths",
	[STAT_KSWAPD_WAKES]		= "kswapd_wakes",
	[STAT_DIRECT_RECLAIMS]		= "direct_reclaims",
	[STAT_OOM_CALLS]		= "oom_calls",
	[STAT_OOM_RESCUES]		= "oom_rescues",
	[STAT_SENSE_RUNS]		= "sense_runs",
	[STAT_WAKES]			= "wakes",
	[STAT_CPU_ADD_LAST_US]		= "cpu_add_last_us",
	[STAT_BLOCK_ADD_LAST_US]	= "block_add_last_us",
	[STAT_BLOCK_REMOVE_LAST_US]	= "block_remove_last_us",
	[STAT_REQUEST_LAST_NS]		= "request_last_ns",
	[STAT_PLUG_LAST_NS]		= "plug_last_ns",
	[STAT_UNPLUG_LAST_US]		= "unplug_last_us",
};

static struct kobj_attribute stat_attrs[STAT_NR];
static struct attribute *stat_attr_list[STAT_NR + 1];

static ssize_t stat_show(struct kobject *kobj, struct kobj_attribute *attr, char *buf)
{
	return sysfs_emit(buf, "%lld\n", atomic64_read(&elastic_stats[attr - stat_attrs]));
}

static const struct attribute_group stats_group = { .name = "stats", .attrs = stat_attr_list };

static void name_stats(void)
{
	unsigned int i;

	for (i = 0; i < STAT_NR; i++) {
		sysfs_attr_init(&stat_attrs[i].attr);
		stat_attrs[i].attr.name = stat_names[i];
		stat_attrs[i].attr.mode = 0444;
		stat_attrs[i].show = stat_show;
		stat_attr_list[i] = &stat_attrs[i].attr;
	}
}

static const struct attribute_group *groups[] = {
	&top_group,
	&state_group,
	&tunables_group,
	&stats_group,
	NULL
};

/**
 * sysfs_start() - make the files
 *
 * Return: 0 or an error.
 */
int sysfs_start(void)
{
	int ret;

	name_stats();
	root = kobject_create_and_add("elastic_guest", kernel_kobj);
	if (!root)
		return -ENOMEM;
	ret = sysfs_create_groups(root, groups);
	if (ret)
		kobject_put(root);
	return ret;
}

/**
 * sysfs_stop() - remove the files; nobody is in one on return
 */
void sysfs_stop(void)
{
	sysfs_remove_groups(root, groups);
	kobject_put(root);
}
