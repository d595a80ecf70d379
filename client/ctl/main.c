/* shardctl: the table of commands, and finding the command's name among the common flags. Thread:
 * main. */
#include "client/ctl/ctl.h"

#include "base/log.h"
#include <signal.h>
#include <stdlib.h>
#include <string.h>

struct command {
    const char *name;
    const char *summary;
    ctl_run_fn run;
};

static const struct command commands[] = {
    {"put", "set a key", ctl_put},
    {"get", "print a key's value", ctl_get},
    {"append", "add to the end of a key's value", ctl_append},
    {"delete", "remove a key", ctl_delete},
    {"cas", "set a key when its version is the expected one", ctl_cas},
    {"load", "put many rows from JSON lines", ctl_load},
    {"export", "print all rows as JSON lines", ctl_export},
    {"join", "add groups; shards move to them", ctl_join},
    {"leave", "remove groups; their shards move away", ctl_leave},
    {"move", "give one shard to a group", ctl_move},
    {"query", "show a config: which group owns which shard", ctl_query_command},
    {"wait", "wait until no shard is moving", ctl_wait},
    {"status", "show controllers, groups, replicas and moving shards", ctl_status},
    {"health", "ask one server whether it is well", ctl_health},
    {"member", "add, promote, remove or list replicas of a group", ctl_member},
    {"transfer", "hand a group's leadership to another replica", ctl_transfer},
};
enum { COMMAND_COUNT = sizeof commands / sizeof commands[0] };

static void print_help(FILE *out)
{
    fprintf(out, "shardctl %s: the command line of shardkv\n\n", SHARDKV_VERSION);
    fprintf(out, "Usage: shardctl [FLAGS] COMMAND ...\n\nCommands:\n");
    for (size_t i = 0; i < COMMAND_COUNT; i++) {
        fprintf(out, "  %-9s %s\n", commands[i].name, commands[i].summary);
    }
    fprintf(out, "\nshardctl COMMAND --help tells all of a command. Every command takes\n"
                 "  --controllers=ADDR,...  the controllers (environment SHARDKV_CONTROLLERS)\n"
                 "  --cluster=NAME          checked by every server (environment SHARDKV_CLUSTER)\n"
                 "  --timeout=5s            how long to try\n"
                 "  --json                  output for programs\n"
                 "  --tls-ca, --tls-cert, --tls-key=FILE\n"
                 "\nExit codes:\n"
                 "  0  done\n"
                 "  1  not done: refused, surely not executed; the reason is on standard error\n"
                 "  2  the command line is wrong\n"
                 "  3  outcome unknown: the deadline passed while it may have been executed\n"
                 "  4  there is no such key, group or config\n"
                 "  5  the key's version is not the expected one\n"
                 "  6  no server could be reached, or none leads; surely not executed\n"
                 "  7  the change is made, but shards were still moving when waiting ended\n");
}

static const struct command *find_command(const char *name)
{
    for (size_t i = 0; i < COMMAND_COUNT; i++) {
        if (strcmp(commands[i].name, name) == 0) {
            return &commands[i];
        }
    }
    if (strcmp(name, "del") == 0 || strcmp(name, "rm") == 0) {
        return find_command("delete");
    }
    return NULL;
}

/* Where the command's name stands in argv: the first word that is no flag and no flag's value; 0:
 * nowhere. */
static int find_name(int argc, char **argv)
{
    struct ctl unused;
    struct flag rows[CTL_COMMON_FLAG_COUNT];
    ctl_common_flags(&unused, rows);
    for (int i = 1; i < argc; i++) {
        const char *argument = argv[i];
        if (strncmp(argument, "--", 2) != 0) {
            return i;
        }
        for (size_t k = 0; k < CTL_COMMON_FLAG_COUNT; k++) {
            if (rows[k].kind != FLAG_BOOL && strcmp(argument + 2, rows[k].name) == 0) {
                i++; /* its value */
                break;
            }
        }
    }
    return 0;
}

static int complain_command(const char *name)
{
    if (name == NULL) {
        fprintf(stderr, "error: no command; shardctl --help lists them\n");
        return CTL_USAGE;
    }
    fprintf(stderr, "error: there is no command '%s'; shardctl --help lists them\n", name);
    return CTL_USAGE;
}

int main(int argc, char **argv)
{
    (void)signal(SIGPIPE, SIG_IGN); /* a closed pipe is a failed write, and that is looked at */
    log_set_level(LOG_ERROR);
    int at = find_name(argc, argv);
    const char *name = at > 0 ? argv[at] : NULL;
    bool help = false;
    for (int i = 1; i < argc && (at == 0 || i < at); i++) {
        if (strcmp(argv[i], "--version") == 0) {
            printf("shardctl %s\n", SHARDKV_VERSION);
            return CTL_DONE;
        }
        help = help || strcmp(argv[i], "--help") == 0;
    }
    if (name != NULL && (strcmp(name, "-h") == 0 || strcmp(name, "help") == 0)) {
        name = strcmp(name, "help") == 0 && at + 1 < argc ? argv[at + 1] : NULL;
        help = true;
    }
    if (help && name == NULL) {
        print_help(stdout);
        return CTL_DONE;
    }
    const struct command *command = name != NULL ? find_command(name) : NULL;
    if (command == NULL) {
        return complain_command(name);
    }
    struct ctl ctl = {
        .command = command->name, .timeout_ns = 5 * NS_PER_S, .clock = clock_system()};
    if (help) {
        char flag[] = "--help";
        char *help_argv[] = {argv[0], flag, NULL};
        return command->run(&ctl, 2, help_argv);
    }
    /* The rest, without the name: flags may stand on both sides of it. */
    char **rest = mem_calloc((size_t)argc + 1, sizeof(char *));
    int count = 0;
    for (int i = 0; i < argc; i++) {
        if (i != at) {
            rest[count++] = argv[i];
        }
    }
    int code = command->run(&ctl, count, rest);
    ctl_disconnect(&ctl);
    free(rest);
    if (fflush(stdout) != 0 && code == CTL_DONE) {
        fprintf(stderr, "error: cannot write the output\n");
        code = CTL_NOT_DONE;
    }
    return code;
}
