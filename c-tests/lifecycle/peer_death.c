/*
 * The peer's process is killed at each phase: while it only listens, with a request queued, just
 * connected, idle with receives pending, in the middle of messages, in the middle of RDMA. The
 * survivor hears of it promptly, everything pending ends, the socket can be closed, and new
 * connections work.
 * req: WSD-08 WSD-11
 */
#include <string.h>

#include "pair.h"

enum { PENDING = 8, LENGTH = 1000, LARGE = 8 << 20 };

/* What the child tells the parent. */
struct report {
    union address address;
    unsigned char descriptor[DESCRIPTOR_ROOM];
    DWORD descriptor_length;
};

/* ---- the child: a listener that is going to die ---- */

static void sleep_for_ever(void)
{
    for (;;)
        sleep_ms(1000);
}

/* Receives for ever and sends in return. */
static void chatter(struct endpoint *self)
{
    struct area in = area_open(self->s, LENGTH, MEM_WRITE);
    struct area out = area_open(self->s, LENGTH, MEM_READ);

    for (;;) {
        struct op recv, send;

        op_init(&recv, POLL);
        CHECK_POSTED(san_recv_bytes(self->s, in.base, LENGTH, &recv));
        CHECK_OK(op_wait(self->s, &recv));
        op_init(&send, POLL);
        CHECK_POSTED(san_send_bytes(self->s, out.base, LENGTH, &send));
        CHECK_OK(op_wait(self->s, &send));
    }
}

static void child(const char *role)
{
    struct endpoint listener, self;
    struct report report;
    struct window window;

    endpoint_listen(&listener, AF_INET, 8);
    memset(&report, 0, sizeof report);
    report.address = listener.local;
    parent_tell(&report, sizeof report);
    if (strcmp(role, "listening") == 0)
        sleep_for_ever();
    endpoint_await_request(&listener);
    if (strcmp(role, "queued") == 0) {
        parent_tell(&report, sizeof report);
        sleep_for_ever();
    }
    endpoint_accept(&listener, &self);
    window = window_open(self.s, LARGE, MEM_READWRITE);
    memcpy(report.descriptor, window.descriptor, sizeof report.descriptor);
    report.descriptor_length = window.descriptor_length;
    parent_tell(&report, sizeof report);
    if (strcmp(role, "chatting") == 0)
        chatter(&self);
    sleep_for_ever();
}

/* ---- the parent ---- */

static struct child other;
static struct report report;
static struct endpoint client;

/* Up to the phase in which the child has accepted. */
static void begin(const char *role)
{
    int begun;

    phase("starting a child for the role %s", role);
    child_start(&other, role);
    child_hear(&other, &report, sizeof report);
    endpoint_open(&client, AF_INET);
    begun = endpoint_connect(&client, &report.address);
    CHECK_WSA_IN(begun, 0, WSAEWOULDBLOCK);
    child_hear(&other, &report, sizeof report);
    if (strcmp(role, "queued") == 0)
        return;
    CHECK_OK(endpoint_connected(&client, begun));
}

static void listening(void)
{
    int code;

    phase("a listener that dies");
    child_start(&other, "listening");
    child_hear(&other, &report, sizeof report);
    child_kill(&other);
    endpoint_open(&client, AF_INET);
    code = endpoint_connected(&client, endpoint_connect(&client, &report.address));
    CHECK_WSA(code, WSAECONNRESET);
    endpoint_close(&client);
}

static void queued(void)
{
    begin("queued");
    phase("a listener that dies with a request queued");
    CHECK(!event_is_set(client.event));
    child_kill(&other);
    CHECK_WSA_IN(endpoint_connected(&client, WSAEWOULDBLOCK), WSAECONNRESET, WSAECONNREFUSED,
                 WSAETIMEDOUT);
    endpoint_close(&client);
}

static void idle(enum how how)
{
    struct op recvs[PENDING], late;
    struct area in;

    begin("idle");
    in = area_open(client.s, PENDING * LENGTH, MEM_READWRITE);
    for (int i = 0; i < PENDING; i++) {
        op_init(&recvs[i], how);
        CHECK_WSA(san_recv_bytes(client.s, in.base + i * LENGTH, LENGTH, &recvs[i]),
                  WSA_IO_PENDING);
    }
    phase("a peer that dies with %s receives pending here", how == POLL ? "silent" : "notified");
    child_kill(&other);
    for (int i = 0; i < PENDING; i++) {
        CHECK_WSA(op_wait(client.s, &recvs[i]), WSAECONNRESET);
        CHECK_EQ(recvs[i].bytes, 0);
    }
    op_init(&late, NOTIFY);
    CHECK_WSA(san_recv_bytes(client.s, in.base, LENGTH, &late), WSAECONNRESET);
    op_init(&late, NOTIFY);
    CHECK_WSA(san_send_bytes(client.s, in.base, LENGTH, &late), WSAECONNRESET);
    area_close(&in);
    endpoint_close(&client);
}

static void chatting(unsigned die_after)
{
    struct area in, out;
    int code = 0;

    begin("chatting");
    in = area_open(client.s, LENGTH, MEM_WRITE);
    out = area_open(client.s, LENGTH, MEM_READ);
    for (unsigned turn = 0; code == 0; turn++) {
        struct op recv, send;

        phase("turn %u, the peer dies after %u", turn, die_after);
        if (turn == die_after)
            child_kill(&other);
        op_init(&recv, turn % 2 ? POLL : NOTIFY);
        code = san_recv_bytes(client.s, in.base, LENGTH, &recv);
        if (code == WSA_IO_PENDING || code == 0) {
            op_init(&send, turn % 2 ? NOTIFY : POLL);
            code = san_send_bytes(client.s, out.base, LENGTH, &send);
            if (code == WSA_IO_PENDING || code == 0)
                CHECK_WSA_IN(op_wait(client.s, &send), 0, WSAECONNRESET, WSAECONNABORTED);
            else
                CHECK_WSA_IN(code, WSAECONNRESET, WSAECONNABORTED);
            code = op_wait(client.s, &recv);
        }
        CHECK(turn <= die_after + 1);
    }
    CHECK_WSA_IN(code, WSAECONNRESET, WSAECONNABORTED);
    endpoint_close(&client);
    area_forget(&in);
    area_forget(&out);
}

static void in_rdma(bool write, unsigned die_after)
{
    struct area area;
    int code = 0;

    begin("idle");
    area = area_open(client.s, LARGE, MEM_READWRITE);
    for (unsigned turn = 0; code == 0; turn++) {
        WSABUFEX piece = {LARGE, (char *)area.base, area.handle};
        struct op op;

        phase("%s %u, the peer dies after %u", write ? "write" : "read", turn, die_after);
        if (turn > die_after + 1)
            sleep_ms(1); /* it is dead; the survivor must notice by itself */
        if (turn > die_after + WAIT_SECONDS * 100u)
            fail("RDMA with a dead process still succeeds");
        op_init(&op, turn % 2 ? POLL : NOTIFY);
        code = write ? san_rdma_write(client.s, &piece, 1, report.descriptor,
                                      report.descriptor_length, 0, &op)
                     : san_rdma_read(client.s, &piece, 1, report.descriptor,
                                     report.descriptor_length, 0, &op);
        if (turn == die_after)
            child_kill(&other);
        if (code == WSA_IO_PENDING || code == 0)
            code = op_wait(client.s, &op);
    }
    CHECK_WSA_IN(code, WSAECONNRESET, WSAECONNABORTED);
    endpoint_close(&client);
    area_forget(&area);
}

int main(int argc, char **argv)
{
    const char *role = child_role(argc, argv);
    struct pair pair;

    case_begin(role != NULL ? "peer_death (child)" : "peer_death");
    provider_start();
    if (role != NULL) {
        child(role);
        return 0;
    }
    listening();
    queued();
    idle(POLL);
    idle(NOTIFY);
    for (unsigned turns = 0; turns < 4; turns++)
        chatting(turns * 3);
    for (unsigned turns = 0; turns < 3; turns++) {
        in_rdma(true, turns);
        if (san.rdma_read != NULL)
            in_rdma(false, turns);
    }
    phase("after all that");
    pair_open(&pair, AF_INET);
    pair_exchange(&pair);
    pair_close(&pair);
    provider_stop();
    return 0;
}
