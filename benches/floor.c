// The floor: what a run costs at the least. It does golock's exchanges and starts the command, and has no settings, no
// deadlines, no signals, no messages and no second try. benches/overhead records what golock sends and builds it in
// (LOOK, CONFIRM, RELEASE, and TOKEN and FENCE, which stand in them), so that Redis gets the same bytes from both.
//
//   floor PORT COMMAND [ARG]...     runs COMMAND under the lock, with the Redis on 127.0.0.1
//   floor PORT                      finds the lock held, and exits 200

#include <arpa/inet.h>
#include <netinet/in.h>
#include <spawn.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static char look[] = LOOK, confirm[] = CONFIRM, release[] = RELEASE, reply[512];
extern char **environ;

// Replaces each `from` in `text` by `value`, which is as long.
static void put(char *text, const char *from, const char *value) {
    for (size_t length = strlen(from); (text = strstr(text, from)); text += length) memcpy(text, value, length);
}

static int reach(int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(fd, (struct sockaddr *)&address, sizeof address)) exit(201);
    return fd;
}

// Redis writes all replies to a request at once.
static void ask(int fd, const char *request, size_t length) {
    if (write(fd, request, length) < 0 || read(fd, reply, sizeof reply - 1) <= 0) exit(201);
}

int main(int argc, char **argv) {
    char token[] = TOKEN, fence[] = FENCE;
    uint64_t number;
    if (argc < 2 || getrandom(&number, sizeof number, 0) < 0) return 201;
    for (size_t digit = sizeof token - 1; digit-- > 1; number /= 10) token[digit] = '0' + number % 10;
    put(look, TOKEN, token);
    int port = atoi(argv[1]), fd = reach(port);
    ask(fd, look, sizeof look - 1);
    if (!strstr(reply, token)) return 200;
    put(confirm, TOKEN, token);
    ask(fd, confirm, sizeof confirm - 1);
    close(fd);

    // The reply is the token, a space, and the fence.
    char *said = strstr(reply, token);
    if (!said || !argv[2]) return 201;
    memcpy(fence, said + sizeof token, sizeof fence - 1);
    put(release, TOKEN, token);
    put(release, FENCE, fence);
    pid_t job;
    int status;
    if (posix_spawn(&job, argv[2], NULL, NULL, argv + 2, environ) || waitpid(job, &status, 0) < 0) return 201;
    ask(reach(port), release, sizeof release - 1);
    return WEXITSTATUS(status);
}
