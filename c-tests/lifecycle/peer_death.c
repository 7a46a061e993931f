/*
 * The peer's process is killed at each phase: while it only listens, with a request queued at either
 * end, idle with receives pending, in the middle of messages, in the middle of RDMA of either end.
 * Once connected it is now the acceptor that dies, now the connector. The survivor hears of it
 * promptly, everything pending ends, the socket can be closed, nothing stays pinned, and new
 * connections work.
 * req: WSD-08 WSD-11
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pair.h"

enum { PENDING = 8, LENGTH = 1000, LARGE = 8 << 20 };

/* Who dies. */
enum victim { ACCEPTOR, CONNECTOR };

/* What the two tell each other. */
struct report {
    union address address;
    unsigned char descriptor[DESCRIPTOR_ROOM];
    DWORD descriptor_length;
};

static const char *const prefixes[] = {[ACCEPTOR] = "acceptor-", [CONNECTOR] = "connector-"};

static void describe(struct report *report, const struct window *window)
{
    memcpy(report->descriptor, window->descriptor, sizeof report->descriptor);
    report->descriptor_length = window->descriptor_length;
}

/* The code of a whole RDMA operation between `area` and what `report` describes. */
static int rdma(struct area *area, const struct report *report, bool write, struct op *op)
{
    WSABUFEX piece = {LARGE, (char *)area->base, area->handle};

    return write ? san_rdma_write(area->s, &piece, 1, report->descriptor, report->descriptor_length,
                                  0, op)
                 : san_rdma_read(area->s, &piece, 1, report->descriptor, report->descriptor_length,
                                 0, op);
}

/* ---- the child, which is going to die ---- */

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

/* Writes into the first process's memory for ever, or reads it. */
static void mover(struct endpoint *self, bool write)
{
    struct area area = area_open(self->s, LARGE, MEM_READWRITE);
    struct report theirs;

    parent_hear(&theirs, sizeof theirs);
    for (unsigned turn = 0;; turn++) {
        struct op op;

        op_init(&op, turn % 2 ? POLL : NOTIFY);
        CHECK_POSTED(rdma(&area, &theirs, write, &op));
        CHECK_OK(op_wait(self->s, &op));
        if (turn == 0)
            parent_tell(&theirs, sizeof theirs);
    }
}

static void as_acceptor(const char *role, struct endpoint *self)
{
    static struct endpoint listener;
    struct report report;

    memset(&report, 0, sizeof report);
    endpoint_listen(&listener, AF_INET, 8);
    report.address = listener.local;
    parent_tell(&report, sizeof report);
    if (strcmp(role, "listening") == 0)
        sleep_for_ever();
    endpoint_await_request(&listener);
    if (strcmp(role, "queued") == 0) {
        parent_tell(&report, sizeof report);
        sleep_for_ever();
    }
    endpoint_accept(&listener, self);
}

static void as_connector(const char *role, struct endpoint *self)
{
    struct report theirs;
    int begun;

    parent_hear(&theirs, sizeof theirs);
    endpoint_open(self, AF_INET);
    begun = endpoint_connect(self, &theirs.address);
    CHECK_WSA_IN(begun, 0, WSAEWOULDBLOCK);
    if (strcmp(role, "queued") == 0)
        sleep_for_ever();
    CHECK_OK(endpoint_connected(self, begun));
}

static void child(const char *role)
{
    static struct endpoint self;
    struct report report;
    struct window window;

    if (strncmp(role, prefixes[ACCEPTOR], strlen(prefixes[ACCEPTOR])) == 0) {
        role += strlen(prefixes[ACCEPTOR]);
        as_acceptor(role, &self);
    } else {
        role += strlen(prefixes[CONNECTOR]);
        as_connector(role, &self);
    }
    memset(&report, 0, sizeof report);
    window = window_open(self.s, LARGE, MEM_READWRITE);
    describe(&report, &window);
    parent_tell(&report, sizeof report);
    if (strcmp(role, "chatting") == 0)
        chatter(&self);
    if (strcmp(role, "writing") == 0)
        mover(&self, true);
    if (strcmp(role, "reading") == 0)
        mover(&self, false);
    sleep_for_ever();
}

/* ---- the survivor ---- */

static struct child other;
static struct report report;
/* Stays open for children that connect. */
static struct endpoint listener;
/* The survivor's end of the connection, whichever it is. */
static struct endpoint self;

/* The most that was pinned while a connection was there. */
static unsigned long most_pinned;

/* KiB of this process that a device may reach; nothing of it where there is no device. */
static unsigned long pinned(void)
{
    FILE *status = fopen("/proc/self/status", "r");
    unsigned long kilobytes = 0;
    char line[200];

    CHECK(status != NULL);
    while (fgets(line, sizeof line, status) != NULL)
        sscanf(line, "VmPin: %lu", &kilobytes);
    fclose(status);
    return kilobytes;
}

static void start(enum victim victim, const char *what)
{
    char role[40];

    snprintf(role, sizeof role, "%s%s", prefixes[victim], what);
    phase("starting a child for the role %s", role);
    child_start(&other, role);
    if (victim == ACCEPTOR) {
        child_hear(&other, &report, sizeof report);
    } else {
        memset(&report, 0, sizeof report);
        report.address = listener.local;
        child_tell(&other, &report, sizeof report);
    }
}

/* Up to the phase in which both are connected. */
static void begin(enum victim victim, const char *what)
{
    int begun;

    start(victim, what);
    if (victim == ACCEPTOR) {
        endpoint_open(&self, AF_INET);
        begun = endpoint_connect(&self, &report.address);
        CHECK_WSA_IN(begun, 0, WSAEWOULDBLOCK);
        CHECK_OK(endpoint_connected(&self, begun));
    } else {
        endpoint_await_request(&listener);
        endpoint_accept(&listener, &self);
    }
    child_hear(&other, &report, sizeof report);
    if (pinned() > most_pinned)
        most_pinned = pinned();
}

static void listening(void)
{
    int code;

    phase("a listener that dies");
    start(ACCEPTOR, "listening");
    child_kill(&other);
    endpoint_open(&self, AF_INET);
    code = endpoint_connected(&self, endpoint_connect(&self, &report.address));
    CHECK_WSA(code, WSAECONNRESET);
    endpoint_close(&self);
}

/* A request waits at a listener that dies. */
static void queued_there(void)
{
    int begun;

    start(ACCEPTOR, "queued");
    endpoint_open(&self, AF_INET);
    begun = endpoint_connect(&self, &report.address);
    CHECK_WSA(begun, WSAEWOULDBLOCK);
    child_hear(&other, &report, sizeof report);
    phase("a listener that dies with a request queued");
    CHECK(!event_is_set(self.event));
    child_kill(&other);
    CHECK_WSA_IN(endpoint_connected(&self, WSAEWOULDBLOCK), WSAECONNRESET, WSAECONNREFUSED,
                 WSAETIMEDOUT);
    endpoint_close(&self);
}

/* A request waits here and its connector dies. */
static void queued_here(void)
{
    int code;

    start(CONNECTOR, "queued");
    endpoint_await_request(&listener);
    phase("a connector that dies while its request is queued");
    child_kill(&other);
    code = endpoint_accept_if(&listener, &self, accept_always, 0);
    CHECK_WSA_IN(code, 0, WSAECONNRESET, WSAECONNABORTED, WSAEWOULDBLOCK);
    if (code == 0) {
        /* Accepted before the provider knew: then the connection tells. */
        struct area in = area_open(self.s, LENGTH, MEM_WRITE);
        struct op recv;

        op_init(&recv, NOTIFY);
        code = san_recv_bytes(self.s, in.base, LENGTH, &recv);
        CHECK_WSA(code == WSA_IO_PENDING ? op_wait(self.s, &recv) : code, WSAECONNRESET);
        area_close(&in);
        endpoint_close(&self);
    }
}

static void idle(enum victim victim, enum how how)
{
    struct op recvs[PENDING], late;
    struct area in;

    begin(victim, "idle");
    in = area_open(self.s, PENDING * LENGTH, MEM_READWRITE);
    for (int i = 0; i < PENDING; i++) {
        op_init(&recvs[i], how);
        CHECK_WSA(san_recv_bytes(self.s, in.base + i * LENGTH, LENGTH, &recvs[i]), WSA_IO_PENDING);
    }
    phase("a peer that dies with %s receives pending here", how == POLL ? "silent" : "notified");
    child_kill(&other);
    for (int i = 0; i < PENDING; i++) {
        CHECK_WSA(op_wait(self.s, &recvs[i]), WSAECONNRESET);
        CHECK_EQ(recvs[i].bytes, 0);
    }
    op_init(&late, NOTIFY);
    CHECK_WSA(san_recv_bytes(self.s, in.base, LENGTH, &late), WSAECONNRESET);
    op_init(&late, NOTIFY);
    CHECK_WSA(san_send_bytes(self.s, in.base, LENGTH, &late), WSAECONNRESET);
    area_close(&in);
    endpoint_close(&self);
}

static void chatting(enum victim victim, unsigned die_after)
{
    struct area in, out;
    int code = 0;

    begin(victim, "chatting");
    in = area_open(self.s, LENGTH, MEM_WRITE);
    out = area_open(self.s, LENGTH, MEM_READ);
    for (unsigned turn = 0; code == 0; turn++) {
        struct op recv, send;

        phase("turn %u, the peer dies after %u", turn, die_after);
        if (turn == die_after)
            child_kill(&other);
        op_init(&recv, turn % 2 ? POLL : NOTIFY);
        code = san_recv_bytes(self.s, in.base, LENGTH, &recv);
        if (code == WSA_IO_PENDING || code == 0) {
            op_init(&send, turn % 2 ? NOTIFY : POLL);
            code = san_send_bytes(self.s, out.base, LENGTH, &send);
            if (code == WSA_IO_PENDING || code == 0)
                CHECK_WSA_IN(op_wait(self.s, &send), 0, WSAECONNRESET, WSAECONNABORTED);
            else
                CHECK_WSA_IN(code, WSAECONNRESET, WSAECONNABORTED);
            code = op_wait(self.s, &recv);
        }
        CHECK(turn <= die_after + 1);
    }
    CHECK_WSA_IN(code, WSAECONNRESET, WSAECONNABORTED);
    endpoint_close(&self);
    area_forget(&in);
    area_forget(&out);
}

/* RDMA that the survivor began. */
static void in_rdma(enum victim victim, bool write, unsigned die_after)
{
    struct area area;
    int code = 0;

    begin(victim, "idle");
    area = area_open(self.s, LARGE, MEM_READWRITE);
    for (unsigned turn = 0; code == 0; turn++) {
        struct op op;

        phase("%s %u, the peer dies after %u", write ? "write" : "read", turn, die_after);
        if (turn > die_after + 1)
            sleep_ms(1); /* it is dead; the survivor must notice by itself */
        if (turn > die_after + WAIT_SECONDS * 100u)
            fail("RDMA with a dead process still succeeds");
        op_init(&op, turn % 2 ? POLL : NOTIFY);
        code = rdma(&area, &report, write, &op);
        if (turn == die_after)
            child_kill(&other);
        if (code == WSA_IO_PENDING || code == 0)
            code = op_wait(self.s, &op);
    }
    CHECK_WSA_IN(code, WSAECONNRESET, WSAECONNABORTED);
    endpoint_close(&self);
    area_forget(&area);
}

/* RDMA that the dying process began, in this one's memory. */
static void under_rdma(enum victim victim, bool write, unsigned milliseconds)
{
    struct report offer;
    struct window window;
    struct area in;
    struct op recv;

    begin(victim, write ? "writing" : "reading");
    in = area_open(self.s, LENGTH, MEM_WRITE);
    op_init(&recv, NOTIFY);
    CHECK_WSA(san_recv_bytes(self.s, in.base, LENGTH, &recv), WSA_IO_PENDING);
    window = window_open(self.s, LARGE, MEM_READWRITE);
    memset(&offer, 0, sizeof offer);
    describe(&offer, &window);
    child_tell(&other, &offer, sizeof offer);
    child_hear(&other, &offer, sizeof offer);
    phase("a peer that dies %u ms into its RDMA %s", milliseconds, write ? "writes" : "reads");
    sleep_ms(milliseconds);
    child_kill(&other);
    CHECK_WSA(op_wait(self.s, &recv), WSAECONNRESET);
    window_close(&window);
    area_close(&in);
    endpoint_close(&self);
}

int main(int argc, char **argv)
{
    const char *role = child_role(argc, argv);
    const char *fabric = getenv("WSD_FABRIC");
    unsigned long before;
    struct pair pair;
    double begun;

    case_begin(role != NULL ? "peer_death (child)" : "peer_death");
    provider_start();
    if (role != NULL) {
        child(role);
        return 0;
    }
    endpoint_listen(&listener, AF_INET, 8);
    before = pinned();
    listening();
    queued_there();
    queued_here();
    for (enum victim victim = ACCEPTOR; victim <= CONNECTOR; victim++) {
        idle(victim, POLL);
        idle(victim, NOTIFY);
        for (unsigned turns = 0; turns < 4; turns++)
            chatting(victim, turns * 3);
        for (unsigned turns = 0; turns < 3; turns++) {
            in_rdma(victim, true, turns);
            under_rdma(victim, true, turns);
            if (san.rdma_read != NULL) {
                in_rdma(victim, false, turns);
                under_rdma(victim, false, turns);
            }
        }
    }
    phase("what was pinned for the dead");
    if (fabric != NULL && strcmp(fabric, "verbs") == 0)
        CHECK(most_pinned > before);
    for (begun = now_seconds(); pinned() > before; sleep_ms(10))
        CHECK(now_seconds() - begun < WAIT_SECONDS);
    phase("after all that");
    pair_open_through(&pair, &listener);
    pair_exchange(&pair);
    pair_close(&pair);
    endpoint_close(&listener);
    provider_stop();
    return 0;
}
