/*
 * Who is on the other end of a control connection, and what he may do. The kernel says the uid and
 * the groups; the store says whether a proxy user is linked to the uid. There is no other source of
 * identity. The server asks at connect, at each request and when users change.
 */
#include "control/control_priv.h"

#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include <sallyport/clock.h>
#include <sallyport/text.h>

#define ADMIN_GROUP_MS 5000

const char *control_access_name(enum control_access access)
{
    static const char *const names[] = {"any", "self", "audit", "admin"};

    return names[access];
}

int control_peer_of(int fd, struct peer *out)
{
    struct ucred cred;
    socklen_t len = sizeof(cred);

    *out = (struct peer){0};
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0 || len != sizeof(cred))
        return ERR_SYSTEM;
    out->uid = cred.uid;
    out->gid = cred.gid;
    out->pid = cred.pid;
    len = sizeof(out->groups);
    /* Without SO_PEERGROUPS, or with more groups than that, the primary group alone counts. */
    if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, out->groups, &len) == 0)
        out->group_count = len / sizeof(gid_t);
    return 0;
}

bool control_is_uncounted(const struct control *c, uid_t uid)
{
    return uid == 0 || (c->owner_uid != (uid_t)-1 && uid == c->owner_uid);
}

static bool is_refused_uid(const struct control *c, uid_t uid)
{
    for (size_t i = 0; i < c->refused_uid_count; i++) {
        if (c->refused_uids[i] == uid)
            return true;
    }
    return false;
}

/* The group may be made while the daemon runs: asked again, now and then, until it is there. */
static bool admin_gid(struct control *c, gid_t *gid)
{
    struct group entry, *found = NULL;
    int64_t now_ms = clock_mono_ms();
    char scratch[16384];

    if (!c->has_admin_gid && c->admin_group && now_ms >= c->admin_gid_again_ms &&
        getgrnam_r(c->admin_group, &entry, scratch, sizeof(scratch), &found) == 0 && found) {
        c->admin_gid = found->gr_gid;
        c->has_admin_gid = true;
    }
    if (!c->has_admin_gid && now_ms >= c->admin_gid_again_ms)
        c->admin_gid_again_ms = now_ms + ADMIN_GROUP_MS;
    *gid = c->admin_gid;
    return c->has_admin_gid;
}

static bool is_admin_by_group(struct control *c, const struct peer *peer)
{
    gid_t gid;

    if (!admin_gid(c, &gid))
        return false;
    if (peer->gid == gid)
        return true;
    for (size_t i = 0; i < peer->group_count; i++) {
        if (peer->groups[i] == gid)
            return true;
    }
    return false;
}

static void name_of_uid(uid_t uid, char *dst, size_t dst_len)
{
    struct passwd entry, *found = NULL;
    char scratch[16384];

    if (getpwuid_r(uid, &entry, scratch, sizeof(scratch), &found) == 0 && found &&
        text_is_name(found->pw_name))
        text_copy(dst, dst_len, found->pw_name);
    else
        snprintf(dst, dst_len, "uid %u", (unsigned)uid);
}

static void refuse(struct caller *out, const char *why)
{
    out->access = ACCESS_ANY;
    text_copy(out->why, sizeof(out->why), why);
}

static void set_author(struct caller *out, const char *name)
{
    if (out->access == ACCESS_ADMIN)
        snprintf(out->author, sizeof(out->author), "admin %s", name);
    else
        text_copy(out->author, sizeof(out->author), name);
}

/* The access that a linked proxy user's role gives. */
static void access_of_user(const struct store_user *user, struct caller *out)
{
    if (user->is_locked) {
        refuse(out, out->is_guest
                        ? "your user is locked; ask an admin"
                        : "the proxy user linked to your account is locked; ask an admin");
        return;
    }
    out->access = !strcmp(user->role, "admin")     ? ACCESS_ADMIN
                  : !strcmp(user->role, "auditor") ? ACCESS_AUDIT
                                                   : ACCESS_SELF;
    set_author(out, user->name);
}

/* A proxy user by name, as his login proved it. */
static void caller_of_guest(struct control *c, const struct control_guest *guest,
                            struct caller *out)
{
    struct store_user user;

    *out = (struct caller){.uid = (uid_t)-1, .is_guest = true};
    text_copy(out->name, sizeof(out->name), guest->user);
    text_copy(out->user, sizeof(out->user), guest->user);
    text_copy(out->source, sizeof(out->source), guest->source);
    if (store_user_get(c->store, guest->user, &user) < 0) {
        refuse(out, "your user is not there any more; ask an admin");
        return;
    }
    access_of_user(&user, out);
    if (guest->may_have_role && out->access == ACCESS_SELF)
        refuse(out, "you are neither an admin nor an auditor any more");
    if (out->access == ACCESS_ANY || guest->may_have_role)
        return;
    out->access = ACCESS_SELF;
    set_author(out, user.name);
}

void control_caller_of(struct control *c, const struct peer *peer, struct caller *out)
{
    const struct caller was = *out;
    struct store_user user;
    int found;

    if (peer->is_guest) {
        caller_of_guest(c, &peer->guest, out);
        return;
    }
    *out = (struct caller){.uid = peer->uid};
    if (is_refused_uid(c, peer->uid)) {
        refuse(out, "gates and relays have no business here");
        return;
    }
    if (was.name[0] && was.uid == peer->uid) /* the name service may be slow: asked once */
        text_copy(out->name, sizeof(out->name), was.name);
    else
        name_of_uid(peer->uid, out->name, sizeof(out->name));
    found = store_user_by_uid(c->store, (int64_t)peer->uid, &user);
    if (found == 0)
        text_copy(out->user, sizeof(out->user), user.name);
    if (control_is_uncounted(c, peer->uid) || is_admin_by_group(c, peer)) {
        out->access = ACCESS_ADMIN;
        set_author(out, out->name);
    } else if (found == 0) {
        access_of_user(&user, out);
    } else if (found == ERR_NOT_FOUND) {
        refuse(out, "your account is neither an admin's nor linked to a proxy user; "
                    "an admin can link it: sallyctl user set NAME --local-uid UID");
    } else {
        refuse(out, "the store cannot say who you are now; try again");
    }
}
