/*
 * The user's side up to Client Info, served with numbers of our own, and the login that comes with
 * it. Steps of a turn of proxy/rdp/session.c.
 */
#include "proxy/rdp/session.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sallyport/log.h>
#include <sallyport/text.h>

#include "proxy/rdp/screen.h"
#include "proxy/rdp/tls.h"

#define EARLY_MAX       16384u /* bytes of a frame before the login */
#define JOINS_MAX       128u   /* PDUs before Client Info: every channel twice, and some */
#define FIRST_CHANNEL   1004
#define NAME_IMPOSSIBLE "?"
#define TOKEN_PREFIX    "target="

void rdp_user_nonsense(struct rdp_session *s, const char *what)
{
    char text[SESSION_TEXT_MAX];

    snprintf(text, sizeof(text), "the client's %s cannot be understood", what);
    log_debug("%s", text);
    rdp_end(s, END_POLICY, "client", text, "");
}

/* ---- X.224 ---- */

/* Returns false when the rest must wait. */
static bool take_blob(struct rdp_session *s)
{
    struct cursor c = rdp_leg_input(&s->user);
    size_t before = cursor_left(&c);
    struct preconnection p;
    char text[128];
    enum parse r = preconnection_next(&c, &p);

    if (r == PARSE_MORE)
        return false;
    s->u.is_past_blob = true;
    if (r != PARSE_OK)
        return true; /* there is none; whatever it is, X.224 will judge it */
    if (utf16_to_utf8(p.blob, text, sizeof(text)) &&
        strncmp(text, TOKEN_PREFIX, strlen(TOKEN_PREFIX)) == 0)
        text_copy(s->u.wanted, sizeof(s->u.wanted), text + strlen(TOKEN_PREFIX));
    rdp_leg_use(&s->user, before - cursor_left(&c));
    return true;
}

static void take_token(struct user_side *u)
{
    if (strncmp(u->request.token, TOKEN_PREFIX, strlen(TOKEN_PREFIX)) == 0)
        text_copy(u->wanted, sizeof(u->wanted), u->request.token + strlen(TOKEN_PREFIX));
    if (!text_is_name(u->wanted))
        u->wanted[0] = '\0';
}

static void refuse_security(struct rdp_session *s, uint32_t failure)
{
    struct buffer b;

    buffer_init(&b, 64);
    x224_failure_put(&b, failure);
    rdp_leg_send(&s->user, b.data, b.len);
    buffer_finish(&b);
    rdp_end(s, END_POLICY, "client",
            !s->u.request.has_negotiation          ? "the client speaks only the old RDP security"
            : failure == X224_FAILURE_SSL_REQUIRED ? "the client did not offer TLS"
                                                   : "the client did not offer NLA",
            "");
}

void rdp_user_secure(struct rdp_session *s, uint32_t selected, uint32_t failure)
{
    struct buffer b;

    if (!selected) {
        refuse_security(s, failure);
        return;
    }
    s->u.selected = selected;
    buffer_init(&b, 64);
    x224_confirm_put(&b, X224_EXTENDED_CLIENT_DATA | X224_DYNVC_GFX, selected);
    rdp_leg_send(&s->user, b.data, b.len);
    buffer_finish(&b);
    if (rdp_leg_unsent(&s->user) > 0 || rdp_leg_begin_tls(&s->user, tls_server(s->user.fd)) < 0) {
        rdp_user_nonsense(s, "haste"); /* bytes behind the request, before our answer */
        return;
    }
    s->phase = PHASE_USER_TLS;
    rdp_leg_drive(&s->user);
}

static void step_negotiate(struct rdp_session *s)
{
    struct frame f;
    enum parse r;

    if (!s->u.is_past_blob && !take_blob(s))
        return;
    r = rdp_frame(&s->user, EARLY_MAX, &f);
    if (r == PARSE_MORE)
        return;
    if (r != PARSE_OK || f.kind != FRAME_TPKT ||
        x224_request_parse(frame_body(&f), &s->u.request) != PARSE_OK) {
        rdp_user_nonsense(s, "connection request");
        return;
    }
    rdp_leg_use(&s->user, f.len);
    take_token(&s->u);
    front_ask(s);
}

/* ---- MCS Connect ---- */

static void give_numbers(struct user_side *u)
{
    uint16_t next = FIRST_CHANNEL;

    u->ids = (struct gcc_server){.io_channel = MCS_GLOBAL_CHANNEL};
    u->ids.channel_count = u->client.channel_count;
    for (size_t i = 0; i < u->ids.channel_count; i++)
        u->ids.channels[i] = next++;
    if (u->client.has_message_channel)
        u->ids.message_channel = next++;
    u->user_id = next;
}

void rdp_user_answer_connect(struct rdp_session *s)
{
    struct buffer gcc, b;

    buffer_init(&gcc, EARLY_MAX);
    buffer_init(&b, EARLY_MAX);
    gcc_server_put(&gcc, &s->u.ids, s->u.request.protocols);
    mcs_connect_response_put(&b, s->u.connect.parameters[0], gcc.data, gcc.len);
    if (gcc.failed || b.failed)
        rdp_end(s, END_RELAY_CRASHED, "relay", "out of memory", "");
    else
        rdp_leg_send(&s->user, b.data, b.len);
    buffer_finish(&gcc);
    buffer_finish(&b);
}

static bool keep_initial(struct user_side *u, const struct frame *f)
{
    u->initial = malloc(f->len);
    if (!u->initial)
        return false;
    memcpy(u->initial, f->data, f->len);
    return mcs_connect_initial_parse(cursor_of(u->initial + f->head, f->len - f->head),
                                     &u->connect) == PARSE_OK &&
           gcc_client_parse(u->connect.gcc, &u->client) == PARSE_OK;
}

bool rdp_user_take_initial(struct rdp_session *s)
{
    struct gcc_client *c = &s->u.client;
    struct frame f;
    enum parse r = rdp_frame(&s->user, EARLY_MAX, &f);

    if (r == PARSE_MORE)
        return false;
    if (r != PARSE_OK || f.kind != FRAME_TPKT || !keep_initial(&s->u, &f)) {
        rdp_user_nonsense(s, "settings");
        return false;
    }
    rdp_leg_use(&s->user, f.len);
    relay_set_device(s->relay, c->name[0] ? c->name : "RDP client");
    log_debug("client name=%s version=%#x build=%u desktop=%ux%u bpp=%u early=%#x channels=%zu",
              c->name, c->version, c->build, c->width, c->height, c->bpp, c->early_flags,
              c->channel_count);
    return true;
}

void rdp_user_serve(struct rdp_session *s)
{
    give_numbers(&s->u);
    rdp_user_answer_connect(s);
    s->phase = PHASE_JOIN;
}

static void step_connect(struct rdp_session *s)
{
    if (rdp_user_take_initial(s))
        rdp_user_serve(s);
}

/* ---- joins and Client Info ---- */

static bool is_ours(const struct user_side *u, uint16_t channel)
{
    if (channel == u->user_id || channel == u->ids.io_channel ||
        (u->ids.message_channel && channel == u->ids.message_channel))
        return true;
    for (size_t i = 0; i < u->ids.channel_count; i++)
        if (u->ids.channels[i] == channel)
            return true;
    return false;
}

static void answer(struct rdp_session *s, const struct mcs_pdu *pdu)
{
    struct buffer b;

    buffer_init(&b, 64);
    if (pdu->type == MCS_ATTACH_REQUEST)
        mcs_attach_confirm_put(&b, s->u.user_id);
    else
        mcs_join_confirm_put(&b, s->u.user_id, pdu->channel);
    rdp_leg_send(&s->user, b.data, b.len);
    buffer_finish(&b);
}

const char *rdp_user_name(struct rdp_session *s, const char *name, const char *domain)
{
    struct login *l = &s->u.login;
    const char *user =
        login_parse(l, name, strlen(name), s->separators) == 0 ? l->user : NAME_IMPOSSIBLE;

    if (!l->target[0])
        text_copy(l->target, sizeof(l->target),
                  s->u.wanted[0]         ? s->u.wanted
                  : text_is_name(domain) ? domain
                                         : "");
    return user;
}

void rdp_user_keep_password(struct user_side *u, const char *password)
{
    if (!u->password)
        u->password = malloc(sizeof(*u->password));
    if (u->password)
        (void)secret_set(u->password, password, strlen(password));
}

/* Client Info came, and who it is is known from NLA; or why it goes no further. */
static void begin_known(struct rdp_session *s)
{
    struct link_auth_result result = {.result =
                                          s->front.is_partial ? LINK_AUTH_PARTIAL : LINK_AUTH_OK};

    if (s->ending.is_pending)
        rdp_end(s, s->ending.reason, s->ending.author, s->ending.text, s->ending.sentence);
    else if (s->t.route)
        rdp_target_resume(s);
    else
        rdp_user_result(s, &result);
}

/* A name that can be none still costs an attempt, as a wrong password does. */
static void log_in(struct rdp_session *s, const struct client_info *info)
{
    char name[INFO_TEXT_MAX], domain[INFO_TEXT_MAX], password[INFO_TEXT_MAX];
    const char *user;

    s->phase = PHASE_AUTH;
    if (s->ending.is_pending || s->front.is_known) {
        begin_known(s);
        return;
    }
    if (!client_info_text(info, info->domain, domain, sizeof(domain)))
        domain[0] = '\0';
    if (!client_info_text(info, info->user, name, sizeof(name)))
        name[0] = '\0';
    user = rdp_user_name(s, name, domain);
    if (!client_info_text(info, info->password, password, sizeof(password)))
        password[0] = '\0';
    if (!password[0]) {
        rdp_screen_login(s, name);
    } else {
        rdp_user_keep_password(&s->u, password);
        relay_auth_password(s->relay, user, password);
    }
    memory_wipe(password, sizeof(password));
}

bool rdp_user_keep_info(struct rdp_session *s, const struct mcs_pdu *pdu, struct client_info *info)
{
    struct user_side *u = &s->u;

    u->info_len = cursor_left(&pdu->data);
    u->info = malloc(u->info_len);
    if (!u->info)
        return false;
    memcpy(u->info, pdu->data.at, u->info_len);
    rdp_cookie_shown(s);
    return client_info_parse(cursor_of(u->info, u->info_len), info) == PARSE_OK;
}

static void take_join(struct rdp_session *s, const struct mcs_pdu *pdu)
{
    struct client_info info;

    switch (pdu->type) {
    case MCS_ERECT_DOMAIN:
        break;
    case MCS_ATTACH_REQUEST:
        answer(s, pdu);
        break;
    case MCS_JOIN_REQUEST:
        if (is_ours(&s->u, pdu->channel))
            answer(s, pdu);
        else
            rdp_user_nonsense(s, "channel number");
        break;
    case MCS_DATA_REQUEST:
        if (pdu->channel != s->u.ids.io_channel || !rdp_user_keep_info(s, pdu, &info))
            rdp_user_nonsense(s, "login");
        else
            log_in(s, &info);
        break;
    case MCS_ULTIMATUM:
        rdp_end(s, END_USER_EXIT, "client", "the client closed the connection", "");
        break;
    default:
        rdp_user_nonsense(s, "MCS message");
        break;
    }
}

static void step_join(struct rdp_session *s)
{
    struct mcs_pdu pdu;
    struct frame f;
    enum parse r;

    while (s->phase == PHASE_JOIN && (r = rdp_frame(&s->user, EARLY_MAX, &f)) != PARSE_MORE) {
        if (r != PARSE_OK || f.kind != FRAME_TPKT || mcs_parse(frame_body(&f), &pdu) != PARSE_OK ||
            ++s->u.join_count > JOINS_MAX) {
            rdp_user_nonsense(s, "MCS message");
            return;
        }
        take_join(s, &pdu);
        rdp_leg_use_secret(&s->user, f.len);
    }
}

/* ---- from outside ---- */

void rdp_user_result(struct rdp_session *s, const struct link_auth_result *result)
{
    struct login *l = &s->u.login;

    if (front_result(s, result))
        return;
    if (s->phase != PHASE_AUTH)
        return;
    if (result->result == LINK_AUTH_PARTIAL) {
        rdp_screen_factor(s);
    } else if (result->result != LINK_AUTH_OK) {
        if (!rdp_screen_denied(s, result))
            rdp_end(s, END_POLICY, "policy", "the login failed",
                    result->text[0] ? result->text : "Wrong user name or password.");
    } else if (!l->target[0]) {
        rdp_screen_choose(s);
    } else {
        rdp_screen_connecting(s, l->target);
        s->phase = PHASE_ROUTING;
        relay_route(s->relay, l->account, l->target);
    }
    rdp_want_turn(s);
}

void rdp_user_step(struct rdp_session *s)
{
    if (s->phase == PHASE_NEGOTIATE)
        step_negotiate(s);
    if (s->phase == PHASE_USER_TLS && s->user.state == LEG_UP)
        front_begin(s);
    front_step(s);
    if (s->phase == PHASE_CONNECT)
        step_connect(s);
    if (s->phase == PHASE_JOIN)
        step_join(s);
}

void rdp_user_forget(struct rdp_session *s)
{
    struct user_side *u = &s->u;

    if (u->info) {
        memory_wipe(u->info, u->info_len);
        free(u->info);
        u->info = NULL;
    }
    if (u->password) {
        secret_wipe(u->password);
        free(u->password);
        u->password = NULL;
    }
}

void rdp_user_finish(struct rdp_session *s)
{
    rdp_user_forget(s);
    free(s->u.initial);
    s->u.initial = NULL;
}
