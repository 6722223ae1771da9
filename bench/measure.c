// Measures commands in turns: one run of each, then the next of each, so that what disturbs the machine
// for a while disturbs all of them.
//
//   measure RUNS LOG < rows          (each row: NAME \t IN-FLIGHT \t TOTAL \t PREPARE \t COMMAND)
//
// A run is TOTAL commands of which IN-FLIGHT run at a time (1 and 1 for a plain one). COMMAND is split at
// spaces and executed without a shell, after leading NAME=value words went to its environment; {} in it is
// a number that no other command has. PREPARE is a line for the shell, run before and not measured.
//
// Out come NAME \t MEDIAN \t LOWEST \t HIGHEST in seconds. A first round is not counted. A command that
// fails loses its row, with a word on standard error; what it wrote is in LOG.

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MAX_ROWS = 64, MAX_WORDS = 256 };

struct row {
    char *name, *prepare, *command;
    int in_flight, total, failed;
    double *seconds;
};

static const char *log_path;
static unsigned long number;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static char *replaced(const char *word) {
    char *text = NULL;
    const char *mark = strstr(word, "{}");
    if (!mark) return strdup(word);
    if (asprintf(&text, "%.*s%d-%lu%s", (int)(mark - word), word, (int)getpid(), number, mark + 2) < 0) exit(2);
    return text;
}

static pid_t start(const char *command) {
    char *copy = strdup(command), *words[MAX_WORDS + 1], *save = NULL;
    int count = 0;
    number++;
    for (char *word = strtok_r(copy, " ", &save); word && count < MAX_WORDS; word = strtok_r(NULL, " ", &save))
        words[count++] = replaced(word);
    words[count] = NULL;
    pid_t child = fork();
    if (child == 0) {
        int log = open(log_path, O_WRONLY | O_CREAT | O_TRUNC, 0600), nothing = open("/dev/null", O_RDONLY);
        dup2(nothing, 0);
        dup2(log, 1);
        dup2(log, 2);
        char **program = words;
        while (*program && strchr(*program, '=') && **program != '/') putenv(*program++);
        if (*program) execvp(*program, program);
        _exit(127);
    }
    for (int i = 0; i < count; i++) free(words[i]);
    free(copy);
    return child;
}

// The seconds that a run took; negative if a command failed.
static double run(struct row *row) {
    if (*row->prepare) {
        // What it prints is nobody's row.
        char *line = NULL;
        if (asprintf(&line, "{ %s; } >%s 2>&1", row->prepare, log_path) < 0) return -1;
        int status = system(line);
        free(line);
        if (status != 0) return -1;
    }
    double begin = now();
    int started = 0, ended = 0, bad = 0;
    while (ended < row->total) {
        while (started < row->total && started - ended < row->in_flight) {
            if (start(row->command) < 0) return -1;
            started++;
        }
        int status = 0;
        if (wait(&status) < 0) return -1;
        ended++;
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) bad = 1;
    }
    return bad ? -1 : now() - begin;
}

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

int main(int argc, char **argv) {
    if (argc != 3 || atoi(argv[1]) < 1) {
        fprintf(stderr, "usage: measure RUNS LOG < rows\n");
        return 2;
    }
    int runs = atoi(argv[1]), count = 0;
    log_path = argv[2];
    struct row rows[MAX_ROWS];
    char *line = NULL;
    size_t size = 0;
    while (count < MAX_ROWS && getline(&line, &size, stdin) > 0) {
        line[strcspn(line, "\n")] = 0;
        char *rest = line, *field[5];
        for (int i = 0; i < 5; i++) field[i] = strsep(&rest, "\t");
        if (!field[4]) {
            fprintf(stderr, "measure: not five fields: %s\n", line);
            return 2;
        }
        rows[count++] = (struct row){.name = strdup(field[0]), .in_flight = atoi(field[1]), .total = atoi(field[2]),
            .prepare = strdup(field[3]), .command = strdup(field[4]), .seconds = calloc((size_t)runs, sizeof(double))};
    }
    for (int round = -1; round < runs; round++)
        for (int i = 0; i < count; i++) {
            if (rows[i].failed) continue;
            double seconds = run(&rows[i]);
            if (seconds < 0) {
                fprintf(stderr, "without %s: it failed; see what it wrote:\n", rows[i].name);
                rows[i].failed = 1;
                FILE *log = fopen(log_path, "r");
                char said[400];
                while (log && fgets(said, sizeof said, log)) fprintf(stderr, "  | %s", said);
                if (log) fclose(log);
            } else if (round >= 0)
                rows[i].seconds[round] = seconds;
        }
    for (int i = 0; i < count; i++) {
        if (rows[i].failed) continue;
        double *s = rows[i].seconds;
        qsort(s, (size_t)runs, sizeof *s, by_size);
        double median = runs % 2 ? s[runs / 2] : (s[runs / 2 - 1] + s[runs / 2]) / 2;
        printf("%s\t%.6f\t%.6f\t%.6f\n", rows[i].name, median, s[0], s[runs - 1]);
    }
    return 0;
}
