/*
 * Targets that are reached through other targets: may a chain be as it is asked for? Everything is
 * checked as it would be after the change, so that no target is cut off by a change of another.
 */
#include "control/control_priv.h"

#include <string.h>

/* name -> the target it is reached through, "" for none; null for one that is not of SSH */
static bool note_way(const struct store_target *t, void *arg)
{
    json_object_set_new(arg, t->name,
                        t->protocol == PROTOCOL_SSH ? json_string(t->via) : json_null());
    return true;
}

static int check_chain(json_t *ways, const char *name, struct failure *f)
{
    const char *at = json_string_value(json_object_get(ways, name));
    int length = 0;

    for (const char *before = name; at && at[0];
         before = at, at = json_string_value(json_object_get(ways, at))) {
        json_t *next = json_object_get(ways, at);

        if (!next) {
            failure_set(f, "invalid", "via: there is no target \"%s\" (for %s)", at, before);
            return ERR_INVALID;
        }
        if (json_is_null(next)) {
            failure_set(f, "invalid", "via: %s is no ssh target", at);
            return ERR_INVALID;
        }
        if (strcmp(at, name) == 0) {
            failure_set(f, "invalid", "via: %s would be reached through itself", name);
            return ERR_INVALID;
        }
        if (++length > LINK_HOPS_MAX) {
            failure_set(f, "invalid",
                        "via: %s would have more than %d servers on its way (or a loop)", name,
                        LINK_HOPS_MAX);
            return ERR_INVALID;
        }
    }
    return 0;
}

int control_check_vias(struct control *c, json_t *changes, struct failure *f)
{
    json_t *ways = json_object(), *way;
    const char *name;
    int result;

    result = store_targets(c->store, note_way, ways);
    if (result < 0) {
        control_failure_store(f, c->store, result, "cannot look at the targets");
        json_decref(ways);
        return result;
    }
    json_object_foreach(changes, name, way)
    {
        json_object_set(ways, name, way);
    }
    json_object_foreach(ways, name, way)
    {
        if (result == 0)
            result = check_chain(ways, name, f);
    }
    json_decref(ways);
    return result;
}
