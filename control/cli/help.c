/*
 * `sallyctl help`, --help and the hidden __complete, all from the command table.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <sallyport/policy.h>
#include <sallyport/text.h>

#include "control/cli/cli.h"
#include "control/cli/output.h"

#define LABEL_WIDTH 26
#define WORD_MAX    64

/* ---- help ---- */

static size_t width_of(FILE *out)
{
    struct winsize size;

    if (ioctl(fileno(out), TIOCGWINSZ, &size) == 0 && size.ws_col >= 50)
        return size.ws_col < 110 ? size.ws_col : 110;
    return 100;
}

/* A label, then text folded into what is left of the line. */
static void put_row(FILE *out, const char *label, const char *text)
{
    size_t width = width_of(out), column = LABEL_WIDTH;

    fprintf(out, "  %-*s", LABEL_WIDTH - 2, label);
    if (strlen(label) > LABEL_WIDTH - 4)
        fprintf(out, "\n%*s", LABEL_WIDTH, "");
    while (*text) {
        size_t len = strcspn(text, " ");
        if (column + len >= width && column > LABEL_WIDTH) {
            fprintf(out, "\n%*s", LABEL_WIDTH, "");
            column = LABEL_WIDTH;
        }
        fprintf(out, "%s%.*s", column > LABEL_WIDTH ? " " : "", (int)len, text);
        column += len + 1;
        text += len + (text[len] == ' ');
    }
    fputc('\n', out);
}

static void put_option(FILE *out, const struct cli_option *o)
{
    char label[96], help[640];
    const char *text = o->help;

    snprintf(label, sizeof(label), "%s%c%s--%s%s%s", o->letter ? "-" : "  ",
             o->letter ? o->letter : ' ', o->letter ? ", " : " ", o->name,
             o->kind == VALUE_NONE ? "" : " ", o->kind == VALUE_NONE ? "" : o->metavar);
    if (o->kind == VALUE_CHOICE && strcmp(o->name, "output") != 0) {
        snprintf(help, sizeof(help), "%s (%s)", o->help, o->choices);
        text = help;
    }
    put_row(out, label, text);
}

static void help_command(FILE *out, const struct cli_command *c)
{
    const struct cli_option *o;
    bool in_common = false;

    fprintf(out, "Usage: sallyctl %s%s%s [OPTION...]\n", c->words, *c->operands ? " " : "",
            c->operands);
    if (c->shortcut)
        fprintf(out, "   or: sallyctl %s%s%s [OPTION...]\n", c->shortcut, *c->operands ? " " : "",
                c->operands);
    fprintf(out, "\n%s\n\nOptions:\n", c->help);
    for (size_t i = 0; (o = cli_option_at(c, i)); i++) {
        if (!in_common && o == cli_option_at(NULL, 0)) {
            in_common = true;
            if (i)
                fputc('\n', out);
        }
        put_option(out, o);
    }
    if (c->flags & CLI_POLICY)
        fputs("\nPolicy keys may also be given as words: idle_after=10m max_duration=4h\n", out);
}

static void help_list(FILE *out, const char *noun)
{
    size_t len = noun ? strlen(noun) : 0;

    for (size_t i = 0; i < cli_command_count; i++) {
        const struct cli_command *c = &cli_commands[i];
        char label[96];
        if (c->flags & CLI_HIDDEN)
            continue;
        if (noun && (strncmp(c->words, noun, len) != 0 || (c->words[len] && c->words[len] != ' ')))
            continue;
        if (c->shortcut)
            snprintf(label, sizeof(label), "%s (%s)", c->words, c->shortcut);
        else
            snprintf(label, sizeof(label), "%s", c->words);
        put_row(out, label, c->help);
    }
}

static void help_all(FILE *out)
{
    fputs("Usage: sallyctl [OPTION...] COMMAND [WORD...] [OPTION...]\n\n"
          "See and steer Sallyport: who is connected to what, and who may be.\n\nCommands:\n",
          out);
    help_list(out, NULL);
    fputs("\nOptions of every command:\n", out);
    for (size_t i = 0; cli_option_at(NULL, i); i++)
        put_option(out, cli_option_at(NULL, i));
    fputs("\nThe words of a command come in order; options may stand anywhere.\n"
          "Exit: 0 done, 1 failed, 2 usage, 3 some ids failed, 4 not permitted, 5 daemon not "
          "reachable.\nMore: sallyctl help COMMAND, man sallyctl\n",
          out);
}

void cli_help(void *stream, const struct cli_command *command, const char *noun)
{
    FILE *out = stream;
    bool is_noun = false;

    for (size_t i = 0; noun && i < cli_command_count; i++)
        is_noun = is_noun || (strncmp(cli_commands[i].words, noun, strlen(noun)) == 0 &&
                              cli_commands[i].words[strlen(noun)] == ' ');
    if (command) {
        help_command(out, command);
    } else if (is_noun) {
        fprintf(out, "Commands of %s:\n", noun);
        help_list(out, noun);
        fprintf(out, "\nMore: sallyctl help %s COMMAND\n", noun);
    } else {
        help_all(out);
    }
}

int cmd_help(struct cli *cli)
{
    const char *argv[8] = {"sallyctl"};
    struct cli_args args;
    char err[1024] = "";
    int argc = 1, rc;

    for (size_t i = 0; i < cli->args.operand_count && argc < 6; i++)
        argv[argc++] = cli->args.operands[i];
    argv[argc++] = "--help";
    rc = cli_args_parse(&args, argc, argv, err, sizeof(err));
    if (rc == 0) {
        cli_help(stdout, args.command, args.noun);
        rc = CLI_DONE;
    } else {
        rc = cli_usage(cli, "%s", err);
    }
    cli_args_finish(&args);
    return rc;
}
