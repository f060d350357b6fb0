/*
 * proxy.conf: values, places of errors, includes, defaults, -T, reload, documents.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "proxy/broker/config/config.h"

/* A folder of its own for each test, with what the test wrote into it. */
struct fixture {
    char dir[64];
    char main_path[128];
    struct buffer errors;
    struct config *config;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    if (!f)
        return -1;
    snprintf(f->dir, sizeof(f->dir), "/tmp/test-config-XXXXXX");
    if (!mkdtemp(f->dir))
        return -1;
    snprintf(f->main_path, sizeof(f->main_path), "%s/proxy.conf", f->dir);
    buffer_init(&f->errors, CONFIG_REPORT_MAX);
    *state = f;
    return 0;
}

static void remove_below(const char *dir)
{
    static const char *const names[] = {"proxy.conf", "a.conf",      "b.conf", "banner.txt",
                                        "sub/c.conf", "sub/d.conf",  "sub",    "o[dd]/x.conf",
                                        "o[dd]",      "sub/10.conf", NULL};
    char path[256];

    for (int round = 0; round < 2; round++) {
        for (size_t i = 0; names[i]; i++) {
            snprintf(path, sizeof(path), "%s/%s", dir, names[i]);
            (void)remove(path);
        }
        for (int i = 0; i < 12; i++) {
            snprintf(path, sizeof(path), "%s/deep%d.conf", dir, i);
            (void)remove(path);
        }
    }
    (void)rmdir(dir);
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    config_free(f->config);
    buffer_finish(&f->errors);
    remove_below(f->dir);
    free(f);
    return 0;
}

static void write_bytes(struct fixture *f, const char *name, const void *data, size_t len)
{
    char path[256];
    FILE *file;

    snprintf(path, sizeof(path), "%s/%s", f->dir, name);
    file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, len, file), len);
    assert_int_equal(fclose(file), 0);
}

static void write_file(struct fixture *f, const char *name, const char *text)
{
    write_bytes(f, name, text, strlen(text));
}

static void make_dir(struct fixture *f, const char *name)
{
    char path[256];

    snprintf(path, sizeof(path), "%s/%s", f->dir, name);
    assert_int_equal(mkdir(path, 0700), 0);
}

static int load(struct fixture *f)
{
    config_free(f->config);
    f->config = NULL;
    buffer_reset(&f->errors);
    return config_load(&f->config, f->main_path, &f->errors);
}

/* Load `text` as proxy.conf; it must be good. */
static struct config *load_good(struct fixture *f, const char *text)
{
    int r;

    write_file(f, "proxy.conf", text);
    r = load(f);
    if (r < 0)
        print_message("%s", buffer_cstr(&f->errors));
    assert_int_equal(r, 0);
    assert_non_null(f->config);
    assert_int_equal(f->errors.len, 0);
    return f->config;
}

/* Load `text` as proxy.conf; it must be refused. Returns the complaints. */
static const char *load_bad(struct fixture *f, const char *text)
{
    write_file(f, "proxy.conf", text);
    if (load(f) != ERR_INVALID)
        fail_msg("this was not refused:\n%s", text);
    assert_null(f->config);
    assert_false(f->errors.failed);
    return buffer_cstr(&f->errors);
}

#define assert_contains(text, part)                        \
    do {                                                   \
        if (!strstr(text, part))                           \
            fail_msg("\"%s\" is not in:\n%s", part, text); \
    } while (0)

static size_t count_lines(const char *text)
{
    size_t n = 0;

    for (; *text; text++)
        n += *text == '\n';
    return n;
}

/* ---- defaults ---- */

static void test_empty_file_gives_the_defaults_of_the_contract(void **state)
{
    struct config *c = load_good(*state, "");
    char host[256] = "";

    gethostname(host, sizeof(host) - 1);
    assert_string_equal(c->node, host);
    assert_string_equal(c->data_dir, "/var/lib/sallyport");
    assert_string_equal(c->run_dir, "/run/sallyport");
    assert_string_equal(c->user, "sallyport");
    assert_string_equal(c->relay_user, "sallyport-relay");
    assert_string_equal(c->store_key, "/etc/sallyport/keys/store.key");
    assert_int_equal(c->log, LOG_SINK_STDERR);
    assert_int_equal(c->log_level, LOG_LEVEL_INFO);
    assert_int_equal(c->shutdown_grace_s, 30);
    assert_int_equal(c->adopt_grace_s, 10);
    assert_int_equal(c->broker_lost_after_s, 3600);
    assert_int_equal(c->connect_timeout_s, 10);
    assert_int_equal(c->sandbox, CONFIG_SANDBOX_FULL);
    assert_true(c->ssh_enabled);
    assert_int_equal(c->ssh_listen.count, 1);
    assert_string_equal(c->ssh_listen.items[0], "[::]:2222");
    assert_int_equal(c->ssh_host_key.count, 0);
    assert_string_equal(c->ssh_banner, "");
    assert_string_equal(c->ssh_banner_text, "");
    assert_int_equal(c->ssh_keepalive_interval_s, 15);
    assert_int_equal(c->ssh_keepalive_count, 3);
    assert_string_equal(c->ssh_separators, "+");
    assert_string_equal(c->control_socket, "/run/sallyport/control.sock");
    assert_string_equal(c->admin_group, "sallyport-admin");
    assert_int_equal(c->policy.sessions_per_user, 50);
    assert_int_equal(c->max_sessions, 2000);
    assert_int_equal(c->policy.max_duration, 0);
    assert_int_equal(c->login_grace_s, 60);
    assert_int_equal(c->max_unauthenticated, 100);
    assert_int_equal(c->max_unauthenticated_per_source, 20);
    assert_int_equal(c->auth_attempts, 6);
    assert_int_equal(c->key_offers, 20);
    assert_int_equal(c->source_failures, 10);
    assert_int_equal(c->source_block_s, 60);
    assert_int_equal(c->policy.max_channels, 10);
    assert_int_equal(c->policy.channels, 127);
    assert_string_equal(c->policy.forward_to, "any");
    assert_string_equal(c->recording_dir, "/var/lib/sallyport/recordings");
    assert_int_equal(c->recording_min_free, 256 * 1024 * 1024);
    assert_int_equal(c->warnings.count, 0);
}

static void test_policy_defaults_are_those_of_the_policy(void **state)
{
    struct config *c = load_good(*state, "");
    struct policy p;

    policy_defaults(&p);
    assert_memory_equal(&c->policy, &p, sizeof(p));
}

static void test_derived_defaults_follow_their_folders(void **state)
{
    struct config *c = load_good(*state, "[proxy]\ndata_dir = /srv/sp\nrun_dir = /run/x\n");

    assert_string_equal(c->control_socket, "/run/x/control.sock");
    assert_string_equal(c->recording_dir, "/srv/sp/recordings");
}

/* ---- values ---- */

static void test_values_of_every_kind(void **state)
{
    struct config *c = load_good(*state, "\xef\xbb\xbf# a comment\n"
                                         "  ; another\r\n"
                                         "[ proxy ]\r\n"
                                         "\tlog=syslog\r\n"
                                         "log_level = trace\n"
                                         "sandbox = reduced\n"
                                         "shutdown_grace = 1h30m\n"
                                         "node = bastion-1.example\n"
                                         "[ssh]\n"
                                         "enabled = no\n"
                                         "listen = 127.0.0.1:22\n"
                                         "listen = [::1]:2022\n"
                                         "host_key = /etc/k1\n"
                                         "host_key = /etc/k2\n"
                                         "separators = +:#@\n"
                                         "[idle]\n"
                                         "counts = traffic\n"
                                         "[limits]\n"
                                         "channels = 7\n"
                                         "[recording]\n"
                                         "ssh = no\n"
                                         "on_failure = continue\n"
                                         "min_free = 64K");

    assert_int_equal(c->log, LOG_SINK_SYSLOG);
    assert_int_equal(c->log_level, LOG_LEVEL_TRACE);
    assert_int_equal(c->sandbox, CONFIG_SANDBOX_REDUCED);
    assert_int_equal(c->shutdown_grace_s, 5400);
    assert_string_equal(c->node, "bastion-1.example");
    assert_false(c->ssh_enabled);
    assert_int_equal(c->ssh_listen.count, 2);
    assert_string_equal(c->ssh_listen.items[1], "[::1]:2022");
    assert_int_equal(c->ssh_host_key.count, 2);
    assert_string_equal(c->ssh_host_key.items[0], "/etc/k1");
    assert_string_equal(c->ssh_separators, "+:#@");
    assert_int_equal(c->policy.counts, COUNTS_TRAFFIC);
    assert_int_equal(c->policy.max_channels, 7);
    assert_int_equal(c->policy.record, 0);
    assert_int_equal(c->policy.on_failure, ON_FAILURE_CONTINUE);
    assert_int_equal(c->recording_min_free, 65536);
}

static void test_relative_paths_are_relative_to_the_file(void **state)
{
    struct fixture *f = *state;
    char expected[256];
    struct config *c;

    make_dir(f, "sub");
    write_file(f, "sub/c.conf", "[proxy]\nstore_key = ./keys//store.key\n");
    c = load_good(f, "include = sub/c.conf\n[proxy]\ndata_dir = data/\nrun_dir = /run/./sp//x/\n");
    snprintf(expected, sizeof(expected), "%s/data", f->dir);
    assert_string_equal(c->data_dir, expected);
    snprintf(expected, sizeof(expected), "%s/sub/keys/store.key", f->dir);
    assert_string_equal(c->store_key, expected);
    assert_string_equal(c->run_dir, "/run/sp/x");
}

static void test_relative_path_of_the_file_itself(void **state)
{
    struct fixture *f = *state;
    char cwd[1024], expected[256];

    assert_non_null(getcwd(cwd, sizeof(cwd)));
    write_file(f, "proxy.conf", "[proxy]\ndata_dir = d\n");
    assert_int_equal(chdir(f->dir), 0);
    assert_int_equal(config_load(&f->config, "proxy.conf", &f->errors), 0);
    assert_int_equal(chdir(cwd), 0);
    assert_string_equal(f->config->path, f->main_path);
    snprintf(expected, sizeof(expected), "%s/d", f->dir);
    assert_string_equal(f->config->data_dir, expected);
}

/* One line of configuration and a part of the sentence that refuses it. */
static const struct {
    const char *line, *complaint;
} bad_lines[] = {
    {"[prxy]", "unknown section [prxy] (did you mean [proxy]?)"},
    {"[proxy", "does not end with ]"},
    {"[]", "unknown section []"},
    {"[metrics]\nlisten = 1", "unknown section [metrics]"},
    {"just words", "is neither a [section] nor key = value"},
    {"= x", "is neither a [section] nor key = value"},
    {"log_level = info", "\"log_level\" stands before any section; put it below [proxy]"},
    {"nonsense = info", "stands before any section"},
    {"[idle]\nidle_aftr = 1m", "unknown key \"idle_aftr\" (did you mean \"idle_after\"?)"},
    {"[proxy]\nidle_after = 1m", "unknown key \"idle_after\"; it belongs in [idle]"},
    {"[ssh]\ntrusted_proxies = 10.0.0.0/33", "is no network; write an address or ADDRESS/BITS"},
    {"[rdp]\ntrusted_proxies = balancer", "is no network"},
    {"[recording]\nretention = 365d", "unknown key \"retention\""},
    {"[idle]\nidle_after = 5x", "idle_after: '5x' is not a duration"},
    {"[idle]\nidle_after = 5m # soon", "holds a comment; put it on a line of its own"},
    {"[proxy]\ndata_dir = /srv/x ;y", "holds a comment; put it on a line of its own"},
    {"[idle]\nidle_after =", "idle_after: needs a value"},
    {"[idle]\ncounts = inptu", "did you mean 'input'?"},
    {"[proxy]\nconnect_timeout = 0", "connect_timeout: '0' is out of range"},
    {"[proxy]\nconnect_timeout = 1h", "out of range: write a value from 1s to 5m"},
    {"[limits]\nchannels = -1", "is not a number"},
    {"[limits]\nmax_sessions = 99999999999999999999", "is not a number"},
    {"[recording]\nmin_free = 1X", "is not a size"},
    {"[ssh]\nenabled = maybe", "yes or no"},
    {"[proxy]\ndata_dir =", "data_dir: needs a value"},
    {"[proxy]\ndata_dir = ~/x", "cannot begin with ~"},
    {"[proxy]\ndata_dir = /srv/x /", "ends with a blank"},
    {"[proxy]\nnode = a b", "node: \"a b\" is not a name"},
    {"[proxy]\nuser = a:b", "is not the name of a system user or group"},
    {"[proxy]\nuser = sallyport-relay", "relay_user: is the same as user"},
    {"[proxy]\nrelay_user = root", "relay_user: cannot be root"},
    {"[proxy]\ndata_dir = /", "data_dir: cannot be /"},
    {"[proxy]\nrun_dir = /var/lib/sallyport", "run_dir: is data_dir too"},
    {"[proxy]\nrun_dir = "
     "/2345678901234567890123456789012345678901234567890123456789012345678901234567",
     "run_dir: is 77 bytes long, too long"},
    {"[ssh]\nlisten =", "needs a value; remove the line to use the default"},
    {"[ssh]\nlisten = localhost:22", "\"localhost\" is not an address in numbers"},
    {"[ssh]\nlisten = 127.0.0.1", "is not a port from 1 to 65535"},
    {"[ssh]\nlisten = 127.0.0.1:0", "is not a port from 1 to 65535"},
    {"[ssh]\nlisten = 127.0.0.1:65536", "is not a port from 1 to 65535"},
    {"[ssh]\nlisten = ::1:22", "an IPv6 address stands in brackets"},
    {"[ssh]\nlisten = [::1]", "has no port behind ]"},
    {"[ssh]\nlisten = [::1", "has no port behind ]"},
    {"[ssh]\nlisten = [::1]22", "has no port behind ]"},
    {"[ssh]\nlisten = 1.2.3.4:22\nlisten = 1.2.3.4:22", "this value was already given"},
    {"[ssh]\nlisten = [::]:22\nlisten = *:22", "[::]:22 and *:22 are the same; remove one"},
    {"[ssh]\nseparators = +!", "\"!\" cannot divide a login name"},
    {"[ssh]\nseparators = ++", "is given twice"},
    {"[ssh]\nseparators = :", "+ is missing"},
    {"[ssh]\nbanner = /nonexistent/banner", "banner: /nonexistent/banner cannot be read"},
    {"[ssh]\nbanner = /dev/null", "it is not a regular file"},
    {"[idle]\nwarn_after = 1h\ndisconnect_after = 30m",
     "disconnect_after: 30m is shorter than warn_after (1h)"},
    {"[idle]\nwarn_after = 2h", "disconnect_after: 30m is shorter than warn_after (2h)"},
    {"[idle]\nidle_after = 1m\nidle_after = 2m", "proxy.conf:2; keep one of the two"},
    {"[proxy]\nlog_level = in\x01"
     "fo",
     "holds the control character 0x01"},
    {"include =", "include: needs a file or a pattern"},
    {"include = nothing.conf", "include: there is no file \"nothing.conf\""},
    {"include = proxy.conf", "includes itself"},
    {"include = /dev/zero", "is not a regular file"},
};

static void test_bad_lines_are_refused_with_what_to_do(void **state)
{
    for (size_t i = 0; i < sizeof(bad_lines) / sizeof(bad_lines[0]); i++) {
        const char *errors = load_bad(*state, bad_lines[i].line);

        assert_contains(errors, bad_lines[i].complaint);
        assert_int_equal(count_lines(errors), 1);
    }
}

static void test_listen_addresses(void **state)
{
    static const char *const good[] = {"[::]:2222", "0.0.0.0:22", "*:22",
                                       "22",        ":22",        "[fe80::1%lo]:22"};
    struct sockaddr_storage addr;
    socklen_t len;
    char err[256];

    (void)state;
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
        assert_int_equal(config_parse_listen(good[i], &addr, &len, err, sizeof(err)), 0);
    assert_int_equal(config_parse_listen("*:22", &addr, &len, err, sizeof(err)), 0);
    assert_int_equal(addr.ss_family, AF_INET6);
}

/* ---- places ---- */

static void test_all_errors_are_reported_with_file_and_line(void **state)
{
    struct fixture *f = *state;
    char expected[512];
    const char *errors;

    write_file(f, "a.conf", "\n[limits]\nchanels = 3\n");
    errors = load_bad(f, "[proxy]\n"
                         "log_level = loud\n"
                         "# fine\n"
                         "[idle]\n"
                         "idle_after = never\n"
                         "include = a.conf\n"
                         "[nowhere]\n"
                         "this = is not reported again\n"
                         "[ssh]\n"
                         "listen = here\n");
    assert_int_equal(count_lines(errors), 5);
    snprintf(expected, sizeof(expected), "%s/proxy.conf:2: [proxy] log_level: ", f->dir);
    assert_ptr_equal(strstr(errors, expected), errors);
    snprintf(expected, sizeof(expected), "\n%s/proxy.conf:5: [idle] idle_after: ", f->dir);
    assert_contains(errors, expected);
    snprintf(expected, sizeof(expected),
             "\n%s/a.conf:3: [limits] unknown key \"chanels\" (did you mean \"channels\"?)\n",
             f->dir);
    assert_contains(errors, expected);
    snprintf(expected, sizeof(expected), "\n%s/proxy.conf:7: unknown section [nowhere]\n", f->dir);
    assert_contains(errors, expected);
    snprintf(expected, sizeof(expected), "\n%s/proxy.conf:10: [ssh] listen: ", f->dir);
    assert_contains(errors, expected);
}

static void test_duplicate_in_another_file_names_both_places(void **state)
{
    struct fixture *f = *state;
    char expected[256];
    const char *errors;

    write_file(f, "a.conf", "[idle]\nidle_after = 1m\n");
    errors = load_bad(f, "include = a.conf\n[idle]\nidle_after = 2m\n");
    snprintf(expected, sizeof(expected), "%s/proxy.conf:3: [idle] idle_after: was already set in ",
             f->dir);
    assert_contains(errors, expected);
    snprintf(expected, sizeof(expected), "%s/a.conf:2;", f->dir);
    assert_contains(errors, expected);
}

static void test_what_a_file_holds_cannot_drive_a_terminal(void **state)
{
    const char *errors = load_bad(*state, "[proxy]\nlog_level = \xc2\x9b"
                                          "31m\n\xe2\x80\xaekey = 1\n");

    assert_null(strchr(errors, '\x9b'));
    assert_null(strstr(errors, "\xe2\x80\xae"));
}

static void test_missing_and_unreadable_files(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(load(f), ERR_NOT_FOUND);
    assert_contains(buffer_cstr(&f->errors), "proxy.conf: cannot be read: No such file");
    assert_int_equal(count_lines(buffer_cstr(&f->errors)), 1);
    buffer_reset(&f->errors);
    assert_int_equal(config_load(&f->config, f->dir, &f->errors), ERR_INVALID);
    assert_contains(buffer_cstr(&f->errors), "is not a regular file");
}

static void test_limits_of_a_file(void **state)
{
    struct fixture *f = *state;
    size_t len = CONFIG_FILE_MAX + 1;
    char *big = malloc(len);

    assert_non_null(big);
    memset(big, '\n', len);
    write_bytes(f, "proxy.conf", big, len - 1);
    assert_int_equal(load(f), 0);
    write_bytes(f, "proxy.conf", big, len);
    assert_int_equal(load(f), ERR_INVALID);
    assert_contains(buffer_cstr(&f->errors), "is larger than 1 MiB");

    memset(big, '#', CONFIG_LINE_MAX + 1);
    write_bytes(f, "proxy.conf", big, CONFIG_LINE_MAX);
    assert_int_equal(load(f), 0);
    write_bytes(f, "proxy.conf", big, CONFIG_LINE_MAX + 1);
    assert_int_equal(load(f), ERR_INVALID);
    assert_contains(buffer_cstr(&f->errors), "proxy.conf:1: is longer than 4096 bytes");

    write_bytes(f, "proxy.conf", "[proxy]\nuser = a\0b\n", 19);
    assert_int_equal(load(f), ERR_INVALID);
    assert_contains(buffer_cstr(&f->errors), "proxy.conf:2: [proxy] holds a NUL byte");
    free(big);
}

static void test_many_errors_are_cut_and_counted(void **state)
{
    char text[8192] = "[proxy]\n";
    const char *errors;

    for (size_t i = 0; i < 130; i++)
        strncat(text, "nonsense_key = 1\n", sizeof(text) - strlen(text) - 1);
    errors = load_bad(*state, text);
    assert_int_equal(count_lines(errors), 101);
    assert_contains(errors, "... and 30 more\n");
}

/* ---- include ---- */

static void test_include_is_lexical_and_keeps_the_section(void **state)
{
    struct fixture *f = *state;
    struct config *c;

    make_dir(f, "sub");
    write_file(f, "sub/c.conf", "[ssh]\nlisten = 127.0.0.1:2\n");
    write_file(f, "sub/d.conf", "[ssh]\nlisten = 127.0.0.1:3\n");
    write_file(f, "sub/10.conf", "[ssh]\nlisten = 127.0.0.1:1\n");
    c = load_good(f, "[limits]\ninclude = sub/*.conf\nchannels = 3\ninclude = none/*.conf\n");
    assert_int_equal(c->policy.max_channels, 3);
    assert_int_equal(c->ssh_listen.count, 3);
    assert_string_equal(c->ssh_listen.items[0], "127.0.0.1:1");
    assert_string_equal(c->ssh_listen.items[2], "127.0.0.1:3");
}

static void test_included_file_begins_outside_any_section(void **state)
{
    struct fixture *f = *state;

    write_file(f, "a.conf", "channels = 3\n");
    assert_contains(load_bad(f, "[limits]\ninclude = a.conf\n"), "a.conf:1: \"channels\" stands");
}

static void test_include_in_a_folder_with_pattern_characters(void **state)
{
    struct fixture *f = *state;
    struct config *c;

    make_dir(f, "o[dd]");
    write_file(f, "o[dd]/x.conf", "[limits]\nchannels = 3\n");
    write_file(f, "a.conf", "[limits]\nkey_offers = 3\n");
    snprintf(f->main_path, sizeof(f->main_path), "%s/o[dd]/proxy.conf", f->dir);
    write_file(f, "o[dd]/proxy.conf", "include = x.con*\ninclude = ../a.conf\n");
    assert_int_equal(load(f), 0);
    c = f->config;
    assert_int_equal(c->policy.max_channels, 3);
    assert_int_equal(c->key_offers, 3);
    assert_int_equal(remove(f->main_path), 0);
}

static void test_include_loops_and_depth(void **state)
{
    struct fixture *f = *state;
    char name[32], text[64];

    write_file(f, "a.conf", "include = b.conf\n");
    write_file(f, "b.conf", "include = proxy.conf\n");
    assert_contains(load_bad(f, "include = a.conf\n"), "b.conf:1: include: ");
    assert_contains(buffer_cstr(&f->errors), "includes itself");
    for (int i = 0; i < 12; i++) {
        snprintf(name, sizeof(name), "deep%d.conf", i);
        snprintf(text, sizeof(text), i < 11 ? "include = deep%d.conf\n" : "# %d\n", i + 1);
        write_file(f, name, text);
    }
    assert_contains(load_bad(f, "include = deep0.conf\n"),
                    "deep6.conf:1: include: more than 8 files deep");
    load_good(f, "include = deep5.conf\n");
}

static void test_includes_cannot_multiply_for_ever(void **state)
{
    struct fixture *f = *state;
    char many[4000] = "";

    for (size_t i = 0; i < 100; i++)
        strncat(many, "include = a.conf\n", sizeof(many) - strlen(many) - 1);
    write_file(f, "b.conf", "# nothing\n");
    write_file(f, "proxy.conf", many);
    memset(many, 0, sizeof(many));
    for (size_t i = 0; i < 100; i++)
        strncat(many, "include = b.conf\n", sizeof(many) - strlen(many) - 1);
    write_file(f, "a.conf", many);
    assert_int_equal(load(f), ERR_INVALID);
    assert_contains(buffer_cstr(&f->errors), "more than 1000 files in all");
}

/* ---- warnings ---- */

static void test_warnings(void **state)
{
    struct config *c = load_good(*state, "[proxy]\nstore_key = /var/lib/sallyport/store.key\n"
                                         "[idle]\nidle_after = 60\nwarn_after = 0\n"
                                         "[limits]\nmax_unauthenticated = 5\n");

    assert_int_equal(c->warnings.count, 3);
    assert_contains(c->warnings.items[0], "proxy.conf:4: [idle] idle_after: 60 has no unit");
    assert_contains(c->warnings.items[1], ":2: [proxy] store_key: lies inside data_dir");
    assert_contains(c->warnings.items[2], "one source can take every place");
    assert_int_equal(c->policy.idle_after, 60);
}

static void test_file_that_everybody_may_write(void **state)
{
    struct fixture *f = *state;

    write_file(f, "proxy.conf", "");
    assert_int_equal(chmod(f->main_path, 0666), 0);
    assert_int_equal(load(f), 0);
    assert_int_equal(f->config->warnings.count, 1);
    assert_contains(f->config->warnings.items[0], "everybody may write to this file");
}

/* ---- banner ---- */

static void test_banner_is_read_and_checked(void **state)
{
    struct fixture *f = *state;
    char big[CONFIG_BANNER_MAX + 1];
    struct config *c;

    write_file(f, "banner.txt",
               "Authorised use only.\n\tGr\xc3\xbc\xc3\x9f"
               "e\n");
    c = load_good(f, "[ssh]\nbanner = banner.txt\n");
    assert_string_equal(c->ssh_banner_text, "Authorised use only.\n\tGr\xc3\xbc\xc3\x9f"
                                            "e\n");
    write_file(f, "banner.txt", "\033[2J");
    assert_contains(load_bad(f, "[ssh]\nbanner = banner.txt\n"), "holds control characters");
    write_bytes(f, "banner.txt", "a\0b", 3);
    assert_contains(load_bad(f, "[ssh]\nbanner = banner.txt\n"), "holds control characters");
    memset(big, 'x', sizeof(big));
    write_bytes(f, "banner.txt", big, sizeof(big));
    assert_contains(load_bad(f, "[ssh]\nbanner = banner.txt\n"), "is longer than 4000 bytes");
    write_bytes(f, "banner.txt", big, sizeof(big) - 1);
    load_good(f, "[ssh]\nbanner = banner.txt\n");
    load_good(f, "[ssh]\nbanner =\n");
}

/* ---- -T ---- */

static void assert_prints_back(struct fixture *f, const struct config *c)
{
    struct config *again = NULL;
    struct buffer first, second, diff;

    buffer_init(&first, CONFIG_REPORT_MAX);
    buffer_init(&second, CONFIG_REPORT_MAX);
    buffer_init(&diff, CONFIG_REPORT_MAX);
    config_print(c, &first);
    assert_false(first.failed);
    buffer_reset(&f->errors);
    if (config_load_text(&again, "/elsewhere/proxy.conf", (const char *)first.data, first.len,
                         &f->errors) < 0)
        fail_msg("%s", buffer_cstr(&f->errors));
    assert_int_equal(config_diff(c, again, &diff, NULL), 0);
    config_print(again, &second);
    assert_string_equal(buffer_cstr(&first), buffer_cstr(&second));
    config_free(again);
    buffer_finish(&first);
    buffer_finish(&second);
    buffer_finish(&diff);
}

static void test_effective_configuration_parses_back(void **state)
{
    struct fixture *f = *state;

    assert_prints_back(f, load_good(f, ""));
    write_file(f, "banner.txt", "hello\n");
    assert_prints_back(f, load_good(f, "[proxy]\ndata_dir = d\nnode = n\n[ssh]\nlisten = 1\n"
                                       "listen = 2\nhost_key = k1\nhost_key = k2\n"
                                       "banner = banner.txt\nseparators = +#\n"
                                       "[idle]\nidle_after = 90s\ncounts = input\n"
                                       "[recording]\nmin_free = 1000\ninput = echoed\n"));
}

/* ---- reload ---- */

static void test_diff_and_keep_fixed(void **state)
{
    struct fixture *f = *state;
    struct config *old, *fresh;
    struct buffer report;
    size_t restarts = 99;

    buffer_init(&report, CONFIG_REPORT_MAX);
    write_file(f, "banner.txt", "one\n");
    old = load_good(f, "[ssh]\nbanner = banner.txt\n");
    f->config = NULL;
    assert_int_equal(config_diff(old, old, &report, &restarts), 0);
    assert_int_equal(restarts, 0);
    write_file(f, "banner.txt", "two\n");
    fresh = load_good(f, "[idle]\nidle_after = 10m\n[ssh]\nlisten = 22\nlisten = 23\n"
                         "host_key = /k\nbanner = banner.txt\n[proxy]\ndata_dir = /d\n");
    assert_int_equal(config_diff(old, fresh, &report, &restarts), 6);
    assert_int_equal(restarts, 4);
    assert_string_equal(buffer_cstr(&report),
                        "[proxy] data_dir: /var/lib/sallyport -> /d (needs a restart)\n"
                        "[ssh] listen: [::]:2222 -> 22, 23 (needs a restart)\n"
                        "[ssh] host_key: \"\" -> /k (needs a restart)\n"
                        "[idle] idle_after: 5m -> 10m\n"
                        "[recording] dir: /var/lib/sallyport/recordings -> /d/recordings "
                        "(needs a restart)\n"
                        "[ssh] banner: the file has a new text\n");
    assert_int_equal(config_keep_fixed(fresh, old), 0);
    buffer_reset(&report);
    assert_int_equal(config_diff(old, fresh, &report, &restarts), 2);
    assert_int_equal(restarts, 0);
    assert_string_equal(fresh->data_dir, "/var/lib/sallyport");
    assert_int_equal(fresh->policy.idle_after, 600);
    config_free(old);
    buffer_finish(&report);
}

/* ---- documents ---- */

/* The example as it is, and with every shown default taken out of its comment, means the defaults.
 */
static void test_example_is_the_defaults(void **state)
{
    struct fixture *f = *state;
    struct config *defaults, *shown;
    struct buffer example, bare, report;

    buffer_init(&example, CONFIG_REPORT_MAX);
    buffer_init(&bare, CONFIG_REPORT_MAX);
    buffer_init(&report, CONFIG_REPORT_MAX);
    config_example(&example);
    assert_non_null(buffer_cstr(&example));
    defaults = load_good(f, buffer_cstr(&example));
    f->config = NULL;
    for (const char *line = buffer_cstr(&example); *line;) {
        static const char *const samples[] = {
            "#node ", "#host_key ",       "#banner ",  "#include ",        "#certificate ",
            "#key ",  "#public_address ", "#user_ca ", "#trusted_proxies "};
        const char *end = strchr(line, '\n');
        bool is_sample = false;

        for (size_t i = 0; i < sizeof(samples) / sizeof(samples[0]); i++)
            is_sample = is_sample || strncmp(line, samples[i], strlen(samples[i])) == 0;
        assert_non_null(end);
        if (line[0] == '#' && line[1] != ' ' && !is_sample)
            line++;
        buffer_put(&bare, line, (size_t)(end - line) + 1);
        line = end + 1;
    }
    shown = load_good(f, buffer_cstr(&bare));
    assert_int_equal(config_diff(defaults, shown, &report, NULL), 0);
    config_free(defaults);
    buffer_finish(&example);
    buffer_finish(&bare);
    buffer_finish(&report);
}

static void test_documents_name_every_option(void **state)
{
    struct fixture *f = *state;
    struct config *c = load_good(f, "");
    struct buffer example, man, effective;
    char key[128], wanted[160];

    buffer_init(&example, CONFIG_REPORT_MAX);
    buffer_init(&man, CONFIG_REPORT_MAX);
    buffer_init(&effective, CONFIG_REPORT_MAX);
    config_example(&example);
    config_man(&man);
    config_print(c, &effective);
    for (const char *line = buffer_cstr(&effective); *line; line = strchr(line, '\n') + 1) {
        if (sscanf(line, "%100[a-z_] =", key) != 1)
            continue;
        snprintf(wanted, sizeof(wanted), "#%s = ", key);
        assert_contains(buffer_cstr(&example), wanted);
    }
    assert_contains(buffer_cstr(&man), "*disconnect\\_after* = _duration_\n");
    assert_contains(buffer_cstr(&man), "Default: 256M.\n");
    buffer_finish(&example);
    buffer_finish(&man);
    buffer_finish(&effective);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_empty_file_gives_the_defaults_of_the_contract),
        TEST(test_policy_defaults_are_those_of_the_policy),
        TEST(test_derived_defaults_follow_their_folders),
        TEST(test_values_of_every_kind),
        TEST(test_relative_paths_are_relative_to_the_file),
        TEST(test_relative_path_of_the_file_itself),
        TEST(test_bad_lines_are_refused_with_what_to_do),
        TEST(test_listen_addresses),
        TEST(test_all_errors_are_reported_with_file_and_line),
        TEST(test_duplicate_in_another_file_names_both_places),
        TEST(test_what_a_file_holds_cannot_drive_a_terminal),
        TEST(test_missing_and_unreadable_files),
        TEST(test_limits_of_a_file),
        TEST(test_many_errors_are_cut_and_counted),
        TEST(test_include_is_lexical_and_keeps_the_section),
        TEST(test_included_file_begins_outside_any_section),
        TEST(test_include_in_a_folder_with_pattern_characters),
        TEST(test_include_loops_and_depth),
        TEST(test_includes_cannot_multiply_for_ever),
        TEST(test_warnings),
        TEST(test_file_that_everybody_may_write),
        TEST(test_banner_is_read_and_checked),
        TEST(test_effective_configuration_parses_back),
        TEST(test_diff_and_keep_fixed),
        TEST(test_example_is_the_defaults),
        TEST(test_documents_name_every_option),
    };

    return cmocka_run_group_tests_name("config", tests, NULL, NULL);
}
