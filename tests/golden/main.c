/* The program over golden.h.
 *
 *      golden FILE               0 when the script says what happens, else shows the lines and 1
 *      golden --rewrite FILE     writes down what happens now */
#include "golden/golden.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LINES_MAX = 2000 };

struct lines {
    struct bytes items[LINES_MAX];
    size_t count;
};

static void lines_split(const char *text, struct lines *lines)
{
    for (lines->count = 0; *text != '\0' && lines->count < LINES_MAX;) {
        size_t size = strcspn(text, "\n");
        lines->items[lines->count++] = bytes_of(text, size);
        text += size + (text[size] == '\n' ? 1 : 0);
    }
}

static void line_print(char sign, size_t number, struct bytes line)
{
    printf("%c %4zu %.*s\n", sign, number, (int)line.size, (const char *)line.data);
}

/* The fewest lines to take out and put in: common[i][j] is the longest common part of what is left
 * behind line i of the one and line j of the other. */
static void diff_print(const struct lines *want, const struct lines *got)
{
    size_t width = got->count + 1;
    uint16_t *common = mem_calloc((want->count + 1) * width, sizeof(common[0]));
    for (size_t i = want->count; i-- > 0;) {
        for (size_t j = got->count; j-- > 0;) {
            uint16_t down = common[(i + 1) * width + j];
            uint16_t right = common[i * width + j + 1];
            common[i * width + j] = bytes_equal(want->items[i], got->items[j])
                                        ? (uint16_t)(common[(i + 1) * width + j + 1] + 1)
                                    : down > right ? down
                                                   : right;
        }
    }
    size_t told = SIZE_MAX; /* the command whose lines differ is shown once */
    for (size_t i = 0, j = 0, command = 0; i < want->count || j < got->count;) {
        bool both = i < want->count && j < got->count;
        if (both && bytes_equal(want->items[i], got->items[j])) {
            command = bytes_has_prefix(want->items[i], bytes_of_string("> ")) ? i : command;
            i++;
            j++;
            continue;
        }
        if (told != command) {
            line_print(' ', command + 1, want->items[command]);
            told = command;
        }
        bool take =
            j == got->count || (both && common[(i + 1) * width + j] >= common[i * width + j + 1]);
        if (take) {
            line_print('-', i + 1, want->items[i]);
            i++;
        } else {
            line_print('+', j + 1, got->items[j]);
            j++;
        }
    }
    free(common);
}

static int file_read(const char *path, struct buf *out)
{
    FILE *file = fopen(path, "r");
    if (file == NULL) {
        perror(path);
        return -1;
    }
    char part[4096];
    for (size_t size; (size = fread(part, 1, sizeof(part), file)) > 0;) {
        buf_append(out, part, size);
    }
    int error = ferror(file);
    fclose(file);
    buf_append(out, "", 1);
    return error == 0 && strlen((const char *)out->data) + 1 == out->size ? 0 : -1;
}

static int file_write(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");
    if (file == NULL) {
        perror(path);
        return 1;
    }
    bool written = fputs(text, file) >= 0;
    written = fclose(file) == 0 && written;
    return written ? 0 : 1;
}

static int compare(const char *program, const char *path, const char *want, const char *got)
{
    if (strcmp(want, got) == 0) {
        return 0;
    }
    struct lines *sides = mem_calloc(2, sizeof(sides[0]));
    lines_split(want, &sides[0]);
    lines_split(got, &sides[1]);
    printf("%s: '-' is what the script says, '+' what happened\n", path);
    diff_print(&sides[0], &sides[1]);
    printf("When the new behaviour is the right one:\n    %s --rewrite %s\n", program, path);
    free(sides);
    return 1;
}

int main(int argc, char **argv)
{
    bool rewrite = argc == 3 && strcmp(argv[1], "--rewrite") == 0;
    if (argc != 2 && !rewrite) {
        fprintf(stderr, "usage: %s [--rewrite] FILE\n", argv[0]);
        return 2;
    }
    const char *path = argv[argc - 1];
    struct buf script;
    struct buf out;
    buf_init(&script);
    if (file_read(path, &script) != 0) {
        fprintf(stderr, "%s: cannot be read as text\n", path);
        buf_deinit(&script);
        return 2;
    }
    golden_run(path, (const char *)script.data, &out);
    int result = rewrite
                     ? file_write(path, (const char *)out.data)
                     : compare(argv[0], path, (const char *)script.data, (const char *)out.data);
    buf_deinit(&script);
    buf_deinit(&out);
    return result;
}
