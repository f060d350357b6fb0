/*
 * One CredSSP login; see attempt.h. The rules are proxy/rdp/credssp.c's. What this adds is who is
 * told what, and when: of a login that failed the relay hears before the broker (so that the last
 * message is there when the broker's verdict is), of a password that was right the broker before
 * the client.
 */
#include "proxy/nla/attempt.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sallyport/log.h>
#include <sallyport/secret.h>
#include <sallyport/text.h>

bool attempt_begin(struct attempt *a, const uint8_t *key, size_t len)
{
    memset(a, 0, sizeof(*a));
    a->credssp = credssp_accept(key, len);
    return a->credssp != NULL;
}

void attempt_finish(struct attempt *a)
{
    credssp_finish(a->credssp);
    memory_wipe(a, sizeof(*a));
}

/* ---- what follows from a message ---- */

static bool put_data(struct nla_talk *m, const struct buffer *b)
{
    if (b->failed || b->len > sizeof(m->data))
        return false;
    m->data_len = (uint16_t)b->len;
    if (b->len)
        memcpy(m->data, b->data, b->len);
    return true;
}

/* out: the client's last TSRequest, or NULL. */
static void fail(struct attempt_step *s, const char *why, const struct buffer *out)
{
    memory_wipe(s, sizeof(*s));
    s->has_relay = s->has_broker = s->is_over = true;
    s->relay.type = s->broker.type = NLA_TALK_FAILED;
    text_copy(s->relay.text, sizeof(s->relay.text), why);
    text_copy(s->broker.text, sizeof(s->broker.text), why);
    if (out)
        (void)put_data(&s->relay, out);
}

static void ask(struct attempt *a, struct attempt_step *s)
{
    if (!credssp_identity(a->credssp, a->user, a->domain)) {
        fail(s, "it does not say who it is", NULL);
        return;
    }
    a->is_asking = true;
    s->has_broker = true;
    s->broker.type = NLA_TALK_WHO;
    text_copy(s->broker.user, sizeof(s->broker.user), a->user);
    text_copy(s->broker.domain, sizeof(s->broker.domain), a->domain);
}

/* The names are those that were proved; the client may write others beside its password. */
static void tell_login(struct attempt *a, struct attempt_step *s)
{
    const struct tscredentials *who = credssp_credentials(a->credssp);

    s->has_relay = s->has_broker = s->is_over = true;
    s->relay.type = NLA_TALK_LOGIN;
    text_copy(s->relay.user, sizeof(s->relay.user), a->user);
    text_copy(s->relay.domain, sizeof(s->relay.domain), a->domain);
    text_copy(s->relay.password, sizeof(s->relay.password), who->password);
    s->broker.type = NLA_TALK_DONE;
}

static void follow(struct attempt *a, enum credssp_state state, const struct buffer *out,
                   struct attempt_step *s)
{
    switch (state) {
    case CREDSSP_MORE:
        s->has_relay = true;
        s->relay.type = NLA_TALK_TOKEN;
        if (!put_data(&s->relay, out))
            fail(s, "out of memory", NULL);
        break;
    case CREDSSP_HASH:
        ask(a, s);
        break;
    case CREDSSP_DONE:
        tell_login(a, s);
        break;
    case CREDSSP_FAILED:
        fail(s, credssp_why(a->credssp), out);
        break;
    }
}

void attempt_from_relay(struct attempt *a, const struct nla_talk *m, struct attempt_step *out)
{
    enum credssp_state state;
    struct buffer b;

    memset(out, 0, sizeof(*out));
    if (m->type != NLA_TALK_TOKEN || a->is_asking || ++a->rounds > ATTEMPT_ROUNDS) {
        fail(out, "it is out of step", NULL);
        return;
    }
    buffer_init_secret(&b, NLA_TALK_DATA_MAX);
    state = credssp_step(a->credssp, cursor_of(m->data, m->data_len), &b);
    follow(a, state, &b, out);
    buffer_finish(&b);
}

void attempt_from_broker(struct attempt *a, const struct nla_talk *m, struct attempt_step *out)
{
    enum credssp_state state;
    struct buffer b;

    memset(out, 0, sizeof(*out));
    if (m->type != NLA_TALK_HASH || m->data_len != NTLM_HASH_LEN || !a->is_asking) {
        fail(out, "the broker is out of step", NULL);
        return;
    }
    a->is_asking = false;
    buffer_init_secret(&b, NLA_TALK_DATA_MAX);
    state = credssp_judge(a->credssp, m->data, &b);
    follow(a, state, &b, out);
    buffer_finish(&b);
    if (out->has_relay && !out->is_over) {
        out->has_broker = out->is_proved = true;
        out->broker.type = NLA_TALK_PROVED;
    }
}

/* ---- the process ---- */

static bool say(int sock, struct nla_talk *m)
{
    bool is_ok = nla_talk_send(sock, m, NULL) == 0;

    memory_wipe(m, sizeof(*m));
    return is_ok;
}

/* False when it is over. */
static bool carry_out(struct attempt_step *s, int broker, int relay)
{
    bool goes_on = !s->is_over;

    if (s->is_proved)
        goes_on = say(broker, &s->broker);
    if ((goes_on || s->is_over) && s->has_relay && !say(relay, &s->relay))
        goes_on = false;
    if (!s->is_proved && s->has_broker && !say(broker, &s->broker))
        goes_on = false;
    memory_wipe(s, sizeof(*s));
    return goes_on;
}

/* One message. False when it is over. */
static bool turn(struct attempt *a, int broker, int relay, struct nla_talk *m,
                 struct attempt_step *s)
{
    struct pollfd p[] = {{.fd = broker, .events = POLLIN}, {.fd = relay, .events = POLLIN}};
    bool is_of_broker;
    int r;

    if (poll(p, 2, -1) < 0)
        return true; /* interrupted */
    is_of_broker = p[0].revents != 0;
    r = nla_talk_receive(is_of_broker ? broker : relay, m, NULL);
    if (r == ERR_CLOSED || r == ERR_SYSTEM)
        return false; /* a relay that is gone needs no answer; nobody lives without the broker */
    if (r < 0)
        m->type = NLA_TALK_TYPES; /* nonsense is out of step */
    if (is_of_broker)
        attempt_from_broker(a, m, s);
    else
        attempt_from_relay(a, m, s);
    memory_wipe(m, sizeof(*m));
    return carry_out(s, broker, relay);
}

int attempt_run(int broker, int relay, const uint8_t *key, size_t len)
{
    static struct nla_talk message;
    static struct attempt_step step; /* large, and there is one */
    struct attempt a;

    if (!attempt_begin(&a, key, len)) {
        log_error("nla: an attempt cannot begin");
        return 1;
    }
    while (turn(&a, broker, relay, &message, &step))
        ;
    attempt_finish(&a);
    return 0;
}
