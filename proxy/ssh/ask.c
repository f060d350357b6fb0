/*
 * What a server asks while it is logged in to (keyboard-interactive) is asked of the user, on his
 * terminal. The first session channel of the client is accepted before the target is there, as the
 * menu's is, and becomes the session's first one afterwards. What is typed is edited here: a line,
 * with or without echo. Steps of a turn.
 */
#include "proxy/ssh/session.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sallyport/clock.h>
#include <sallyport/text.h>

#include "proxy/ssh/hop.h"

#define TERMINAL_MS 10000  /* for a client to ask for one */
#define ANSWER_MS   110000 /* what sshd gives by default, less the login so far */
#define LINE_MAX    1024

struct asking {
    int64_t terminal_by_ms, answer_by_ms;
    bool has_begun; /* this round's texts are on the screen */
    bool is_shown;  /* the question at hand is */
    unsigned question;
    struct secret line;
};

/* ---- the channel ---- */

static void choose_channel(struct session *s)
{
    struct channel *c;

    if (s->asking_channel)
        return;
    if (s->menu_channel) {
        s->asking_channel = s->menu_channel;
        s->asking_has_started = true;
        return;
    }
    TAILQ_FOREACH (c, &s->channels, link) {
        if (c->state != CHANNEL_WAITING || !c->opening ||
            ssh_message_subtype(c->opening) != SSH_CHANNEL_SESSION)
            continue;
        channel_accept_local(c);
        if (c->state == CHANNEL_LOCAL) {
            s->asking_channel = c;
            s->asking_has_started = false;
        }
        return;
    }
}

void ask_for_channel(struct session *s)
{
    if (!s->wants_user)
        session_want_turn(s); /* one that is there already is accepted then */
    s->wants_user = true;
}

void ask_step(struct session *s)
{
    if (s->wants_user && s->phase == PHASE_TARGET)
        choose_channel(s);
}

bool ask_request(struct channel *c, bool starts)
{
    struct session *s = c->session;

    if (c != s->asking_channel)
        return false;
    s->asking_has_started |= starts;
    session_want_turn(s);
    return true;
}

void ask_stop(struct session *s)
{
    if (!s->asking)
        return;
    secret_wipe(&s->asking->line);
    free(s->asking);
    s->asking = NULL;
}

/* ---- showing ---- */

static bool show(struct session *s, const char *text)
{
    return pump_show(s->asking_channel, text, strlen(text), false);
}

/* Lines of a stranger: what would move the cursor is not passed on. */
static void put_lines(struct buffer *out, const char *text)
{
    char clean[1024];

    while (*text) {
        size_t len = strcspn(text, "\r\n");

        if (len > 0)
            buffer_put_str(out, text_escape(clean, sizeof(clean), text, len));
        text += len;
        if (*text)
            buffer_put_str(out, "\r\n");
        text += *text == '\r' && text[1] == '\n' ? 2 : *text != '\0';
    }
}

static void put_paragraph(struct buffer *out, const char *text)
{
    size_t len = text ? strlen(text) : 0;

    if (len == 0)
        return;
    put_lines(out, text);
    if (text[len - 1] != '\n')
        buffer_put_str(out, "\r\n");
}

static bool show_buffer(struct session *s, struct buffer *out)
{
    bool is_shown = !out->failed && pump_show(s->asking_channel, out->data, out->len, false);

    buffer_finish(out);
    return is_shown;
}

static bool show_round(struct session *s, struct hop *h)
{
    struct buffer out;

    choose_done(s); /* the menu makes room */
    buffer_init(&out, 16384);
    buffer_printf(&out, "%s asks:\r\n", h->name);
    put_paragraph(&out, ssh_userauth_kbdint_getname(h->leg->ssh));
    put_paragraph(&out, ssh_userauth_kbdint_getinstruction(h->leg->ssh));
    return show_buffer(s, &out);
}

static bool show_question(struct session *s, struct hop *h)
{
    const char *text = ssh_userauth_kbdint_getprompt(h->leg->ssh, s->asking->question, NULL);
    struct buffer out;

    buffer_init(&out, 16384);
    put_lines(&out, text ? text : "");
    return show_buffer(s, &out);
}

/* ---- a line ---- */

static void erase_one(struct session *s, bool has_echo)
{
    struct secret *line = &s->asking->line;

    if (line->len == 0)
        return;
    while (line->len > 0 && (line->data[--line->len] & 0xc0) == 0x80) /* a whole character */
        ;
    if (has_echo)
        (void)show(s, "\b \b");
}

/* True at the end of the line. */
static bool take_key(struct session *s, struct hop *h, uint8_t key, bool has_echo)
{
    struct secret *line = &s->asking->line;
    const char text[2] = {(char)key, '\0'};

    if (key == '\r' || key == '\n')
        return true;
    if (key == 3 || (key == 4 && line->len == 0)) {
        (void)show(s, "\r\n");
        hop_fail(h, "the login at %s was given up at its question", h->name);
    } else if (key == 8 || key == 127) {
        erase_one(s, has_echo);
    } else if (key == 21) {
        while (line->len > 0)
            erase_one(s, has_echo);
    } else if (key >= 32 && line->len < LINE_MAX) {
        line->data[line->len++] = key;
        if (has_echo)
            (void)show(s, text);
    }
    return false;
}

/* True when the question at hand was answered. */
static bool read_line(struct session *s, struct hop *h)
{
    struct spool *in = &s->asking_channel->user.in[0];
    struct secret *line = &s->asking->line;
    char echo = 0;
    bool is_done = false;

    (void)ssh_userauth_kbdint_getprompt(h->leg->ssh, s->asking->question, &echo);
    while (in->len > 0 && !is_done && h->step != HOP_FAILED) {
        uint8_t key = in->data[in->start];

        in->start++;
        in->len--;
        is_done = take_key(s, h, key, echo != 0);
    }
    if (!is_done)
        return false;
    (void)show(s, "\r\n");
    line->data[line->len] = '\0';
    if (ssh_userauth_kbdint_setanswer(h->leg->ssh, s->asking->question, (const char *)line->data) <
        0)
        hop_fail(h, "out of memory");
    secret_wipe(line);
    return true;
}

/* ---- the round ---- */

static int give_up(struct hop *h)
{
    hop_fail(h,
             "%s asks questions when it is logged in to: connect with a terminal to answer them "
             "(ssh -t)",
             h->name);
    return HOP_CANNOT;
}

/* SSH_AUTH_INFO: there is a terminal to ask on. */
static int find_terminal(struct session *s, struct hop *h, int64_t now_ms)
{
    struct asking *a = s->asking;

    ask_for_channel(s);
    if (s->asking_channel && s->asking_has_started)
        return s->asking_channel->has_pty ? SSH_AUTH_INFO : give_up(h);
    if (a->terminal_by_ms == 0)
        a->terminal_by_ms = now_ms + TERMINAL_MS;
    if (now_ms >= a->terminal_by_ms)
        return give_up(h);
    hop_allow(h, a->terminal_by_ms + 1000);
    session_want_timer(s, a->terminal_by_ms);
    return SSH_AUTH_AGAIN;
}

static int ask_round(struct session *s, struct hop *h, int64_t now_ms)
{
    struct asking *a = s->asking;
    unsigned count = (unsigned)ssh_userauth_kbdint_getnprompts(h->leg->ssh);

    if (a->answer_by_ms == 0)
        a->answer_by_ms = now_ms + ANSWER_MS;
    hop_allow(h, a->answer_by_ms);
    if (!a->has_begun && !(a->has_begun = show_round(s, h)))
        return SSH_AUTH_AGAIN;
    while (a->question < count) {
        if (!a->is_shown && !(a->is_shown = show_question(s, h)))
            return SSH_AUTH_AGAIN;
        if (!read_line(s, h))
            return h->step == HOP_FAILED ? HOP_CANNOT : SSH_AUTH_AGAIN;
        a->is_shown = false;
        a->question++;
    }
    return h->step == HOP_FAILED ? HOP_CANNOT : SSH_AUTH_INFO;
}

int ask_questions(struct session *s, struct hop *h)
{
    int64_t now_ms = clock_mono_ms();
    int rc;

    if (!s->asking && !(s->asking = calloc(1, sizeof(*s->asking)))) {
        hop_fail(h, "out of memory");
        return HOP_CANNOT;
    }
    rc = find_terminal(s, h, now_ms);
    if (rc == SSH_AUTH_INFO)
        rc = ask_round(s, h, now_ms);
    if (rc == SSH_AUTH_INFO)
        ask_stop(s); /* the next round begins anew */
    return rc;
}
