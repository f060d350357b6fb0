/*
 * `source ls` and `source unblock`: addresses from which logins failed, and those that are refused
 * for it. The broker counts; this shows and forgets.
 */
#include "control/control_priv.h"

#include <sallyport/clock.h>

struct rows {
    json_t *list;
    bool has_all;
};

static bool collect(const struct control_source *source, void *arg)
{
    struct rows *rows = arg;
    int64_t until_us = clock_wall_us() + (int64_t)source->blocked_s * 1000000;

    if (source->blocked_s || rows->has_all)
        json_array_append_new(
            rows->list, json_pack("{s:s, s:I, s:b, s:o}", "address", source->address, "failures",
                                  (json_int_t)source->failures, "blocked", source->blocked_s > 0,
                                  "until", control_json_time(source->blocked_s ? until_us : 0)));
    return true;
}

void control_do_source_ls(struct request *r)
{
    const struct control_host *host = &r->control->host;
    struct rows rows = {json_array(), args_flag(&r->parsed.args, "all")};

    host->sources(host->arg, collect, &rows);
    control_reply_rows(r, rows.list);
}

void control_do_source_unblock(struct request *r)
{
    const struct control_host *host = &r->control->host;
    const char *address = args_text(&r->parsed.args, "address");
    uint32_t count = 0;

    if (!address == !args_flag(&r->parsed.args, "all")) {
        control_reply_error(r, "usage", "give an address, or all");
    } else if (host->source_unblock(host->arg, address, &count) < 0) {
        control_reply_error(r, "invalid", "address: this is no IP address, see source ls");
    } else {
        control_event(r, "source-unblocked", "", 0, "%s", address ? address : "all");
        control_reply_data(r, json_pack("{s:I}", "unblocked", (json_int_t)count));
    }
}
