/*
 * A process that ends without closing or cleaning up is a normal case: its peer's receives end with
 * WSAECONNRESET, after the messages that it had sent.
 * req: WSD-11
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "pair.h"

enum { MESSAGES = 5, LENGTH = 100 };

static void child(const char *role)
{
    struct endpoint self;
    union address address;
    struct area out;
    char go;
    int begun;

    parent_hear(&address, sizeof address);
    endpoint_open(&self, AF_INET);
    begun = endpoint_connect(&self, &address);
    CHECK_OK(endpoint_connected(&self, begun));
    out = area_open(self.s, MESSAGES * LENGTH, MEM_READ);
    parent_hear(&go, 1); /* the receives are posted */
    for (uint32_t i = 0; i < MESSAGES; i++) {
        struct op send;

        pattern_fill(out.base + i * LENGTH, LENGTH, i);
        op_init(&send, POLL);
        CHECK_POSTED(san_send_bytes(self.s, out.base + i * LENGTH, LENGTH, &send));
        CHECK_OK(op_wait(self.s, &send));
    }
    if (strcmp(role, "exit") == 0)
        exit(0); /* with its exit handlers */
    if (strcmp(role, "cleanup") == 0) {
        CHECK_OK(san_cleanup());
        exit(0);
    }
    _exit(0);
}

int main(int argc, char **argv)
{
    static const char *const roles[] = {"exit", "_exit", "cleanup"};
    const char *role = child_role(argc, argv);
    struct endpoint listener, self;
    const char go = 1;

    case_begin(role != NULL ? "exit_without_cleanup (child)" : "exit_without_cleanup");
    provider_start();
    if (role != NULL) {
        child(role);
        return 1;
    }
    endpoint_listen(&listener, AF_INET, 4);
    for (int i = 0; i < 3; i++) {
        struct op recvs[MESSAGES + 1];
        struct child other;
        struct area in;

        phase("a child that ends by %s", roles[i]);
        child_start(&other, roles[i]);
        child_tell(&other, &listener.local, sizeof listener.local);
        endpoint_await_request(&listener);
        endpoint_accept(&listener, &self);
        in = area_open(self.s, (MESSAGES + 1) * LENGTH, MEM_WRITE);
        for (int k = 0; k <= MESSAGES; k++) {
            op_init(&recvs[k], k % 2 ? POLL : NOTIFY);
            CHECK_POSTED(san_recv_bytes(self.s, in.base + k * LENGTH, LENGTH, &recvs[k]));
        }
        child_tell(&other, &go, 1);
        for (int k = 0; k < MESSAGES; k++) {
            CHECK_OK(op_wait(self.s, &recvs[k]));
            pattern_check(in.base + k * LENGTH, LENGTH, (uint32_t)k, "a message");
        }
        CHECK_WSA(op_wait(self.s, &recvs[MESSAGES]), WSAECONNRESET);
        child_finish(&other);
        endpoint_close(&self);
        area_forget(&in);
    }
    endpoint_close(&listener);
    provider_stop();
    return 0;
}
