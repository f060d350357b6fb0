/*
 * Reads proxy.conf and what it includes: files, lines, sections, keys, and every complaint with its
 * place. What a value may be is the table's business (options.c), what values must not be together
 * is check.c's. Called by the broker at start-up and at a reload, always into a fresh struct.
 */
#include "proxy/broker/config/config.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <libgen.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sallyport/text.h>

#include "proxy/broker/config/options.h"

#define ERRORS_MAX 100  /* complaints that are written out; the rest is counted */
#define FILES_MAX  1000 /* files of one configuration, so that includes cannot multiply for ever */
#define QUOTE_MAX  200  /* bytes of a key or value that are quoted in a complaint */

struct place {
    const char *path; /* borrowed from loader.paths */
    unsigned line;    /* 0: not set anywhere */
};

struct loader {
    struct config *config;
    struct buffer *errors;
    size_t error_count;
    int status;               /* the first thing that stopped us, or 0 */
    struct config_list paths; /* every file read; places point here */
    struct place places[OPTION_TABLE_MAX];
    bool is_set[OPTION_TABLE_MAX];
};

/* One file being read. They nest on the C stack, at most CONFIG_DEPTH_MAX of them. */
struct source {
    const char *path; /* borrowed from loader.paths */
    char *dir;        /* what its relative paths are relative to */
    dev_t dev;
    ino_t ino;
    unsigned line;
    unsigned depth;
    const char *section;     /* borrowed from the table; NULL before the first and in a bad one */
    bool is_skipping;        /* in an unknown section, which was reported once */
    struct source *included; /* who names this file; NULL for the main one */
};

static int read_source(struct loader *l, const char *path, struct source *parent);

/* ---- complaints ---- */

static void format_place(struct buffer *out, const char *path, unsigned line, const char *section,
                         const char *text)
{
    text_escape_append(out, path, strlen(path));
    if (line > 0)
        buffer_printf(out, ":%u", line);
    buffer_put_str(out, ": ");
    if (section)
        buffer_printf(out, "[%s] ", section);
    text_escape_append(out, text, strlen(text));
}

static void complain(struct loader *l, const char *path, unsigned line, const char *section,
                     const char *text)
{
    l->status = l->status ? l->status : ERR_INVALID;
    if (++l->error_count > ERRORS_MAX)
        return;
    format_place(l->errors, path, line, section, text);
    buffer_put_str(l->errors, "\n");
}

/* A complaint about the line that is being read. */
PRINTF_LIKE(3, 4)
static void complain_here(struct loader *l, const struct source *s, const char *fmt, ...)
{
    char text[OPTION_ERROR_MAX + 256];
    va_list args;

    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    complain(l, s->path, s->line, s->section, text);
}

static void stop_for_memory(struct loader *l)
{
    if (l->status != ERR_MEMORY)
        buffer_put_str(l->errors, "out of memory\n");
    l->status = ERR_MEMORY;
}

/* A complaint or a warning about an option, wherever it was set; for what is found at the end. */
static void place_of(const struct loader *l, const struct option *o, const char **path,
                     unsigned *line)
{
    size_t index = 0;

    *path = l->config->path;
    *line = 0;
    if (option_find(o->section, o->name, &index) && l->places[index].line > 0) {
        *path = l->places[index].path;
        *line = l->places[index].line;
    }
}

static void complain_option(void *arg, const struct option *o, const char *text)
{
    struct loader *l = arg;
    char full[OPTION_ERROR_MAX + 256];
    const char *path;
    unsigned line;

    place_of(l, o, &path, &line);
    snprintf(full, sizeof(full), "%s: %s", o->name, text);
    complain(l, path, line, o->section, full);
}

static void warn_text(struct loader *l, const char *path, unsigned line, const char *section,
                      const char *text)
{
    struct buffer b;
    const char *sentence;

    if (l->config->warnings.count >= ERRORS_MAX)
        return;
    buffer_init(&b, PATH_MAX * 4 + OPTION_ERROR_MAX * 8);
    format_place(&b, path, line, section, text);
    sentence = buffer_cstr(&b);
    if (!sentence || config_list_add(&l->config->warnings, sentence) < 0)
        stop_for_memory(l);
    buffer_finish(&b);
}

static void warn_option(void *arg, const struct option *o, const char *text)
{
    struct loader *l = arg;
    char full[OPTION_ERROR_MAX + 256];
    const char *path;
    unsigned line;

    place_of(l, o, &path, &line);
    snprintf(full, sizeof(full), "%s: %s", o->name, text);
    warn_text(l, path, line, o->section, full);
}

/* ---- lines ---- */

static char *trim(char *text)
{
    size_t len;

    while (*text == ' ' || *text == '\t')
        text++;
    len = strlen(text);
    while (len > 0 && (text[len - 1] == ' ' || text[len - 1] == '\t'))
        text[--len] = '\0';
    return text;
}

static bool has_comment(const char *value)
{
    for (const char *p = value; *p; p++)
        if ((*p == ' ' || *p == '\t') && (p[1] == '#' || p[1] == ';'))
            return true;
    return false;
}

static void read_section(struct loader *l, struct source *s, char *line)
{
    size_t len = strlen(line);
    const char *near;
    char *name;

    s->section = NULL;
    s->is_skipping = true; /* keys below a heading that we did not understand are not reported */
    if (line[len - 1] != ']') {
        complain_here(l, s, "the heading \"%.*s\" does not end with ]; write it like [proxy]",
                      QUOTE_MAX, line);
        return;
    }
    line[len - 1] = '\0';
    name = trim(line + 1);
    for (size_t i = 0; i < option_section_count; i++) {
        if (strcmp(option_sections[i].name, name) == 0) {
            s->section = option_sections[i].name;
            s->is_skipping = false;
            return;
        }
    }
    near = option_nearest_section(name);
    complain_here(l, s, "unknown section [%.*s]%s%s%s", QUOTE_MAX, name,
                  near ? " (did you mean [" : "", near ? near : "", near ? "]?)" : "");
}

static void unknown_key(struct loader *l, const struct source *s, const char *key)
{
    const char *home = option_section_of(key);
    const char *near = option_nearest(s->section, key);

    if (home)
        complain_here(l, s, "unknown key \"%.*s\"; it belongs in [%s]", QUOTE_MAX, key, home);
    else if (near)
        complain_here(l, s, "unknown key \"%.*s\" (did you mean \"%s\"?)", QUOTE_MAX, key, near);
    else
        complain_here(l, s, "unknown key \"%.*s\"", QUOTE_MAX, key);
}

/* A duration without a unit is taken, as seconds, but said aloud: 5 rarely means 5 seconds. */
static void warn_bare_number(struct loader *l, const struct source *s, const struct option *o,
                             const char *value)
{
    char text[OPTION_ERROR_MAX];
    uint64_t number;

    if (o->type != OPTION_DURATION || !text_parse_u64(value, &number) || number == 0)
        return;
    snprintf(text, sizeof(text), "%s: %.20s has no unit and is taken as seconds; write %.20ss",
             o->name, value, value);
    warn_text(l, s->path, s->line, s->section, text);
}

static void read_key(struct loader *l, struct source *s, const char *key, const char *value)
{
    char err[OPTION_ERROR_MAX] = "";
    struct place *place;
    size_t index;
    const struct option *o = option_find(s->section, key, &index);
    int r;

    if (!o) {
        unknown_key(l, s, key);
        return;
    }
    place = &l->places[index];
    if (place->line > 0 && !(o->flags & OPTION_REPEAT)) {
        complain_here(l, s, "%s: was already set in %s:%u; keep one of the two", o->name,
                      place->path, place->line);
        return;
    }
    place->path = s->path;
    place->line = s->line;
    if (has_comment(value)) {
        complain_here(l, s, "%s: \"%.*s\" holds a comment; put it on a line of its own", o->name,
                      QUOTE_MAX, value);
        return;
    }
    r = option_set(l->config, o, value, s->dir, err, sizeof(err));
    if (r == ERR_MEMORY) {
        stop_for_memory(l);
    } else if (r < 0) {
        complain_here(l, s, "%s: %s", o->name, err);
    } else {
        l->is_set[index] = true;
        warn_bare_number(l, s, o, value);
    }
}

/* ---- include ---- */

/* The folder may hold characters that glob() would take as a pattern: \ keeps them plain. */
static char *glob_pattern(const char *dir, const char *pattern)
{
    size_t size = 2 * strlen(dir) + strlen(pattern) + 2;
    char *out = malloc(size);
    char *to = out;

    if (!out)
        return NULL;
    if (pattern[0] != '/') {
        for (const char *p = dir; *p; p++) {
            if (strchr("*?[]\\", *p))
                *to++ = '\\';
            *to++ = *p;
        }
        *to++ = '/';
    }
    memcpy(to, pattern, strlen(pattern) + 1);
    return out;
}

static void read_include(struct loader *l, struct source *s, const char *value)
{
    bool is_pattern = strpbrk(value, "*?[") != NULL;
    glob_t found = {0};
    char *pattern;
    int r;

    if (value[0] == '\0') {
        complain_here(l, s, "include: needs a file or a pattern such as conf.d/*.conf");
        return;
    }
    if (s->depth + 1 >= CONFIG_DEPTH_MAX) {
        complain_here(l, s, "include: more than %d files deep; include it from a file further up",
                      CONFIG_DEPTH_MAX);
        return;
    }
    pattern = glob_pattern(s->dir, value);
    if (!pattern) {
        stop_for_memory(l);
        return;
    }
    r = glob(pattern, 0, NULL, &found);
    free(pattern);
    if (r == GLOB_NOMATCH && is_pattern)
        return; /* an empty conf.d is as good as none */
    if (r == GLOB_NOSPACE)
        stop_for_memory(l);
    else if (r != 0)
        complain_here(l, s, "include: there is no file \"%.*s\" in %s", QUOTE_MAX, value, s->dir);
    for (size_t i = 0; r == 0 && i < found.gl_pathc && l->status != ERR_MEMORY; i++)
        if (read_source(l, found.gl_pathv[i], s) == ERR_FULL)
            break;
    globfree(&found);
}

/* ---- a line, a text, a file ---- */

static bool line_is_clean(struct loader *l, const struct source *s, const char *line)
{
    for (const char *p = line; *p; p++) {
        unsigned char byte = (unsigned char)*p;

        if ((byte < 0x20 && byte != '\t') || byte == 0x7f) {
            complain_here(l, s, "holds the control character 0x%02x; remove it", byte);
            return false;
        }
    }
    return true;
}

static void read_line(struct loader *l, struct source *s, char *raw)
{
    char *line = trim(raw);
    char *equals, *key, *value;

    if (line[0] == '\0' || line[0] == '#' || line[0] == ';' || !line_is_clean(l, s, line))
        return;
    if (line[0] == '[') {
        read_section(l, s, line);
        return;
    }
    equals = strchr(line, '=');
    if (!equals || equals == line) {
        complain_here(l, s, "\"%.*s\" is neither a [section] nor key = value", QUOTE_MAX, line);
        return;
    }
    *equals = '\0';
    key = trim(line);
    value = trim(equals + 1);
    if (strcmp(key, "include") == 0)
        read_include(l, s, value);
    else if (s->section)
        read_key(l, s, key, value);
    else if (!s->is_skipping)
        complain_here(l, s, "\"%.*s\" stands before any section; put it below [%s]", QUOTE_MAX, key,
                      option_section_of(key) ? option_section_of(key) : "proxy");
}

/* text has len bytes and is changed in place; it is one byte longer than len. */
static void read_text(struct loader *l, struct source *s, char *text, size_t len)
{
    char *end = text + len;

    if (len >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0)
        text += 3; /* the byte order mark of editors on Windows */
    for (char *line = text; line < end && l->status != ERR_MEMORY;) {
        char *newline = memchr(line, '\n', (size_t)(end - line));
        size_t line_len = (size_t)((newline ? newline : end) - line);

        s->line++;
        line[line_len] = '\0';
        if (line_len > 0 && line[line_len - 1] == '\r')
            line[line_len - 1] = '\0';
        if (memchr(line, '\0', line_len > 0 ? line_len - 1 : 0)) {
            complain_here(l, s, "holds a NUL byte; this is not a text file");
            return;
        }
        if (line_len > CONFIG_LINE_MAX)
            complain_here(l, s, "is longer than %d bytes; shorten it", CONFIG_LINE_MAX);
        else
            read_line(l, s, line);
        line += line_len + 1;
    }
}

static bool is_in_stack(const struct source *parent, const struct stat *st)
{
    for (const struct source *s = parent; s; s = s->included)
        if (s->dev == st->st_dev && s->ino == st->st_ino)
            return true;
    return false;
}

/* A complaint about a file as a whole belongs to the line that names it. */
PRINTF_LIKE(4, 5)
static void complain_file(struct loader *l, const char *path, const struct source *parent,
                          const char *fmt, ...)
{
    char text[OPTION_ERROR_MAX + 256];
    va_list args;

    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    if (parent)
        complain_here(l, parent, "include: %s: %s", path, text);
    else
        complain(l, path, 0, NULL, text);
}

static int open_source(struct loader *l, const char *path, const struct source *parent,
                       struct stat *st)
{
    /* O_NONBLOCK: a pipe by that name must not hold up the daemon. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);

    if (fd < 0) {
        if (!parent)
            l->status = errno == ENOENT ? ERR_NOT_FOUND : ERR_SYSTEM;
        complain_file(l, path, parent, "cannot be read: %s", strerror(errno));
        return -1;
    }
    if (fstat(fd, st) < 0 || !S_ISREG(st->st_mode))
        complain_file(l, path, parent, "is not a regular file");
    else if (st->st_size > CONFIG_FILE_MAX)
        complain_file(l, path, parent, "is larger than 1 MiB; split it");
    else if (is_in_stack(parent, st))
        complain_file(l, path, parent, "includes itself");
    else
        return fd;
    close(fd);
    return -1;
}

/* The whole file plus one spare byte; NULL with a complaint. The size is bounded again here,
 * because files of /proc and growing ones have another size than stat says. */
static char *slurp(struct loader *l, int fd, const char *path, const struct source *parent,
                   size_t max, size_t *len)
{
    char *text = malloc(max + 2);
    ssize_t n = 1;

    *len = 0;
    if (!text) {
        stop_for_memory(l);
        return NULL;
    }
    while (*len <= max && n > 0) {
        n = read(fd, text + *len, max + 1 - *len);
        if (n > 0)
            *len += (size_t)n;
    }
    if (n < 0 || *len > max) {
        complain_file(l, path, parent, "cannot be read: %s",
                      n < 0 ? strerror(errno) : "it is too large");
        free(text);
        return NULL;
    }
    return text;
}

/* path's folder, malloc'd; path is absolute. */
static char *folder_of(const char *path)
{
    char *copy = strdup(path);
    char *dir = copy ? strdup(dirname(copy)) : NULL;

    free(copy);
    return dir;
}

/* Fill *s for a file at `path`, remembering the path for as long as the load lasts. */
static int source_init(struct loader *l, struct source *s, const char *path, struct source *parent)
{
    if (l->paths.count >= FILES_MAX) {
        complain_file(l, path, parent, "more than %d files in all", FILES_MAX);
        return ERR_FULL;
    }
    if (config_list_add(&l->paths, path) < 0 || !(s->dir = folder_of(path))) {
        stop_for_memory(l);
        return ERR_MEMORY;
    }
    s->path = l->paths.items[l->paths.count - 1];
    s->included = parent;
    s->depth = parent ? parent->depth + 1 : 0;
    return 0;
}

/* Read one file. Returns ERR_FULL when no more files may follow; complaints are written. */
static int read_source(struct loader *l, const char *path, struct source *parent)
{
    struct source s = {0};
    struct stat st;
    size_t len;
    char *text = NULL;
    int r = 0;
    int fd = open_source(l, path, parent, &st);

    if (fd < 0)
        return 0;
    text = slurp(l, fd, path, parent, CONFIG_FILE_MAX, &len);
    close(fd);
    if (!text)
        return 0;
    r = source_init(l, &s, path, parent);
    if (r == 0) {
        s.dev = st.st_dev;
        s.ino = st.st_ino;
        if (st.st_mode & S_IWOTH)
            warn_text(l, path, 0, NULL, "everybody may write to this file; chmod o-w it");
        read_text(l, &s, text, len);
    }
    free(s.dir);
    free(text);
    return r;
}

/* ---- the whole ---- */

/* Text shown to strangers: no control characters but line ends and tabs. */
static const char *banner_fault(const char *text, size_t len)
{
    if (len > CONFIG_BANNER_MAX)
        return "is longer than 4000 bytes; shorten it";
    for (size_t i = 0; i < len; i++) {
        unsigned char byte = (unsigned char)text[i];

        if ((byte < 0x20 && !strchr("\t\r\n", byte)) || byte == 0 || byte == 0x7f)
            return "holds control characters; a banner is plain text";
    }
    return NULL;
}

static void load_banner(struct loader *l)
{
    const struct option *o = option_find("ssh", "banner", NULL);
    const char *path = l->config->ssh_banner;
    char why[OPTION_ERROR_MAX];
    struct stat st;
    char text[CONFIG_BANNER_MAX + 2] = "";
    ssize_t n = 0;
    int fd = -1;

    if (path[0] != '\0') {
        fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
        n = fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) ? read(fd, text, sizeof(text) - 1)
                                                                  : -1;
        if (n < 0) {
            snprintf(why, sizeof(why), "%.300s cannot be read: %s", path,
                     fd < 0 ? strerror(errno) : "it is not a regular file");
            complain_option(l, o, why);
        } else if (banner_fault(text, (size_t)n)) {
            snprintf(why, sizeof(why), "%.300s %s", path, banner_fault(text, (size_t)n));
            complain_option(l, o, why);
        }
        if (fd >= 0)
            close(fd);
    }
    text[n > 0 ? n : 0] = '\0';
    l->config->ssh_banner_text = strdup(text);
    if (!l->config->ssh_banner_text)
        stop_for_memory(l);
}

/* A file of CAs. False, after a complaint, when it cannot be read. */
static bool read_ca(struct loader *l, const char *path, char *text)
{
    const struct option *o = option_find("ssh", "user_ca", NULL);
    char why[OPTION_ERROR_MAX];
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    const char *fault = fd < 0 ? strerror(errno) : NULL;
    ssize_t n = 0;

    if (!fault && (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)))
        fault = "it is not a regular file";
    if (!fault && (n = read(fd, text, CONFIG_CA_MAX + 1)) < 0)
        fault = strerror(errno);
    if (!fault && (n > CONFIG_CA_MAX || memchr(text, '\0', (size_t)n)))
        fault = "it holds no public keys, or too many";
    if (fd >= 0)
        close(fd);
    text[!fault ? n : 0] = '\0';
    if (!fault)
        return true;
    snprintf(why, sizeof(why), "%.300s cannot be read: %s", path, fault);
    complain_option(l, o, why);
    return false;
}

/* Whoever starts the daemon reads them, a reload its own user. */
static void load_user_cas(struct loader *l)
{
    const struct config_list *paths = &l->config->ssh_user_ca;
    char *text = paths->count ? malloc(CONFIG_CA_MAX + 2) : NULL;

    for (size_t i = 0; text && i < paths->count; i++) {
        if (read_ca(l, paths->items[i], text) &&
            config_list_add(&l->config->ssh_user_ca_text, text) < 0)
            stop_for_memory(l);
    }
    if (paths->count && !text)
        stop_for_memory(l);
    free(text);
}

/*
 * Host keys are read later, by the daemon's own user, who may see more or less than whoever checks
 * the file now: only what is certainly wrong is said here.
 */
static void check_host_keys(struct loader *l)
{
    const struct option *o = option_find("ssh", "host_key", NULL);
    char why[OPTION_ERROR_MAX];
    struct stat st;

    for (size_t i = 0; i < l->config->ssh_host_key.count; i++) {
        const char *path = l->config->ssh_host_key.items[i];
        const char *fault = NULL;

        if (stat(path, &st) < 0)
            fault = errno == ENOENT || errno == ENOTDIR ? strerror(errno) : NULL;
        else if (!S_ISREG(st.st_mode))
            fault = "it is not a regular file";
        if (!fault)
            continue;
        snprintf(why, sizeof(why), "%.300s cannot be read: %s", path, fault);
        warn_option(l, o, why);
    }
}

/* What follows the last line: defaults for what was not said, and checks across options. */
static void finish(struct loader *l)
{
    struct config_report report = {l, complain_option, warn_option};

    if (l->status == ERR_MEMORY || option_set_defaults(l->config, l->is_set) < 0) {
        stop_for_memory(l);
        return;
    }
    load_banner(l);
    load_user_cas(l);
    check_host_keys(l);
    if (l->status == 0 || l->status == ERR_INVALID)
        config_check_all(l->config, &report);
    if (l->error_count > ERRORS_MAX)
        buffer_printf(l->errors, "... and %zu more\n", l->error_count - ERRORS_MAX);
}

static char *absolute_path(const char *path)
{
    char cwd[PATH_MAX] = "/";

    if (path[0] != '/' && !getcwd(cwd, sizeof(cwd)))
        return NULL;
    return config_path_join(cwd, path);
}

static int loader_init(struct loader *l, const char *path, struct buffer *errors)
{
    memset(l, 0, sizeof(*l));
    l->errors = errors;
    l->config = calloc(1, sizeof(*l->config));
    if (l->config)
        l->config->path = absolute_path(path);
    if (!l->config || !l->config->path)
        stop_for_memory(l);
    return l->status;
}

static int loader_done(struct loader *l, struct config **out)
{
    config_list_free(&l->paths);
    if (l->status != 0) {
        config_free(l->config);
        l->config = NULL;
    }
    *out = l->config;
    return l->status;
}

int config_load(struct config **out, const char *path, struct buffer *errors)
{
    struct loader l;

    *out = NULL;
    if (loader_init(&l, path, errors) == 0) {
        (void)read_source(&l, l.config->path, NULL);
        if (l.status != ERR_NOT_FOUND && l.status != ERR_SYSTEM)
            finish(&l);
    }
    return loader_done(&l, out);
}

int config_load_text(struct config **out, const char *path, const char *text, size_t len,
                     struct buffer *errors)
{
    struct loader l;
    struct source s = {0};
    char *copy = len <= CONFIG_FILE_MAX ? malloc(len + 1) : NULL;

    *out = NULL;
    if (loader_init(&l, path, errors) == 0) {
        if (len > CONFIG_FILE_MAX) {
            complain(&l, l.config->path, 0, NULL, "is larger than 1 MiB; split it");
        } else if (!copy) {
            stop_for_memory(&l);
        } else if (source_init(&l, &s, l.config->path, NULL) == 0) {
            memcpy(copy, text, len);
            read_text(&l, &s, copy, len);
            finish(&l);
        }
    }
    free(copy);
    free(s.dir);
    return loader_done(&l, out);
}

void config_free(struct config *c)
{
    if (!c)
        return;
    for (size_t i = 0; i < option_count(); i++)
        option_free(c, option_at(i));
    free(c->path);
    free(c->ssh_banner_text);
    config_list_free(&c->ssh_user_ca_text);
    config_list_free(&c->warnings);
    free(c);
}
