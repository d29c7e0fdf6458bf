// SPDX-License-Identifier: GPL-2.0
/*
 * The session with the host: HELLO, REPORT, requests, releases, BYE.
 *
 * All of this runs in who acts for the worker, or in main.c before the worker exists
 * and after it is gone. A stale session (the VM was migrated or restored, the host
 * module was reloaded) is mended here, by a HELLO with the present inventory;
 * callers see an error only if that failed.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/cpu.h>
#include <linux/mutex.h>
#include <linux/printk.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/string.h>

#include "elastic_guest.h"
#include "hypercall.h"
#include "trace.h"

#define ARGUMENT_SIZE	(sizeof(struct elastic_hello) +			\
			 ELASTIC_MAX_CPU_WORDS * sizeof(u64) +		\
			 ELASTIC_MAX_RANGES * sizeof(struct elastic_range))

struct session session;

/* What memory arguments are passed in: physically contiguous, one at a time. */
static void *argument;

/* The same for DISCARD, which does not come from the worker alone. */
static DEFINE_MUTEX(discard_lock);
static struct elastic_range *discard_argument;

/* Now no session can be mended: that takes a lock. */
static bool no_hello;

/* Protects refusal_text, which the worker writes and sysfs reads. */
static DEFINE_SPINLOCK(refusal_lock);
static char refusal_text[REFUSAL_LEN] = "none";

static const char * const reason_names[ELASTIC_R_NR] = {
	[ELASTIC_R_NONE]	= "none",
	[ELASTIC_R_MAX]		= "maximum",
	[ELASTIC_R_POOL]	= "pool",
	[ELASTIC_R_CEILING]	= "ceiling",
	[ELASTIC_R_RATE]	= "rate",
	[ELASTIC_R_NOT_GRANTED]	= "not-granted",
	[ELASTIC_R_ORDER]	= "order",
	[ELASTIC_R_SELF]	= "self",
	[ELASTIC_R_PINNED]	= "pinned",
	[ELASTIC_R_VERSION]	= "version",
	[ELASTIC_R_LENGTH]	= "length",
	[ELASTIC_R_RESERVED]	= "reserved",
	[ELASTIC_R_ADMISSION]	= "admission",
	[ELASTIC_R_WHOLE]	= "whole",
};

static const char *reason_name(u64 reason)
{
	return reason < ELASTIC_R_NR ? reason_names[reason] : "unknown";
}

/* What a refused user hears: -EAGAIN may go away by itself, -ENOSPC will not. */
static int reason_errno(u64 reason)
{
	switch (reason) {
	case ELASTIC_R_POOL:
	case ELASTIC_R_RATE:
	case ELASTIC_R_WHOLE:
		return -EAGAIN;
	default:
		return -ENOSPC;
	}
}

static int status_errno(s64 status)
{
	switch (status) {
	case ELASTIC_OK:
	case ELASTIC_PARTIAL:
	case ELASTIC_REFUSED:
		return 0;
	case ELASTIC_E_PERM:
		return -EPERM;
	case ELASTIC_E_INTR:
		return -EINTR;
	case ELASTIC_E_NOMEM:
		return -ENOMEM;
	case ELASTIC_E_FAULT:
		return -EFAULT;
	case ELASTIC_E_STALE:
		return -ESTALE;
	case ELASTIC_E_NOSYS:
		return -EOPNOTSUPP;
	case -KVM_ENOSYS:
		return -ENODEV;
	default:
		return -EINVAL;
	}
}

static void set_state(enum session_state state, int ret)
{
	WRITE_ONCE(session.state, state);
	trace_elastic_session(state, ret);
}

/* After every hypercall: count it. */
static int account(enum elastic_op op, enum elastic_stat stat, u64 start_ns,
		   const struct hc_answer *answer)
{
	u64 ns = ktime_get_ns() - start_ns;
	int ret = status_errno(answer->status);

	stat_inc(STAT_HYPERCALLS);
	stat_inc(stat);
	trace_elastic_call(op, answer->status, answer->rbx, answer->rcx, answer->rdx, ns);
	if (op == ELASTIC_OP_REQUEST)
		stat_set(STAT_REQUEST_LAST_NS, ns);
	if (ret == -ESTALE)
		stat_inc(STAT_STALE);
	else if (ret)
		stat_inc(STAT_CALL_ERRORS);
	return ret;
}

/* The same for those of the worker: see what it did to the session. */
static int finish(enum elastic_op op, enum elastic_stat stat, u64 start_ns,
		  const struct hc_answer *answer)
{
	int ret = account(op, stat, start_ns, answer);

	if (ret != -ESTALE && ret != -ENODEV)
		return ret;
	WRITE_ONCE(session.enforced, false);
	if (session.state == SESSION_MANAGED)
		set_state(SESSION_LOST, ret);
	return ret;
}

static void note_refusal(const char *what, u64 wanted, u64 granted, u64 reason)
{
	spin_lock(&refusal_lock);
	scnprintf(refusal_text, sizeof(refusal_text), "%s wanted=%llu granted=%llu reason=%s",
		  what, wanted, granted, reason_name(reason));
	spin_unlock(&refusal_lock);
}

/**
 * session_refusal() - the last thing that the host refused
 * @text: REFUSAL_LEN bytes, or "none"
 */
void session_refusal(char *text)
{
	spin_lock(&refusal_lock);
	strscpy(text, refusal_text, REFUSAL_LEN);
	spin_unlock(&refusal_lock);
}

/* RELEASE_MEM or DISCARD; *@bad: the first bad range, @nr if there is none. */
static int give_up_once(bool release, const struct elastic_range *ranges, u32 nr, u32 *bad)
{
	struct hc_answer answer;
	u64 start = ktime_get_ns();
	int ret;

	if (release) {
		answer = hc_release_units(session.cookie, ranges, nr);
		ret = finish(ELASTIC_OP_RELEASE_MEM, STAT_RELEASES, start, &answer);
	} else {
		/* Not from the worker alone, who sees for himself if it is lost. */
		answer = hc_discard_units(READ_ONCE(session.cookie), ranges, nr);
		ret = account(ELASTIC_OP_DISCARD, STAT_DISCARDS, start, &answer);
		if (!ret)
			stat_add(STAT_UNITS_DISCARDED, answer.rdx);
	}
	*bad = ret == -EINVAL ? min_t(u64, answer.rcx, nr) : nr;
	return ret;
}

/* The same without those ranges that are not granted as they are. */
static int give_up(bool release, const struct elastic_range *ranges, u32 nr)
{
	u32 bad, none;
	int ret = 0;

	while (nr) {
		ret = give_up_once(release, ranges, nr, &bad);
		if (ret != -EINVAL || bad == nr)
			return ret;
		/* Nothing was given up: those before the bad one, then those behind it. */
		if (bad) {
			ret = give_up_once(release, ranges, bad, &none);
			if (ret)
				return ret;
		}
		ranges += bad + 1;
		nr -= bad + 1;
	}
	return 0;
}

/* More absent ranges than fit into HELLO are given up afterwards. */
static int release_rest(u64 cursor)
{
	u32 nr;
	int ret;

	for (;;) {
		nr = mem_absent(&cursor, argument, ELASTIC_MAX_RANGES);
		if (!nr)
			return 0;
		ret = give_up(true, argument, nr);
		if (ret)
			return ret;
	}
}

/* Write the inventory. Return its length; the CPUs must not change meanwhile. */
static u64 fill_hello(struct elastic_hello *hello, u64 *cursor)
{
	u64 *words = (u64 *)(hello + 1);
	struct elastic_range *ranges;

	memset(hello, 0, ARGUMENT_SIZE);
	hello->version_min = ELASTIC_VERSION;
	hello->version_max = ELASTIC_VERSION;
	hello->features = ELASTIC_FEAT_CPU | ELASTIC_FEAT_MEM | ELASTIC_FEAT_DISCARD |
			  ELASTIC_FEAT_HINT;
	hello->nr_cpu_words = cpu_held_words(words);
	ranges = (struct elastic_range *)(words + hello->nr_cpu_words);
	hello->nr_ranges = mem_absent(cursor, ranges, ELASTIC_MAX_RANGES);
	return (u64)(ranges + hello->nr_ranges) - (u64)hello;
}

static int refused_hello(u64 reason)
{
	note_refusal("session", 1, 0, reason);
	pr_err("the host refused the session: %s\n", reason_name(reason));
	return reason == ELASTIC_R_VERSION ? -EPROTONOSUPPORT : -EACCES;
}

/**
 * session_hello() - begin a session with the present inventory
 *
 * Context: worker, or before there is one. May sleep; takes cpus_read_lock().
 *
 * Return: 0; -ENODEV without a host module; -EACCES or -EPROTONOSUPPORT if the
 * host refuses; other errors of the call.
 */
int session_hello(void)
{
	struct hc_answer answer;
	u64 cursor = 0, length, start;
	int ret;

	/* No CPU may come or go between the inventory and the answer. */
	cpus_read_lock();
	length = fill_hello(argument, &cursor);
	start = ktime_get_ns();
	answer = hc_hello(argument, length);
	ret = finish(ELASTIC_OP_HELLO, STAT_HELLOS, start, &answer);
	/* A host that answers a version that was not offered has none in common. */
	if (!ret && answer.status == ELASTIC_OK && answer.rdx != ELASTIC_VERSION) {
		hc_bye(answer.rbx);
		ret = -EPROTONOSUPPORT;
	}
	if (!ret && answer.status == ELASTIC_OK) {
		session.cookie = answer.rbx;
		WRITE_ONCE(session.features, answer.rcx);
		WRITE_ONCE(session.version, answer.rdx);
		WRITE_ONCE(session.known, false);
		WRITE_ONCE(session.cpu_hint, 0);
		cpu_adopt();
		WRITE_ONCE(session.enforced, true);
	}
	cpus_read_unlock();
	if (!ret && answer.status != ELASTIC_OK)
		ret = refused_hello(answer.rbx);
	if (ret) {
		trace_elastic_session(session.state, ret);
		return ret;
	}
	set_state(SESSION_MANAGED, 0);
	return release_rest(cursor);
}

/**
 * session_no_hello() - do not mend a session that is lost, or do so again
 * @on: do not
 *
 * HELLO takes the CPU hotplug lock, which a task that ran out of memory may hold.
 *
 * Context: who acts for the worker.
 */
void session_no_hello(bool on)
{
	no_hello = on;
}

/* Have a session, if there is to be one. */
static int session_ready(void)
{
	switch (session.state) {
	case SESSION_MANAGED:
		return 0;
	case SESSION_LOST:
		return no_hello ? -ESTALE : session_hello();
	default:
		return -ENOTCONN;
	}
}

static int report_once(const struct elastic_report *report)
{
	struct hc_answer answer;
	u64 start;
	int ret = session_ready();

	if (ret)
		return ret;
	memcpy(argument, report, sizeof(*report));
	start = ktime_get_ns();
	answer = hc_report(session.cookie, argument);
	ret = finish(ELASTIC_OP_REPORT, STAT_REPORTS, start, &answer);
	if (ret)
		return ret;
	WRITE_ONCE(session.cpus_target, (u32)answer.rbx);
	WRITE_ONCE(session.cpus_granted, answer.rbx >> 32);
	WRITE_ONCE(session.units_target, answer.rcx);
	WRITE_ONCE(session.units_granted, answer.rdx & ELASTIC_REPORT_UNITS_MASK);
	WRITE_ONCE(session.cpu_hint, answer.rdx >> ELASTIC_HINT_SHIFT);
	WRITE_ONCE(session.known, true);
	return 0;
}

/**
 * session_report() - telemetry in, targets out (into @session)
 * @report: what to tell
 *
 * Return: 0 or the error of the call.
 */
int session_report(struct elastic_report *report)
{
	int ret = report_once(report);

	return ret == -ESTALE ? report_once(report) : ret;
}

static int request_cpus_once(u32 word, u64 set, u32 nr, u64 *granted)
{
	struct hc_answer answer;
	u64 start, reason;
	int ret = session_ready();

	if (ret)
		return ret;
	if (!(session.features & ELASTIC_FEAT_CPU))
		return -EOPNOTSUPP;
	start = ktime_get_ns();
	answer = hc_request_cpus(session.cookie, word, set, nr);
	ret = finish(ELASTIC_OP_REQUEST, STAT_REQUESTS, start, &answer);
	if (ret)
		return ret;
	*granted = answer.rcx & set;
	if (answer.status == ELASTIC_OK)
		return 0;
	reason = answer.rbx & 0xffff;
	stat_inc(STAT_REFUSED_CPUS);
	note_refusal("cpus", nr, hweight64(*granted), reason);
	return reason_errno(reason);
}

/**
 * session_request_cpus() - ask for vCPUs
 * @word: index of the 64-bit word of the vCPU set
 * @set: vCPUs of that word that would do
 * @nr: how many of them are wanted
 * @granted: which of @set are granted now; also written with -EAGAIN, -ENOSPC
 *
 * Return: 0 if all are granted; -EAGAIN or -ENOSPC if fewer or none are (the
 * reason is in last_refusal); other errors: nothing was granted.
 */
int session_request_cpus(u32 word, u64 set, u32 nr, u64 *granted)
{
	int ret;

	*granted = 0;
	ret = request_cpus_once(word, set, nr, granted);
	return ret == -ESTALE ? request_cpus_once(word, set, nr, granted) : ret;
}

static int request_units_once(u64 first, u64 nr, u64 *granted)
{
	struct hc_answer answer;
	u64 start, reason;
	int ret = session_ready();

	if (ret)
		return ret;
	if (!(session.features & ELASTIC_FEAT_MEM))
		return -EOPNOTSUPP;
	start = ktime_get_ns();
	answer = hc_request_units(session.cookie, first, nr);
	ret = finish(ELASTIC_OP_REQUEST, STAT_REQUESTS, start, &answer);
	if (ret)
		return ret;
	*granted = min(answer.rdx, nr);
	if (answer.status == ELASTIC_OK)
		return 0;
	reason = answer.rbx >> 16 & 0xffff;
	stat_inc(STAT_REFUSED_UNITS);
	note_refusal("units", nr, *granted, reason);
	return reason_errno(reason);
}

/**
 * session_request_units() - ask for memory
 * @first: number of the first unit
 * @nr: how many units
 * @granted: how many from @first on are granted now; also written with -EAGAIN
 *	and -ENOSPC
 *
 * Return: as session_request_cpus().
 */
int session_request_units(u64 first, u64 nr, u64 *granted)
{
	int ret;

	*granted = 0;
	ret = request_units_once(first, nr, granted);
	return ret == -ESTALE ? request_units_once(first, nr, granted) : ret;
}

/**
 * session_release_cpus() - give up vCPUs
 * @word: index of the 64-bit word of the vCPU set
 * @set: the vCPUs, offline
 * @granted: which of @set are still granted
 *
 * A HELLO in between gives them up as well, because they are not in it.
 *
 * Context: worker; the caller keeps the CPUs offline with cpus_read_lock(), so
 * a lost session is not mended here.
 *
 * Return: 0; -ESTALE or -ENOTCONN if there is no session (any more); other
 * errors of the call.
 */
int session_release_cpus(u32 word, u64 set, u64 *granted)
{
	struct hc_answer answer;
	u64 start;
	int ret;

	*granted = set;
	if (session.state != SESSION_MANAGED)
		return -ENOTCONN;
	start = ktime_get_ns();
	answer = hc_release_cpus(session.cookie, word, set);
	ret = finish(ELASTIC_OP_RELEASE_CPU, STAT_RELEASES, start, &answer);
	if (!ret)
		*granted = answer.rcx & set;
	return ret;
}

/**
 * session_release_units() - give up memory
 * @ranges: ascending, disjoint, not empty; already absent in mem_absent()
 * @nr: how many, at most ELASTIC_MAX_RANGES
 *
 * Ranges that are not granted as they are here are passed over.
 *
 * Return: 0, also if a HELLO in between gave them up; else the error.
 */
int session_release_units(const struct elastic_range *ranges, u32 nr)
{
	int ret;

	if (session.state == SESSION_LOST)
		return session_hello();
	if (session.state != SESSION_MANAGED)
		return -ENOTCONN;
	memcpy(argument, ranges, nr * sizeof(*ranges));
	ret = give_up(true, argument, nr);
	return ret == -ESTALE ? session_hello() : ret;
}

/**
 * session_discard_units() - the content of granted units may go
 * @ranges: ascending, disjoint, not empty
 * @nr: how many, at most ELASTIC_MAX_RANGES
 *
 * A lost session is not mended here: the worker does that.
 *
 * Context: process; any task.
 *
 * Return: 0; -ENOTCONN without a session; -EOPNOTSUPP if the host cannot; the error
 * of the call.
 */
int session_discard_units(const struct elastic_range *ranges, u32 nr)
{
	int ret;

	if (READ_ONCE(session.state) != SESSION_MANAGED)
		return -ENOTCONN;
	if (!(READ_ONCE(session.features) & ELASTIC_FEAT_DISCARD))
		return -EOPNOTSUPP;
	mutex_lock(&discard_lock);
	memcpy(discard_argument, ranges, nr * sizeof(*ranges));
	ret = give_up(false, discard_argument, nr);
	mutex_unlock(&discard_lock);
	return ret;
}

/**
 * session_bye() - end the session; what is granted stays granted
 */
void session_bye(void)
{
	struct hc_answer answer;
	u64 start;

	if (session.state == SESSION_MANAGED) {
		start = ktime_get_ns();
		answer = hc_bye(session.cookie);
		finish(ELASTIC_OP_BYE, STAT_RELEASES, start, &answer);
	}
	session.cookie = 0;
	WRITE_ONCE(session.known, false);
	set_state(SESSION_DETACHED, 0);
}

/**
 * session_init() - get ready for session_hello()
 *
 * Return: 0 or -ENOMEM.
 */
int session_init(void)
{
	argument = kzalloc(ARGUMENT_SIZE, GFP_KERNEL);
	discard_argument = kcalloc(ELASTIC_MAX_RANGES, sizeof(*discard_argument), GFP_KERNEL);
	if (argument && discard_argument)
		return 0;
	session_exit();
	return -ENOMEM;
}

void session_exit(void)
{
	kfree(discard_argument);
	kfree(argument);
}
