/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * KTAP for the C self-tests: one plan, one line per result, an exit status that
 * the kernel's kselftest runner understands.
 *
 *	ktap_plan(3);			or no call: the plan follows at the end
 *	ktap_ok(ret == 0, "hello answers %d", ret);
 *	ktap_skip("no huge pages", "take from hugetlb");
 *	return ktap_finish();
 *
 * There is no "expected failure": what is known to fail is a defect or no test.
 * One thread prints results. Output is unbuffered by line, so that what a
 * killed test had said is not lost.
 */
#ifndef SELFTESTS_KTAP_H
#define SELFTESTS_KTAP_H

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Exit statuses of kselftest */
#define KTAP_EXIT_PASS	0
#define KTAP_EXIT_FAIL	1
#define KTAP_EXIT_SKIP	4

struct ktap_state {
	unsigned int plan;	/* results announced, 0: not yet */
	unsigned int count;	/* results printed */
	unsigned int passed;
	unsigned int failed;
	unsigned int skipped;
	bool begun;		/* the version line is out */
};

/* Weak: one for the whole program, whichever of its files use this header */
__attribute__((weak)) struct ktap_state ktap;

static inline void ktap_begin(void)
{
	if (ktap.begun)
		return;
	ktap.begun = true;
	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("TAP version 13\n");
}

static inline void ktap_plan(unsigned int nr)
{
	ktap_begin();
	ktap.plan = nr;
	printf("1..%u\n", nr);
}

/* A diagnostic: belongs to the result that follows */
static inline __attribute__((format(printf, 1, 2)))
void ktap_diag(const char *fmt, ...)
{
	va_list ap;

	ktap_begin();
	printf("# ");
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	printf("\n");
}

static inline void ktap_vresult(const char *word, const char *skip_reason,
				const char *fmt, va_list ap)
{
	ktap_begin();
	printf("%s %u ", word, ++ktap.count);
	vprintf(fmt, ap);
	if (skip_reason)
		printf(" # SKIP %s", skip_reason);
	printf("\n");
}

/* One result. Returns @pass, so that a caller can give up what hangs on it. */
static inline __attribute__((format(printf, 2, 3)))
bool ktap_ok(bool pass, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	ktap_vresult(pass ? "ok" : "not ok", NULL, fmt, ap);
	va_end(ap);
	if (pass)
		ktap.passed++;
	else
		ktap.failed++;
	return pass;
}

/* One result: @got must be @want; says both if it is not */
static inline __attribute__((format(printf, 3, 4)))
bool ktap_eq(long long got, long long want, const char *fmt, ...)
{
	va_list ap;

	if (got != want)
		ktap_diag("got %lld (0x%llx), want %lld (0x%llx)",
			  got, (unsigned long long)got,
			  want, (unsigned long long)want);
	va_start(ap, fmt);
	ktap_vresult(got == want ? "ok" : "not ok", NULL, fmt, ap);
	va_end(ap);
	if (got == want)
		ktap.passed++;
	else
		ktap.failed++;
	return got == want;
}

/* One result that could not be had, and why */
static inline __attribute__((format(printf, 2, 3)))
void ktap_skip(const char *reason, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	ktap_vresult("ok", reason, fmt, ap);
	va_end(ap);
	ktap.skipped++;
}

/* The whole test cannot be had */
static inline __attribute__((format(printf, 1, 2), noreturn))
void ktap_skip_all(const char *fmt, ...)
{
	va_list ap;

	ktap_begin();
	printf("1..0 # SKIP ");
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	printf("\n");
	exit(KTAP_EXIT_SKIP);
}

/* Going on makes no sense: the test failed */
static inline __attribute__((format(printf, 1, 2), noreturn))
void ktap_bail(const char *fmt, ...)
{
	va_list ap;

	ktap_begin();
	printf("Bail out! ");
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	printf("\n");
	exit(KTAP_EXIT_FAIL);
}

/*
 * Prints the plan if it has not been, and the totals. Returns the exit status:
 * a plan that was not met is a failure, and so is a test without a result.
 */
static inline int ktap_finish(void)
{
	ktap_begin();
	if (!ktap.plan)
		printf("1..%u\n", ktap.count);
	else if (ktap.plan != ktap.count)
		ktap_diag("planned %u results, printed %u", ktap.plan, ktap.count);
	printf("# Totals: pass:%u fail:%u xfail:0 xpass:0 skip:%u error:0\n",
	       ktap.passed, ktap.failed, ktap.skipped);
	if (ktap.failed || !ktap.count || (ktap.plan && ktap.plan != ktap.count))
		return KTAP_EXIT_FAIL;
	return ktap.passed ? KTAP_EXIT_PASS : KTAP_EXIT_SKIP;
}

#endif /* SELFTESTS_KTAP_H */
