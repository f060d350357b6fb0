/*
 * Recording of a channel: asking the broker before anything runs, feeding the writer, and what
 * happens when it cannot write. Terminals are always recorded, commands without one by their
 * output, file transfers and subsystems never. Steps of a turn of proxy/ssh/session.c.
 */
#include "proxy/ssh/session.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <sallyport/clock.h>
#include <sallyport/log.h>
#include <sallyport/text.h>

#include "proxy/relay/recorded.h"
#include "proxy/relay/sandbox.h"
#include "proxy/ssh/watch.h"
#include "tracker/recording/recording.h"

static bool is_wanted(const struct channel *c)
{
    return relay_policy(c->session->relay)->record &&
           (c->has_pty || c->kind == CHANNEL_SHELL || c->kind == CHANNEL_EXEC);
}

static void ask(struct channel *c)
{
    struct link_record_open request = {
        .channel = c->number,
        .kind = (uint8_t)c->kind,
        .has_pty = c->has_pty,
        .cols = c->cols,
        .rows = c->rows,
    };

    text_copy(request.command, sizeof(request.command), c->command ? c->command : "");
    text_copy(request.term, sizeof(request.term), c->term);
    c->record = RECORD_ASKED;
    relay_record_open(c->session->relay, &request);
}

bool record_is_ready(struct channel *c)
{
    if (c->record == RECORD_NONE) {
        if (is_wanted(c))
            ask(c);
        else
            c->record = RECORD_OFF;
    }
    return c->record == RECORD_ON || c->record == RECORD_OFF;
}

/* ---- failing ---- */

static void give_up(struct channel *c, const char *why)
{
    struct session *s = c->session;

    recording_writer_destroy(c->writer);
    c->writer = NULL;
    c->record = RECORD_OFF;
    if (recorded_failed(s->relay, c->number, why))
        session_end(s, END_RECORDING_FAILED, "broker", RECORDED_FAILED, RECORDED_FAILED_SENTENCE);
}

static void check(struct channel *c, int rc)
{
    if (rc < 0)
        give_up(c, rc == ERR_SYSTEM ? strerror(errno) : error_text(rc));
}

/* ---- the broker's answer ---- */

static void on_frame(uint64_t sequence, uint64_t file_len, const uint8_t chain[RECORDING_CHAIN_LEN],
                     void *arg)
{
    struct channel *c = arg;

    recorded_frame(c->session->relay, c->number, sequence, file_len, chain);
}

static void begin(struct channel *c, int fd)
{
    struct session *s = c->session;
    struct recording_head head = {
        .session_id = relay_session_id(s->relay),
        .channel = c->number,
        .started_wall_us = clock_wall_us(),
        .has_pty = c->has_pty,
        .cols = c->cols,
        .rows = c->rows,
        .user = s->login.login.user,
        .account = s->account,
        .target = s->target_name,
        .command = c->command ? c->command : "",
        .term = c->term,
    };
    int safe_fd = sandbox_reserve_recording_fd(fd);

    if (safe_fd < 0) {
        close(fd);
        give_up(c, "no descriptor is left for it");
        return;
    }
    c->record = RECORD_ON;
    c->writer = recording_writer_create(
        safe_fd, &head, (enum policy_input)relay_policy(s->relay)->input, on_frame, c);
    if (!c->writer)
        give_up(c, error_text(ERR_MEMORY));
}

static struct channel *find_number(struct session *s, uint32_t number)
{
    struct channel *c;

    TAILQ_FOREACH (c, &s->channels, link) {
        if (c->number == number)
            return c;
    }
    return NULL;
}

void record_answer(struct session *s, const struct link_recording *answer, int fd)
{
    struct channel *c = find_number(s, answer->channel);
    const char *text = recorded_refusal(answer);

    if (!c || c->record != RECORD_ASKED) {
        if (fd >= 0)
            close(fd);
        return;
    }
    if (answer->verdict == LINK_RECORD_YES && fd >= 0) {
        begin(c, fd);
    } else if (answer->verdict == LINK_RECORD_NO) {
        c->record = RECORD_OFF;
    } else {
        c->record = RECORD_REFUSED;
        session_end(s, END_RECORDING_FAILED, "broker", text, text);
    }
    session_want_turn(s);
}

/* ---- feeding ---- */

void record_output(struct channel *c, const void *data, size_t len, bool is_stderr)
{
    if (c->writer)
        check(c, recording_output(c->writer, data, len, is_stderr, clock_mono_ms()));
}

void record_input(struct channel *c, const void *data, size_t len)
{
    if (c->writer)
        check(c, recording_input(c->writer, data, len, clock_mono_ms()));
}

void record_resize(struct channel *c)
{
    watch_resize(c);
    if (c->writer)
        check(c, recording_resize(c->writer, c->cols, c->rows, clock_mono_ms()));
}

void record_mark(struct channel *c, const char *text)
{
    if (c->writer)
        check(c, recording_notice(c->writer, text, clock_mono_ms()));
}

void record_notice(struct channel *c, const char *text)
{
    record_mark(c, text);
    watch_notice(c, text);
}

void record_typed(struct channel *c, const char *author, const void *data, size_t len)
{
    if (c->writer)
        check(c, recording_typed(c->writer, author, data, len, clock_mono_ms()));
}

bool record_flush(struct channel *c, struct recording_position *at)
{
    if (c->writer)
        check(c, recording_flush(c->writer, clock_mono_ms(), at));
    return c->writer != NULL;
}

void record_tick(struct channel *c, int64_t now_ms)
{
    int64_t due_ms = -1;

    if (!c->writer)
        return;
    check(c, recording_tick(c->writer, now_ms, &due_ms));
    if (c->writer && due_ms >= 0)
        session_want_timer(c->session, now_ms + due_ms);
}

void record_close(struct channel *c)
{
    enum end_reason reason = c->session->ending.reason;

    if (!c->writer)
        return;
    if (recording_close(c->writer, end_reason_name(reason == END_NONE ? END_USER_EXIT : reason),
                        clock_mono_ms()) < 0) {
        give_up(c, strerror(errno));
        return;
    }
    recording_writer_destroy(c->writer);
    c->writer = NULL;
    c->record = RECORD_OFF;
}
