/* The rows of the document of `apply` and `dump`: one table a section, read by the checker of
 * arguments. See PROTOCOL.md, "apply and dump". */
#ifndef CONTROL_DOCUMENT_H
#define CONTROL_DOCUMENT_H

#include "control/args.h"

/* In the order in which things are made, so that what comes later may refer to what came before. */
enum section { SECTION_ROLES, SECTION_USERS, SECTION_TARGETS, SECTION_GRANTS, SECTION_COUNT };

extern const char *const section_names[SECTION_COUNT];
extern const struct argument *const section_rows[SECTION_COUNT];

#endif
