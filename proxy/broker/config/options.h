/*
 * The option table of proxy.conf, private to this folder: rows, and how a row's value gets into and
 * out of struct config. The rows of the policy keys come from <sallyport/policy.h> and read like
 * the others.
 */
#ifndef PROXY_BROKER_CONFIG_OPTIONS_H
#define PROXY_BROKER_CONFIG_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <sallyport/buffer.h>
#include <sallyport/errors.h>

#include "proxy/broker/config/config.h"

#define OPTION_ERROR_MAX 512

/* The numbers come first, then the texts of a policy, in the order of enum policy_kind: one parser
 * serves both. */
enum option_type {
    OPTION_DURATION = POLICY_DURATION,
    OPTION_COUNT = POLICY_COUNT,
    OPTION_SIZE = POLICY_SIZE,
    OPTION_BOOL = POLICY_BOOL,
    OPTION_CHOICE = POLICY_CHOICE,
    OPTION_SET = POLICY_SET,
    OPTION_DESTINATIONS = POLICY_DESTINATIONS, /* the member is a text in struct policy */
    OPTION_TEXT,
    OPTION_PATH
};

enum option_flags {
    OPTION_RELOAD = 1,  /* SIGHUP applies it */
    OPTION_ONCE = 2,    /* read at start: a change needs a restart */
    OPTION_REPEAT = 4,  /* may be given several times; the member is a struct config_list */
    OPTION_UNSET = 8,   /* may be empty: "not set" */
    OPTION_DERIVED = 16 /* the default is made from other options, see option_derive_defaults() */
};

/* A check beyond type and range. Returns 0, or ERR_INVALID with a sentence. */
typedef int option_check(const char *text, char *err, size_t err_len);

struct option {
    const char *section;
    const char *name;
    enum option_type type;
    unsigned flags;
    size_t offset; /* of the member in struct config */
    size_t size;   /* of a number: 1, 4 or 8 bytes */
    const char *def;
    const char *sample; /* for the example file, when there is no default to show */
    uint64_t min, max;  /* of a number; of a text its longest length */
    const char *choices;
    option_check *check;
    const char *help;
};

struct option_section {
    const char *name;
    const char *help;
};

extern const struct option_section option_sections[];
extern const size_t option_section_count;

#define OPTION_TABLE_MAX 96

/* All rows, in the order of the sections. */
size_t option_count(void);
const struct option *option_at(size_t index);

/* NULL when there is none. *index (may be NULL) is its place in the table. */
const struct option *option_find(const char *section, const char *name, size_t *index);
/* The section that has a key of that name, or NULL. */
const char *option_section_of(const char *name);
/* "Did you mean": the closest key of the section, or the closest section; NULL when none is. */
const char *option_nearest(const char *section, const char *name);
const char *option_nearest_section(const char *name);

/*
 * Parse and store one value. A path that is not absolute is taken relative to base_dir. A
 * repeatable option gains the value. On error nothing changes and err has a sentence that says
 * what to do. Returns 0, ERR_INVALID or ERR_MEMORY.
 */
MUST_CHECK int option_set(struct config *c, const struct option *o, const char *text,
                          const char *base_dir, char *err, size_t err_len);

/* Set every option that is not in is_set[] (table order; NULL: none is) to its default. */
MUST_CHECK int option_set_defaults(struct config *c, const bool *is_set);

/* How many values the option has, and the text of one; what option_set() would take. */
size_t option_value_count(const struct config *c, const struct option *o);
void option_value_text(const struct config *c, const struct option *o, size_t index,
                       struct buffer *out);
/* All values on one line, ", " between them; `""` for none. */
void option_values_line(const struct config *c, const struct option *o, struct buffer *out);
bool option_is_equal(const struct config *a, const struct config *b, const struct option *o);
MUST_CHECK int option_copy(struct config *to, const struct config *from, const struct option *o);
void option_free(struct config *c, const struct option *o);

/* ---- lists, checks and paths used by the table and by the loader ---- */

MUST_CHECK int config_list_add(struct config_list *list, const char *text);
void config_list_free(struct config_list *list);

/* base_dir/path, without doubled slashes, `/./` and a slash at the end; NULL: out of memory. */
char *config_path_join(const char *base_dir, const char *path);

/* What no single option can see. Reports through report(); see check.c. */
struct config_report {
    void *arg;
    void (*error)(void *arg, const struct option *o, const char *text);
    void (*warning)(void *arg, const struct option *o, const char *text);
};
void config_check_all(const struct config *c, const struct config_report *report);

int config_check_node(const char *text, char *err, size_t err_len);
int config_check_account(const char *text, char *err, size_t err_len);
int config_check_pam(const char *text, char *err, size_t err_len);
int config_check_listen(const char *text, char *err, size_t err_len);
int config_check_network(const char *text, char *err, size_t err_len);
int config_check_separators(const char *text, char *err, size_t err_len);
int config_check_public_address(const char *text, char *err, size_t err_len);

#endif
