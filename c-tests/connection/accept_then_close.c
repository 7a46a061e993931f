/*
 * Whoever was accepted connects, every time, also if the accepting side closes at once: what that
 * has sent before comes first, and the end of the connection afterwards.
 * req: WSD-08 WSD-11
 */
#include "pair.h"

enum { CLIENTS = 12, LENGTH = 100, ROUNDS = 3 };

static struct endpoint listener;

/* What the acceptor says, if anything; what happens to it on the other side is seen later. */
static void speak(struct endpoint *accepted, uint32_t seed)
{
    struct area out = area_open(accepted->s, LENGTH, MEM_READ);
    struct op send;

    pattern_fill(out.base, LENGTH, seed);
    op_init(&send, POLL);
    CHECK_POSTED(san_send_bytes(accepted->s, out.base, LENGTH, &send));
    CHECK_OK(op_wait(accepted->s, &send));
    area_close(&out);
}

static void expect_message(struct endpoint *client, struct area *in, uint32_t seed)
{
    struct op recv;

    op_init(&recv, POLL);
    CHECK_POSTED(san_recv_bytes(client->s, in->base, LENGTH, &recv));
    CHECK_OK(op_wait(client->s, &recv));
    CHECK_EQ(recv.bytes, LENGTH);
    pattern_check(in->base, LENGTH, seed, "what the acceptor said");
}

static void expect_end(struct endpoint *client, struct area *in)
{
    struct op recv;
    int code;

    op_init(&recv, POLL);
    code = san_recv_bytes(client->s, in->base, LENGTH, &recv);
    CHECK_WSA_IN(code, WSA_IO_PENDING, WSAECONNRESET);
    if (code == WSA_IO_PENDING)
        CHECK_WSA(op_wait(client->s, &recv), WSAECONNRESET);
}

static void run(void)
{
    struct endpoint clients[CLIENTS], accepted;
    int begun[CLIENTS];

    for (int i = 0; i < CLIENTS; i++) {
        endpoint_open(&clients[i], AF_INET);
        begun[i] = endpoint_connect(&clients[i], &listener.local);
        CHECK_WSA_IN(begun[i], 0, WSAEWOULDBLOCK);
        /* One after the other, so that it is known who is accepted when. */
        endpoint_await_request(&listener);
        endpoint_accept(&listener, &accepted);
        if (i % 2)
            speak(&accepted, (uint32_t)i);
        endpoint_close(&accepted);
    }
    for (int i = 0; i < CLIENTS; i++) {
        struct area in;

        phase("client %d of %d", i, CLIENTS);
        CHECK_OK(endpoint_connected(&clients[i], begun[i]));
        in = area_open(clients[i].s, LENGTH, MEM_WRITE);
        if (i % 2)
            expect_message(&clients[i], &in, (uint32_t)i);
        expect_end(&clients[i], &in);
        area_close(&in);
        endpoint_close(&clients[i]);
    }
}

int main(void)
{
    case_begin("accept_then_close");
    provider_start();
    endpoint_listen(&listener, AF_INET, CLIENTS);
    for (int i = 0; i < ROUNDS; i++)
        run();
    endpoint_close(&listener);
    provider_stop();
    return 0;
}
