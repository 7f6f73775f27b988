// Times commands: starts one when the last one has ended, and says how long each took.
//
//   stopwatch PLAN <ORDER
//
// Each line of the file PLAN is a command: its exit code, its environment, "--" and its words, separated by tabs. ORDER
// is a list of line numbers, from 0. Prints a line for each run: its line number, and the nanoseconds from before
// posix_spawn(3) to after wait4(2). If a command ends with another code, prints only its line number, and fails.

#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { COMMANDS = 1000, WORDS = 200 };
static struct { int code; char **environment, **words; } plan[COMMANDS];

static long long now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static int read_plan(const char *path) {
    FILE *file = fopen(path, "r");
    int count = 0;
    size_t size = 0;
    for (char *line = NULL; file && count < COMMANDS && getline(&line, &size, file) > 0; line = NULL, size = 0) {
        char **fields = calloc(WORDS + 2, sizeof *fields), *field = strtok(line, "\t\n");
        plan[count].code = atoi(field);
        plan[count].environment = fields;
        for (int at = 0; at < WORDS && (field = strtok(NULL, "\t\n")); at++) {
            fields[at] = field;
            if (strcmp(field, "--") || plan[count].words) continue;
            fields[at] = NULL;
            plan[count].words = fields + at + 1;
        }
        count++;
    }
    return count;
}

int main(int argc, char **argv) {
    int commands = argc == 2 ? read_plan(argv[1]) : 0, runs = 0, size = 0, *order = NULL, devnull;
    for (int number; scanf("%d", &number) == 1 && number >= 0 && number < commands; order[runs++] = number)
        if (runs == size) order = realloc(order, (size = 2 * size + 1000) * sizeof *order);
    long long *took = calloc(runs + 1, sizeof *took);
    posix_spawn_file_actions_t files;
    posix_spawn_file_actions_init(&files);
    if ((devnull = open("/dev/null", O_RDWR | O_CLOEXEC)) < 0) return 1;
    for (int fd = 0; fd < 3; fd++) posix_spawn_file_actions_adddup2(&files, devnull, fd);
    for (int run = 0; run < runs; run++) {
        char **words = plan[order[run]].words;
        int status = -1;
        pid_t child;
        long long start = now();
        if (posix_spawn(&child, words[0], &files, NULL, words, plan[order[run]].environment) == 0)
            wait4(child, &status, 0, NULL);
        took[run] = now() - start;
        if (!WIFEXITED(status) || WEXITSTATUS(status) != plan[order[run]].code) {
            printf("%d\n", order[run]);
            return 1;
        }
    }
    for (int run = 0; run < runs; run++) printf("%d %lld\n", order[run], took[run]);
    return runs == 0;
}
