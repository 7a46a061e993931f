/*
 * The upcall is made without locks: from within it the switch sends, posts, asks for results and
 * registers memory. Two sockets keep a message going to and fro by their upcalls alone.
 * req: WSD-10
 */
#include "pair.h"

enum { TURNS = 2000, LENGTH = 32 };

struct side {
    struct endpoint *endpoint;
    struct area in, out;
    struct op recv;
    struct op sends[TURNS + 1]; /* one a turn: an upcall waits for nothing */
    unsigned turns;
};

static struct side sides[2];
static unsigned finished;

/* Sends `value`, LENGTH times. */
static void send_on(struct side *side, unsigned char value)
{
    struct op *send = &side->sends[side->turns];
    unsigned char *message = side->out.base + side->turns * LENGTH;

    for (int i = 0; i < LENGTH; i++)
        message[i] = value;
    op_init(send, NOTIFY);
    CHECK_POSTED(san_send_bytes(side->endpoint->s, message, LENGTH, send));
}

static void received(struct op *op, void *context)
{
    struct side *side = (struct side *)context;
    DWORD bytes = 0, flags = 0, size;
    int length = (int)sizeof size;
    unsigned char value = side->in.base[0];

    CHECK_OK(san_result(side->endpoint->s, op, false, &bytes, &flags));
    CHECK_EQ(bytes, LENGTH);
    bytes_check(side->in.base, LENGTH, value, "a message");
    CHECK_EQ(value, (unsigned char)(2 * side->turns + (side == &sides[0])));
    side->turns++;
    if (side->turns % 100 == 0) {
        HANDLE handle;

        CHECK_OK(san_register(side->endpoint->s, side->out.base, LENGTH, MEM_READ, &handle));
        CHECK_OK(san_deregister(side->endpoint->s, handle));
        CHECK_WSA_IN(san_getsockopt(side->endpoint->s, WSD_SOL_SOCKET, SO_MAX_MSG_SIZE, &size,
                                    &length),
                     0, WSAENOPROTOOPT);
    }
    if (side->turns < TURNS) {
        op_init(&side->recv, NOTIFY);
        side->recv.then = received;
        side->recv.context = side;
        CHECK_WSA_IN(san_recv_bytes(side->endpoint->s, side->in.base, LENGTH, &side->recv), 0,
                     WSA_IO_PENDING);
    }
    if (side == &sides[1] || side->turns < TURNS) /* the last message has nobody to take it */
        send_on(side, (unsigned char)(value + 1));
    if (side->turns == TURNS)
        __atomic_fetch_add(&finished, 1, __ATOMIC_RELEASE);
}

int main(void)
{
    struct pair pair;
    double begun;

    case_begin("call_in_upcall");
    provider_start();
    pair_open(&pair, AF_INET);
    sides[0].endpoint = &pair.a;
    sides[1].endpoint = &pair.b;
    for (int i = 0; i < 2; i++) {
        struct side *side = &sides[i];

        side->in = area_open(side->endpoint->s, LENGTH, MEM_WRITE);
        side->out = area_open(side->endpoint->s, (TURNS + 1) * LENGTH, MEM_READ);
        op_init(&side->recv, NOTIFY);
        side->recv.then = received;
        side->recv.context = side;
        CHECK_WSA(san_recv_bytes(side->endpoint->s, side->in.base, LENGTH, &side->recv),
                  WSA_IO_PENDING);
    }
    phase("to and fro");
    send_on(&sides[0], 0);
    begun = now_seconds();
    while (__atomic_load_n(&finished, __ATOMIC_ACQUIRE) < 2) {
        sleep_ms(5);
        if (now_seconds() - begun > WAIT_SECONDS)
            fail("stuck after %u and %u turns", sides[0].turns, sides[1].turns);
    }
    pair_close(&pair);
    for (int i = 0; i < 2; i++) {
        area_forget(&sides[i].in);
        area_forget(&sides[i].out);
    }
    provider_stop();
    return 0;
}
