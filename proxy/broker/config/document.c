/*
 * What the option table says in other shapes: the effective configuration (-T), the changes of a
 * reload, proxy.conf.example and proxy.conf(5). Everything is made from the rows, so that none of
 * them can say something else than the parser does.
 */
#include "proxy/broker/config/config.h"

#include <stdlib.h>
#include <string.h>

#include "proxy/broker/config/options.h"

#define EXAMPLE_COLUMNS 96
#define VALUE_TEXT_MAX  8192

/* ---- -T ---- */

static void print_option(const struct config *c, const struct option *o, struct buffer *out)
{
    size_t count = option_value_count(c, o);

    if (count == 0)
        buffer_printf(out, "# %s is not set\n", o->name);
    for (size_t i = 0; i < count; i++) {
        size_t before;

        buffer_printf(out, "%s =", o->name);
        before = out->len;
        buffer_put_str(out, " ");
        option_value_text(c, o, i, out);
        if (out->len == before + 1 && !out->failed)
            out->len = before; /* no blank at the end of the line */
        buffer_put_str(out, "\n");
    }
}

void config_print(const struct config *c, struct buffer *out)
{
    for (size_t s = 0; s < option_section_count; s++) {
        buffer_printf(out, "%s[%s]\n", s > 0 ? "\n" : "", option_sections[s].name);
        for (size_t i = 0; i < option_count(); i++)
            if (strcmp(option_at(i)->section, option_sections[s].name) == 0)
                print_option(c, option_at(i), out);
    }
}

/* ---- reload ---- */

static void diff_line(const struct config *old, const struct config *fresh, const struct option *o,
                      struct buffer *report)
{
    buffer_printf(report, "[%s] %s: ", o->section, o->name);
    option_values_line(old, o, report);
    buffer_put_str(report, " -> ");
    option_values_line(fresh, o, report);
    buffer_put_str(report, o->flags & OPTION_ONCE ? " (needs a restart)\n" : "\n");
}

static bool is_same_list(const struct config_list *a, const struct config_list *b)
{
    bool is_same = a->count == b->count;

    for (size_t i = 0; is_same && i < a->count; i++)
        is_same = strcmp(a->items[i], b->items[i]) == 0;
    return is_same;
}

/* The same files, and something else in them. */
static bool has_new_text(const struct config_list *old_paths, const struct config_list *old_texts,
                         const struct config_list *paths, const struct config_list *texts)
{
    return is_same_list(old_paths, paths) && !is_same_list(old_texts, texts);
}

size_t config_diff(const struct config *old, const struct config *fresh, struct buffer *report,
                   size_t *restarts)
{
    size_t changes = 0, once = 0;

    for (size_t i = 0; i < option_count(); i++) {
        const struct option *o = option_at(i);

        if (option_is_equal(old, fresh, o))
            continue;
        changes++;
        once += o->flags & OPTION_ONCE ? 1 : 0;
        diff_line(old, fresh, o, report);
    }
    if (strcmp(old->ssh_banner, fresh->ssh_banner) == 0 &&
        strcmp(old->ssh_banner_text, fresh->ssh_banner_text) != 0) {
        changes++;
        buffer_put_str(report, "[ssh] banner: the file has a new text\n");
    }
    if (has_new_text(&old->ssh_user_ca, &old->ssh_user_ca_text, &fresh->ssh_user_ca,
                     &fresh->ssh_user_ca_text)) {
        changes++;
        buffer_put_str(report, "[ssh] user_ca: a file has new keys\n");
    }
    if (restarts)
        *restarts = once;
    return changes;
}

int config_keep_fixed(struct config *fresh, const struct config *old)
{
    for (size_t i = 0; i < option_count(); i++) {
        const struct option *o = option_at(i);

        if ((o->flags & OPTION_ONCE) && option_copy(fresh, old, o) < 0)
            return ERR_MEMORY;
    }
    return 0;
}

/* ---- what a row says of itself, in words ---- */

/* The defaults as they are when nothing is set; NULL: out of memory. */
static struct config *defaults(void)
{
    struct config *c = calloc(1, sizeof(*c));

    if (c && option_set_defaults(c, NULL) < 0) {
        config_free(c);
        c = NULL;
    }
    return c;
}

/* Derived values that differ from machine to machine are shown by their sample. */
static void default_text(const struct config *c, const struct option *o, struct buffer *out)
{
    if (o->sample)
        buffer_put_str(out, o->sample);
    else if (option_value_count(c, o) > 0)
        option_value_text(c, o, 0, out);
}

static void limit_text(const struct option *o, uint64_t value, struct buffer *out)
{
    struct policy_key key = {.kind = (enum policy_kind)o->type, .choices = o->choices};
    char text[64];

    buffer_put_str(out, policy_value_text(&key, value, text, sizeof(text)));
}

/* "Yes or no.", "one of a, b, c", "from 1s to 10m, as in 30s, 10m or 4h". */
static void kind_text(const struct option *o, struct buffer *out)
{
    switch (o->type) {
    case OPTION_BOOL:
        buffer_put_str(out, "Yes or no.");
        break;
    case OPTION_CHOICE:
    case OPTION_SET:
        buffer_put_str(out, o->type == OPTION_SET ? "Words, or none, or all: " : "One of ");
        for (const char *p = o->choices; *p; p++)
            buffer_put(out, *p == '|' ? ", " : p, *p == '|' ? 2 : 1);
        buffer_put_str(out, ".");
        break;
    case OPTION_DURATION:
    case OPTION_COUNT:
    case OPTION_SIZE:
        buffer_put_str(out, o->type == OPTION_DURATION ? "A duration from "
                            : o->type == OPTION_SIZE   ? "A size from "
                                                       : "A number from ");
        limit_text(o, o->min, out);
        buffer_put_str(out, " to ");
        limit_text(o, o->max, out);
        buffer_put_str(out, ".");
        break;
    case OPTION_PATH:
        buffer_put_str(out, "A path.");
        break;
    case OPTION_DESTINATIONS:
        buffer_put_str(out, "Patterns, with blanks between them.");
        break;
    case OPTION_TEXT:
        buffer_put_str(out, "A text.");
        break;
    }
}

static void flags_text(const struct option *o, struct buffer *out)
{
    if (o->flags & OPTION_REPEAT)
        buffer_put_str(out, " May be given several times.");
    if (o->flags & OPTION_ONCE)
        buffer_put_str(out, " A change needs a restart.");
}

/* ---- proxy.conf.example ---- */

/* Wrapped between words at EXAMPLE_COLUMNS, each line behind "# ". */
static void put_comment(struct buffer *out, const char *text)
{
    size_t column = 0;

    while (*text) {
        size_t word = strcspn(text, " ");

        if (column > 0 && column + 1 + word > EXAMPLE_COLUMNS) {
            buffer_put_str(out, "\n");
            column = 0;
        }
        buffer_put_str(out, column == 0 ? "# " : " ");
        column += column == 0 ? 2 + word : 1 + word;
        buffer_put(out, text, word);
        text += word;
        text += strspn(text, " ");
    }
    buffer_put_str(out, "\n");
}

static void example_option(const struct config *c, const struct option *o, struct buffer *out)
{
    struct buffer kind;
    const char *text;

    buffer_init(&kind, VALUE_TEXT_MAX);
    kind_text(o, &kind);
    flags_text(o, &kind);
    text = buffer_cstr(&kind);
    buffer_put_str(out, "\n");
    put_comment(out, o->help);
    put_comment(out, text ? text : "");
    buffer_finish(&kind);
    buffer_printf(out, "#%s = ", o->name);
    default_text(c, o, out);
    buffer_put_str(out, "\n");
}

void config_example(struct buffer *out)
{
    struct config *c = defaults();

    if (!c) {
        out->failed = true;
        return;
    }
    put_comment(out,
                "proxy.conf: the configuration of sallyportd. Every option is here; a line that "
                "begins with a single # and no blank shows the default (or, for node, host_key "
                "and banner, an example).");
    put_comment(out,
                "sallyportd -t -c FILE checks a configuration, sallyportd -T -c FILE prints "
                "what is in effect, and a SIGHUP or sallyctl reload applies it. Relative paths "
                "are relative to the file. Comments stand on lines of their own. Durations: "
                "30s, 10m, 4h, 2d, 1h30m. Sizes: 64K, 256M, 1G.");
    buffer_put_str(out, "\n#include = conf.d/*.conf\n");
    for (size_t s = 0; s < option_section_count; s++) {
        buffer_printf(out, "\n[%s]\n", option_sections[s].name);
        put_comment(out, option_sections[s].help);
        for (size_t i = 0; i < option_count(); i++)
            if (strcmp(option_at(i)->section, option_sections[s].name) == 0)
                example_option(c, option_at(i), out);
    }
    config_free(c);
}

/* ---- proxy.conf(5) ---- */

static const char man_head[] =
    "proxy.conf(5)\n"
    "\n"
    "# NAME\n"
    "\n"
    "proxy.conf - configuration of sallyportd\n"
    "\n"
    "# DESCRIPTION\n"
    "\n"
    "*sallyportd*(8) reads _/etc/sallyport/proxy.conf_, or the file that *-c* names. The file has\n"
    "sections in brackets and lines of the form _key_ = _value_:\n"
    "\n"
    "```\n"
    "# everything not said here has its default\n"
    "include = conf.d/*.conf\n"
    "\n"
    "[ssh]\n"
    "listen = [::]:22\n"
    "\n"
    "[idle]\n"
    "disconnect_after = 1h\n"
    "```\n"
    "\n"
    "Lines that begin with # or ; are comments; there are none behind a value. Blanks around keys\n"
    "and values do not count. Durations are written as 30s, 10m, 4h, 2d or 1h30m, sizes as 64K,\n"
    "256M or 1G. A relative path is relative to the file that holds it. A key may be given once,\n"
    "all files taken together, unless it says that it may be given several times. A file has at\n"
    "most 1 MiB and a line at most 4096 bytes.\n"
    "\n"
    "*include* = _pattern_ reads other files in the place of the line, in lexical order, each\n"
    "beginning outside any section; a pattern that matches nothing is no error. Files may include\n"
    "others, 8 deep.\n"
    "\n"
    "*sallyportd -t* checks a configuration and names every error with its file and line.\n"
    "*sallyportd -T* prints what is in effect, in the same form. SIGHUP or *sallyctl reload* "
    "reads\n"
    "the file again: when it holds an error, nothing changes; otherwise each change is logged.\n"
    "Options that need a restart keep their old value until the daemon is started again, which\n"
    "ends no session.\n"
    "\n";

static const char man_tail[] = "# FILES\n"
                               "\n"
                               "_/etc/sallyport/proxy.conf_\n"
                               "\tThe configuration.\n"
                               "\n"
                               "_/usr/share/doc/sallyport/proxy.conf.example_\n"
                               "\tEvery option with its default.\n"
                               "\n"
                               "# SEE ALSO\n"
                               "\n"
                               "*sallyportd*(8), *sallyctl*(1)\n";

/* scdoc gives _ and * a meaning; a backslash takes it away. */
static void put_scdoc(struct buffer *out, const char *text)
{
    for (; *text; text++) {
        if (strchr("\\_*`", *text))
            buffer_put_str(out, "\\");
        buffer_put(out, text, 1);
    }
}

static void put_scdoc_line(struct buffer *out, struct buffer *text)
{
    const char *whole = buffer_cstr(text);

    put_scdoc(out, whole ? whole : "");
    buffer_reset(text);
}

static const char *value_word(const struct option *o)
{
    switch (o->type) {
    case OPTION_BOOL:
        return "yes|no";
    case OPTION_CHOICE:
        return o->choices;
    case OPTION_DURATION:
        return "duration";
    case OPTION_SIZE:
        return "size";
    case OPTION_COUNT:
        return "number";
    case OPTION_PATH:
        return "path";
    case OPTION_SET:
        return "words";
    case OPTION_DESTINATIONS:
        return "patterns";
    case OPTION_TEXT:
        break;
    }
    return "text";
}

static void man_option(const struct config *c, const struct option *o, struct buffer *out)
{
    struct buffer text;

    buffer_init(&text, VALUE_TEXT_MAX);
    buffer_put_str(out, "*");
    put_scdoc(out, o->name);
    buffer_printf(out, "* = _%s_\n\t", value_word(o));
    put_scdoc(out, o->help);
    if (o->type == OPTION_DURATION || o->type == OPTION_COUNT || o->type == OPTION_SIZE) {
        buffer_put_str(&text, " ");
        kind_text(o, &text);
    }
    flags_text(o, &text);
    if (!o->sample && option_value_count(c, o) > 0) {
        buffer_put_str(&text, " Default: ");
        option_value_text(c, o, 0, &text);
        buffer_put_str(&text, ".");
    }
    put_scdoc_line(out, &text);
    buffer_put_str(out, "\n\n");
    buffer_finish(&text);
}

void config_man(struct buffer *out)
{
    struct config *c = defaults();

    if (!c) {
        out->failed = true;
        return;
    }
    buffer_put_str(out, man_head);
    for (size_t s = 0; s < option_section_count; s++) {
        buffer_printf(out, "# SECTION [%s]\n\n", option_sections[s].name);
        put_scdoc(out, option_sections[s].help);
        buffer_put_str(out, "\n\n");
        for (size_t i = 0; i < option_count(); i++)
            if (strcmp(option_at(i)->section, option_sections[s].name) == 0)
                man_option(c, option_at(i), out);
    }
    buffer_put_str(out, man_tail);
    config_free(c);
}
