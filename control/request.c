/*
 * From one line to a request that may be carried out: JSON, version, id, command, arguments. Pure:
 * no access check, no side effect; the fuzzer calls the same function. client.c uses the result.
 */
#include "control/control_priv.h"

#include <stdio.h>
#include <string.h>

#include <sallyport/text.h>

/* Nesting outside of texts; jansson itself would recurse to 2048. */
static bool is_too_deep(const char *line, size_t len)
{
    size_t depth = 0;
    bool in_text = false;

    for (size_t i = 0; i < len; i++) {
        if (in_text) {
            if (line[i] == '\\')
                i++;
            else if (line[i] == '"')
                in_text = false;
        } else if (line[i] == '"') {
            in_text = true;
        } else if (line[i] == '{' || line[i] == '[') {
            if (++depth > CONTROL_DEPTH_MAX)
                return true;
        } else if ((line[i] == '}' || line[i] == ']') && depth) {
            depth--;
        }
    }
    return false;
}

static int fail_protocol(struct failure *f, const char *text)
{
    failure_set(f, "protocol", "%s", text);
    return ERR_INVALID;
}

/* jansson's message may quote what was sent, a secret included: only the place is told. */
static int load(const char *line, size_t len, struct parsed *out, struct failure *f)
{
    json_error_t error;

    if (is_too_deep(line, len))
        return fail_protocol(f, "the request nests deeper than 32 levels");
    out->root = json_loadb(line, len, JSON_REJECT_DUPLICATES, &error);
    if (!out->root) {
        failure_set(f, "protocol",
                    "the line is not one JSON object (wrong at byte %d); see PROTOCOL.md",
                    error.position);
        return ERR_INVALID;
    }
    if (!json_is_object(out->root))
        return fail_protocol(f, "a request is a JSON object; see PROTOCOL.md");
    return 0;
}

static int read_head(struct parsed *out, struct failure *f)
{
    json_t *id = json_object_get(out->root, "id");
    json_t *version = json_object_get(out->root, "v");

    if (!json_is_integer(id) && !(json_is_string(id) && json_string_length(id) <= 64))
        return fail_protocol(f, "a request has an \"id\", an integer or a text of up to 64 bytes");
    out->id = id;
    if (!json_is_integer(version) || json_integer_value(version) != CONTROL_PROTOCOL_VERSION)
        return fail_protocol(f, "this daemon speaks version 1 of the protocol: send \"v\":1");
    return 0;
}

static int find_command(struct parsed *out, struct failure *f)
{
    const char *words = json_string_value(json_object_get(out->root, "command"));
    const struct command *nearest;
    char quoted[96];

    if (!words) {
        failure_set(f, "usage", "a request has a \"command\"; the command help lists them");
        return ERR_INVALID;
    }
    out->command = control_command_find(words);
    if (out->command)
        return 0;
    nearest = control_command_nearest(words);
    failure_set(f, "usage", "no command \"%s\"%s%s%s",
                text_escape(quoted, sizeof(quoted), words, strlen(words)),
                nearest ? "; did you mean " : "; the command help lists them",
                nearest ? nearest->words : "", nearest ? "?" : "");
    return ERR_INVALID;
}

/* Members besides the four are a client's misunderstanding, best told at once. */
static int check_members(const struct parsed *p, struct failure *f)
{
    static const char *const known[] = {"v", "id", "command", "args"};
    const char *key;
    json_t *value;

    json_object_foreach(p->root, key, value)
    {
        bool is_known = false;
        char quoted[96];

        for (size_t i = 0; i < 4; i++)
            is_known |= !strcmp(key, known[i]);
        if (!is_known) {
            failure_set(f, "usage", "a request has v, id, command and args, but no \"%s\"",
                        text_escape(quoted, sizeof(quoted), key, strlen(key)));
            return ERR_INVALID;
        }
    }
    return 0;
}

int control_parse(const char *line, size_t len, struct parsed *out, struct failure *f)
{
    json_t *args;

    *out = (struct parsed){0};
    if (load(line, len, out, f) < 0 || read_head(out, f) < 0 || check_members(out, f) < 0 ||
        find_command(out, f) < 0)
        return ERR_INVALID;
    args = json_object_get(out->root, "args");
    if (args && !json_is_object(args) && !json_is_null(args)) {
        failure_set(f, "usage", "\"args\" is an object");
        return ERR_INVALID;
    }
    if (args_check(out->command->args, json_is_object(args) ? args : NULL, &out->args, f) < 0)
        return ERR_INVALID;
    return 0;
}

void control_parsed_finish(struct parsed *p)
{
    json_decref(p->root);
    *p = (struct parsed){0};
}
