/*
 * Sends and receives find the registration by the address: memory that is not registered, not
 * wholly, not on this socket, not any more, or without the right to write, is WSAEFAULT and nothing
 * is started.
 * req: WSD-12
 */
#include "pair.h"

enum { LENGTH = 200 };

static struct op op;

#define REFUSED(call)                                                                              \
    do {                                                                                           \
        phase("%s", #call);                                                                        \
        op_init(&op, NOTIFY);                                                                      \
        CHECK_WSA(call, WSAEFAULT);                                                                \
    } while (0)

int main(void)
{
    struct area area, other, readable;
    struct memory plain;
    struct pair pair;
    WSABUF pieces[2];

    case_begin("unregistered");
    provider_start();
    pair_open(&pair, AF_INET);
    plain = memory_new(LENGTH);
    area = area_open(pair.a.s, LENGTH, MEM_READWRITE);
    other = area_open(pair.b.s, LENGTH, MEM_READWRITE);
    readable = area_open(pair.a.s, LENGTH, MEM_READ);

    REFUSED(san_send_bytes(pair.a.s, plain.base, LENGTH, &op));
    REFUSED(san_recv_bytes(pair.a.s, plain.base, LENGTH, &op));
    REFUSED(san_send_bytes(pair.a.s, other.base, LENGTH, &op));
    REFUSED(san_recv_bytes(pair.a.s, other.base, LENGTH, &op));
    REFUSED(san_recv_bytes(pair.a.s, readable.base, LENGTH, &op));
    REFUSED(san_send_bytes(pair.a.s, area.base + 1, LENGTH, &op));
    REFUSED(san_recv_bytes(pair.a.s, area.base - 1, LENGTH, &op));

    phase("memory that two registrations share, of which none has all");
    {
        struct memory both = memory_new(2 * LENGTH);
        HANDLE front, back, all;

        CHECK_OK(san_register(pair.a.s, both.base, LENGTH, MEM_READWRITE, &front));
        CHECK_OK(san_register(pair.a.s, both.base + LENGTH, LENGTH, MEM_READWRITE, &back));
        REFUSED(san_send_bytes(pair.a.s, both.base + LENGTH - 10, 20, &op));
        REFUSED(san_recv_bytes(pair.a.s, both.base + LENGTH - 10, 20, &op));
        REFUSED(san_send_bytes(pair.a.s, both.base, 2 * LENGTH, &op));
        phase("the same memory, registered as one");
        CHECK_OK(san_register(pair.a.s, both.base, 2 * LENGTH, MEM_READ, &all));
        {
            struct op send, recv;

            pattern_fill(both.base, 2 * LENGTH, 7);
            op_init(&recv, POLL);
            CHECK_POSTED(san_recv_bytes(pair.b.s, other.base, LENGTH, &recv));
            op_init(&send, POLL);
            CHECK_POSTED(san_send_bytes(pair.a.s, both.base + LENGTH - 10, 20, &send));
            CHECK_OK(op_wait(pair.b.s, &recv));
            CHECK_OK(op_wait(pair.a.s, &send));
            pattern_check_from(other.base, 20, 7, LENGTH - 10, "the middle");
        }
        CHECK_OK(san_deregister(pair.a.s, front));
        CHECK_OK(san_deregister(pair.a.s, back));
        CHECK_OK(san_deregister(pair.a.s, all));
        memory_free(&both);
    }

    phase("a good piece before a bad one");
    pieces[0].len = 10;
    pieces[0].buf = (char *)area.base;
    pieces[1].len = 10;
    pieces[1].buf = (char *)plain.base;
    op_init(&op, NOTIFY);
    CHECK_WSA_IN(san_send(pair.a.s, pieces, 2, &op), WSAEFAULT, WSAEINVAL);
    op_init(&op, NOTIFY);
    CHECK_WSA_IN(san_recv(pair.a.s, pieces, 2, &op), WSAEFAULT, WSAEINVAL);

    phase("parts of a registration");
    op_init(&op, POLL);
    CHECK_POSTED(san_send_bytes(pair.a.s, area.base + 50, 100, &op));
    message_pass(&pair.b, &pair.a, 10, 1); /* does not disturb the message on its way */
    {
        struct op recv;

        op_init(&recv, POLL);
        CHECK_POSTED(san_recv_bytes(pair.b.s, other.base + 7, 100, &recv));
        CHECK_OK(op_wait(pair.b.s, &recv));
        CHECK_EQ(recv.bytes, 100);
        CHECK_OK(op_wait(pair.a.s, &op));
    }

    phase("after deregistration");
    CHECK_OK(san_deregister(pair.a.s, area.handle));
    REFUSED(san_send_bytes(pair.a.s, area.base, LENGTH, &op));
    REFUSED(san_recv_bytes(pair.a.s, area.base, LENGTH, &op));
    area_forget(&area);
    area_close(&readable);
    area_close(&other);
    memory_free(&plain);
    pair_exchange(&pair);
    pair_close(&pair);
    CHECK_EQ(switch_count(UPCALL_COMPLETE, NO_HANDLE), 0);
    provider_stop();
    return 0;
}
