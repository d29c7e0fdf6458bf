/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The specification, as text, and what the tests read out of it: the table of
 * statuses by operation, and the values of the enumerators.
 *
 * The text is linked in (ELASTIC_SPEC is its path), so that a test that was
 * copied to a host without the sources still compares with what it was built
 * from.
 */
#ifndef SELFTESTS_OPTABLE_H
#define SELFTESTS_OPTABLE_H

#include <ctype.h>

#include "../uapi/elastic_hypercall.h"
#include "ktap.h"

__asm__(".pushsection .rodata\n"
	"optable_spec: .incbin \"" ELASTIC_SPEC "\"\n"
	".byte 0\n"
	".popsection");
extern const char optable_spec[];

#define OPTABLE_UNKNOWN	ELASTIC_OP_NR	/* row of all operations that are none */

enum optable_status {
	OPT_OK, OPT_PARTIAL, OPT_REFUSED, OPT_PERM, OPT_INTR, OPT_NOMEM,
	OPT_FAULT, OPT_INVAL, OPT_NOSYS, OPT_STALE, OPT_NR
};

static const struct optable_name {
	const char *name;	/* in the table */
	const char *symbol;
	long long value;
} optable_statuses[OPT_NR] = {
#define STATUS(index, name, symbol) [index] = { name, #symbol, symbol }
	STATUS(OPT_OK, "OK", ELASTIC_OK),
	STATUS(OPT_PARTIAL, "PARTIAL", ELASTIC_PARTIAL),
	STATUS(OPT_REFUSED, "REFUSED", ELASTIC_REFUSED),
	STATUS(OPT_PERM, "PERM", ELASTIC_E_PERM),
	STATUS(OPT_INTR, "INTR", ELASTIC_E_INTR),
	STATUS(OPT_NOMEM, "NOMEM", ELASTIC_E_NOMEM),
	STATUS(OPT_FAULT, "FAULT", ELASTIC_E_FAULT),
	STATUS(OPT_INVAL, "INVAL", ELASTIC_E_INVAL),
	STATUS(OPT_NOSYS, "NOSYS", ELASTIC_E_NOSYS),
	STATUS(OPT_STALE, "STALE", ELASTIC_E_STALE),
#undef STATUS
};

static const struct optable_name optable_ops[ELASTIC_OP_NR + 1] = {
#define OP(name) [ELASTIC_OP_##name] = { #name, "ELASTIC_OP_" #name, ELASTIC_OP_##name }
	OP(HELLO), OP(REPORT), OP(REQUEST), OP(RELEASE_CPU), OP(RELEASE_MEM),
	OP(DISCARD), OP(BYE),
	[OPTABLE_UNKNOWN] = { "unknown", "ELASTIC_OP_NR", ELASTIC_OP_NR },
#undef OP
};

struct optable {
	bool allowed[ELASTIC_OP_NR + 1][OPT_NR];
	bool has_row[ELASTIC_OP_NR + 1];
	bool has_column[OPT_NR];
	bool common[OPT_NR];	/* "All return ..." */
};

static inline int optable_find(const struct optable_name *names, unsigned int nr,
			       const char *name)
{
	unsigned int i;

	for (i = 0; i < nr; i++)
		if (!strcmp(names[i].name, name))
			return (int)i;
	return -1;
}

/* Index of a status by its value, -1: no status */
static inline int optable_status(long long value)
{
	unsigned int i;

	for (i = 0; i < OPT_NR; i++)
		if (optable_statuses[i].value == value)
			return (int)i;
	return -1;
}

/* The next line of a comment, without its leading " * ", into @line */
static inline const char *optable_line(const char *text, char *line, size_t size)
{
	const char *end = strchr(text, '\n');
	size_t len;

	if (!end)
		return NULL;
	while (text < end && (*text == ' ' || *text == '*'))
		text++;
	len = (size_t)(end - text);
	if (len >= size)
		len = size - 1;
	memcpy(line, text, len);
	line[len] = 0;
	return end + 1;
}

/*
 * Reads section 6. Anything that it does not understand is an error: a table
 * that nobody can read proves nothing. Returns NULL or what is wrong.
 */
static inline const char *optable_parse(const char *spec, struct optable *table)
{
	static char error[160];
	const char *text = strstr(spec, "Statuses by operation"), *p;
	int columns[OPT_NR], nr_columns = 0;
	char line[128], *word, *state;

	memset(table, 0, sizeof(*table));
	if (!text)
		return "no section \"Statuses by operation\"";

	/* "All return ELASTIC_E_A, ELASTIC_E_B, and ELASTIC_E_C." */
	p = strstr(text, "All return ");
	if (!p || !strchr(p, '.'))
		return "no sentence \"All return ...\"";
	for (const char *stop = strchr(p, '.'); (p = strstr(p, "ELASTIC_E_")) && p < stop; p++) {
		size_t len = strlen("ELASTIC_E_"), i = 0;
		int status;

		for (; isupper((unsigned char)p[len + i]) && i < sizeof(line) - 1; i++)
			line[i] = p[len + i];
		line[i] = 0;
		status = optable_find(optable_statuses, OPT_NR, line);
		if (status < 0) {
			snprintf(error, sizeof(error), "\"All return\": no status %s", line);
			return error;
		}
		table->common[status] = true;
	}

	do {
		text = optable_line(text, line, sizeof(line));
	} while (text && strncmp(line, "OK ", 3));
	if (!text)
		return "no heading that begins with OK";
	for (word = strtok_r(line, " ", &state); word; word = strtok_r(NULL, " ", &state)) {
		int status = optable_find(optable_statuses, OPT_NR, word);

		if (status < 0 || table->has_column[status] || nr_columns == OPT_NR) {
			snprintf(error, sizeof(error), "heading: column \"%s\"", word);
			return error;
		}
		table->has_column[status] = true;
		columns[nr_columns++] = status;
	}
	while ((text = optable_line(text, line, sizeof(line))) && line[0]) {
		int op, column = 0;

		word = strtok_r(line, " ", &state);
		op = optable_find(optable_ops, ELASTIC_OP_NR + 1, word);
		if (op < 0 || table->has_row[op]) {
			snprintf(error, sizeof(error), "row \"%s\"", word);
			return error;
		}
		table->has_row[op] = true;
		while ((word = strtok_r(NULL, " ", &state))) {
			if (column == nr_columns || (strcmp(word, "x") && strcmp(word, "-"))) {
				snprintf(error, sizeof(error), "row %s: \"%s\"",
					 optable_ops[op].name, word);
				return error;
			}
			table->allowed[op][columns[column++]] = *word == 'x';
		}
		if (column != nr_columns) {
			snprintf(error, sizeof(error), "row %s: %d of %d columns",
				 optable_ops[op].name, column, nr_columns);
			return error;
		}
	}
	return NULL;
}

#endif /* SELFTESTS_OPTABLE_H */
