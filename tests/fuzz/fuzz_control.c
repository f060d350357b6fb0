/*
 * A request line through everything that looks at it before a handler would: JSON, head, command,
 * arguments; and then the readers of texts that handlers use (key lines, addresses). No side
 * effects. What passes must keep the promises that handlers rely on.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "control/address.h"
#include "control/control_priv.h"
#include "control/document.h"
#include "control/keys.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void read_texts(const char *text)
{
    struct public_key key;
    char address[SESSION_ADDRESS_MAX], err[256];

    if (strlen(text) > KEY_LINE_MAX)
        return;
    if (public_key_parse(text, KEY_OF_USER, &key, err, sizeof(err)) == 0) {
        struct public_key again;
        char *line = public_key_line(key.type, key.blob, key.blob_len, key.comment);
        assert(public_key_parse(line, KEY_OF_USER, &again, err, sizeof(err)) == 0);
        assert(again.blob_len == key.blob_len && !memcmp(again.blob, key.blob, key.blob_len));
        free(line);
    }
    if (address_normalise(text, PROTOCOL_SSH, address, err, sizeof(err)) == 0) {
        char again[SESSION_ADDRESS_MAX];
        assert(address_normalise(address, PROTOCOL_SSH, again, err, sizeof(err)) == 0);
        assert(!strcmp(address, again)); /* a normal form stays what it is */
    }
    (void)!private_key_check(text, err, sizeof(err));
}

static void look_at(const struct arg_values *values)
{
    for (const struct argument *row = values->rows; row->name; row++) {
        const struct arg_value *v = args_get(values, row->name);

        assert(!row->is_required || v->is_set);
        if (!v->is_set || v->is_null)
            continue;
        if (row->kind == ARG_TEXT || row->kind == ARG_SECRET) {
            assert(strlen(v->text) >= row->min && strlen(v->text) <= row->max);
            read_texts(v->text);
        }
        if (row->kind == ARG_NUMBER || row->kind == ARG_DURATION)
            assert(v->number >= row->min && v->number <= row->max);
    }
}

static void look_at_document(json_t *document)
{
    struct arg_values values;
    struct failure f;
    json_t *item;
    size_t i;

    for (int s = 0; s < SECTION_COUNT; s++) {
        json_array_foreach(json_object_get(document, section_names[s]), i, item)
        {
            if (json_is_object(item) && args_check(section_rows[s], item, &values, &f) == 0)
                look_at(&values);
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct parsed parsed;
    struct failure f = {0};

    if (control_parse((const char *)data, len, &parsed, &f) == 0) {
        look_at(&parsed.args);
        if (!strcmp(parsed.command->words, "apply"))
            look_at_document(args_get(&parsed.args, "document")->json);
    } else {
        assert(f.code && f.text[0]); /* every refusal has a sentence */
    }
    control_parsed_finish(&parsed);
    return 0;
}
