/*
 * `target test` and `target host-key`: what a server that is to be reached says, step by step. The
 * daemon has a process of its own do it, so these answer later; their client may be gone by then.
 */
#include "control/control_priv.h"

#include <stdlib.h>
#include <string.h>

#include <sallyport/fingerprint.h>
#include <sallyport/text.h>

#include "control/address.h"
#include "control/keys.h"

static const char *const step_names[] = {
#define X(id, name) [id] = (name),
    LINK_PROBE_STEPS(X)
#undef X
};

static const char *const result_names[] = {
    [PROBE_OK] = "ok", [PROBE_FAILED] = "failed", [PROBE_SKIPPED] = "skipped"};

static json_t *steps_json(const struct control_probe_report *report)
{
    json_t *steps = json_array();

    for (size_t i = 0; i < report->count; i++) {
        const struct control_probe_row *row = &report->rows[i];

        json_array_append_new(steps,
                              json_pack("{s:s, s:s, s:s, s:o}", "target", row->target, "step",
                                        step_names[row->step], "result", result_names[row->result],
                                        "text", control_json_text(row->text)));
    }
    return steps;
}

/* The host key as `target show` has it. */
static void add_key(json_t *data, const struct control_probe_report *report)
{
    char print[FINGERPRINT_MAX] = "", *line = NULL;

    if (report->key_len > 0) {
        fingerprint_sha256(print, report->key, report->key_len);
        line = public_key_line(report->key_type, report->key, report->key_len, "");
    }
    json_object_set_new(data, "hostKeyType", control_json_text_or_null(report->key_type));
    json_object_set_new(data, "hostKey", control_json_text_or_null(line ? line : ""));
    json_object_set_new(data, "hostKeyFingerprint", control_json_text_or_null(print));
    free(line);
}

/* False when the daemon is gone: its answers go nowhere. */
static bool is_served(struct request *r)
{
    if (r->control)
        return true;
    control_reply_error(r, "failed", "the daemon is stopping");
    return false;
}

static void tested(const struct control_probe_report *report, void *arg)
{
    struct request *r = arg;
    json_t *data;

    if (is_served(r)) {
        data = json_pack("{s:s, s:b, s:o}", "name", args_text(&r->parsed.args, "name"), "ok",
                         (int)report->is_ok, "steps", steps_json(report));
        add_key(data, report);
        control_event(r, "target-test", "", 0, "target %s: %s", args_text(&r->parsed.args, "name"),
                      report->is_ok ? "ok" : "failed");
        control_reply_data(r, data);
    }
    control_request_resume(r);
}

static void fetched(const struct control_probe_report *report, void *arg)
{
    struct request *r = arg;
    json_t *data;

    if (is_served(r) && report->is_ok && report->key_len > 0) {
        data = json_pack("{s:o}", "steps", steps_json(report));
        add_key(data, report);
        control_reply_data(r, data);
    } else if (r->control) {
        const struct control_probe_row *last =
            report->count ? &report->rows[report->count - 1] : NULL;

        control_reply_error(r, "failed", "its key could not be fetched (%s): %s",
                            last ? step_names[last->step] : "start",
                            last ? last->text : "nothing was tried");
    }
    control_request_resume(r);
}

static void begin(struct request *r, const struct store_target *t, const char *account,
                  bool only_key)
{
    const struct control_host *host = &r->control->host;
    int result;

    if (!host->probe) {
        control_reply_error(r, "failed", "this daemon cannot try targets");
        return;
    }
    r->is_pending = true;
    result = host->probe(host->arg, t, account, only_key, only_key ? fetched : tested, r);
    if (result == 0)
        return;
    r->is_pending = false;
    if (result == ERR_FULL)
        control_reply_error(r, "busy", "too many targets are being tried; try again");
    else
        control_reply_error(r, "failed", "the target cannot be tried: %s", error_text(result));
}

void control_do_target_test(struct request *r)
{
    const char *account = args_text(&r->parsed.args, "account");
    struct store_target t;
    int result = store_target_get(r->control->store, args_text(&r->parsed.args, "name"), &t);

    if (result < 0) {
        control_reply_store(r, result, "cannot test the target");
        return;
    }
    if (!account || !account[0])
        account = t.account;
    if (!account[0]) {
        control_reply_error(
            r, "usage", "users log in at %s under their own names: give an account to try", t.name);
        return;
    }
    begin(r, &t, account, false);
}

/* The target as it is, with what the arguments say of it. */
void control_do_target_host_key(struct request *r)
{
    const struct arg_values *args = &r->parsed.args;
    const char *name = args_text(args, "name"), *address = args_text(args, "address");
    const char *via = args_text(args, "via"), *type = args_text(args, "type");
    struct store_target t = {.protocol = type && strcmp(type, protocol_name(PROTOCOL_RDP)) == 0
                                             ? PROTOCOL_RDP
                                             : PROTOCOL_SSH};
    char err[256];
    int result = name ? store_target_get(r->control->store, name, &t) : 0;

    if (result < 0) {
        control_reply_store(r, result, "cannot ask the target");
        return;
    }
    if (address && address_normalise(address, t.protocol, t.address, err, sizeof(err)) < 0) {
        control_reply_error(r, "invalid", "address: %s", err);
        return;
    }
    if (!t.address[0]) {
        control_reply_error(r, "usage", "give a name or an address");
        return;
    }
    if (via)
        text_copy(t.via, sizeof(t.via), via);
    if (!t.name[0])
        text_copy(t.name, sizeof(t.name), "target");
    begin(r, &t, "nobody", true);
}
