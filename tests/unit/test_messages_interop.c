/* Our bytes through another implementation and back: every message is decoded to text by protoc,
 * encoded again by protoc from that text, and must come back as the same message.
 *
 * Usage: test_messages_interop PROTOC PROTO-DIRECTORY */
#include "unit/proto_test.h"

#include "unit/message_cases.h"
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>

static const char *protoc_path;
static const char *proto_directory;

static void write_all(int file, struct bytes bytes)
{
    size_t done = 0;
    while (done < bytes.size) {
        ssize_t count = write(file, bytes.data + done, bytes.size - done);
        assert_true(count > 0 || (count < 0 && errno == EINTR));
        done += count > 0 ? (size_t)count : 0;
    }
}

static void read_all(int file, struct buf *out)
{
    for (;;) {
        ssize_t count = read(file, buf_reserve(out, 4096), 4096);
        if (count == 0) {
            return;
        }
        assert_true(count > 0 || errno == EINTR);
        out->size += count > 0 ? (size_t)count : 0;
    }
}

/* Runs `protoc <verb>=<type>` with `input` on its standard input. What is written fits a pipe's
 * buffer, so writing all of it before reading cannot block. */
static void run_protoc(const char *verb, const struct message_case *message, struct bytes input,
                       struct buf *out)
{
    assert_true(input.size < 60 * 1024);
    char verb_text[128];
    char path_text[512];
    (void)snprintf(verb_text, sizeof(verb_text), "%s=%s", verb, message->type);
    (void)snprintf(path_text, sizeof(path_text), "--proto_path=%s", proto_directory);
    int to_child[2];
    int from_child[2];
    assert_int_equal(pipe(to_child), 0);
    assert_int_equal(pipe(from_child), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        alarm(20);
        dup2(to_child[0], STDIN_FILENO);
        dup2(from_child[1], STDOUT_FILENO);
        close(to_child[0]);
        close(to_child[1]);
        close(from_child[0]);
        close(from_child[1]);
        execl(protoc_path, protoc_path, verb_text, path_text, message->proto, (char *)NULL);
        _exit(127);
    }
    close(to_child[0]);
    close(from_child[1]);
    write_all(to_child[1], input);
    close(to_child[1]);
    buf_clear(out);
    read_all(from_child[0], out);
    close(from_child[0]);
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        fail_msg("%s %s failed", protoc_path, verb_text);
    }
}

static void draw(const struct message_case *message, uint64_t seed, struct buf *out)
{
    struct rng rng;
    rng_init(&rng, seed);
    void *value = mem_calloc(1, message->size);
    message->fill(value, &rng);
    message->encode(value, out);
    if (message->release != NULL) {
        message->release(value);
    }
    free(value);
}

static void test_messages_each_survives_protoc(void **state)
{
    (void)state;
    struct buf ours;
    struct buf text;
    struct buf theirs;
    struct buf again;
    buf_init(&ours);
    buf_init(&text);
    buf_init(&theirs);
    buf_init(&again);
    for (size_t i = 0; i < message_case_count; i++) {
        const struct message_case *message = &message_cases[i];
        buf_clear(&ours);
        buf_clear(&again);
        draw(message, 7, &ours);
        run_protoc("--decode", message, buf_view(&ours), &text);
        run_protoc("--encode", message, buf_view(&text), &theirs);
        void *value = mem_calloc(1, message->size);
        assert_int_equal(message->decode(buf_view(&theirs), value), ERR_OK);
        message->encode(value, &again);
        if (message->deinit != NULL) {
            message->deinit(value);
        }
        free(value);
        assert_bytes_equal(buf_view(&again), buf_view(&ours));
    }
    buf_deinit(&ours);
    buf_deinit(&text);
    buf_deinit(&theirs);
    buf_deinit(&again);
}

static void test_put_request_of_protoc_text_has_its_fields(void **state)
{
    (void)state;
    for (size_t i = 0; i < message_case_count; i++) {
        const struct message_case *message = &message_cases[i];
        if (strcmp(message->name, "put_request") != 0) {
            continue;
        }
        struct buf bytes;
        buf_init(&bytes);
        run_protoc("--encode", message,
                   bytes_of_string("header { cluster_id: 1 client_id: 2 sequence: 3 acked_below: 4 "
                                   "age_ms: 5 config_number: 6 } key: 'k' value: 'v'"),
                   &bytes);
        static const uint8_t expected[] = {
            0x0a, 26, 9, 1,  0, 0,  0, 0,    0, 0,    0, 0x11, 2, 0,   0,    0, 0,
            0,    0,  0, 24, 3, 32, 4, 0x28, 5, 0x30, 6, 0x12, 1, 'k', 0x1a, 1, 'v',
        };
        assert_bytes_equal(buf_view(&bytes), bytes_of(expected, sizeof(expected)));
        buf_deinit(&bytes);
        return;
    }
    fail_msg("no case named put_request");
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        (void)fprintf(stderr, "usage: %s PROTOC PROTO-DIRECTORY\n", argv[0]);
        return 2;
    }
    protoc_path = argv[1];
    proto_directory = argv[2];
    signal(SIGPIPE, SIG_IGN); /* a protoc that dies early is found by its status */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_messages_each_survives_protoc),
        cmocka_unit_test(test_put_request_of_protoc_text_has_its_fields),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
