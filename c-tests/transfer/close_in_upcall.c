/*
 * A completion upcall may close its own socket, another socket, or the last one there is; every
 * operation still completes once and WPUCloseSocketHandle waits for the upcall to return. Among few
 * connections and among many.
 * req: WSD-10 WSD-11
 */
#include "pair.h"

enum { PENDING = 6, LENGTH = 64, BYSTANDERS = 10 };

static SOCKET victim;
static unsigned closes;

static void close_victim(struct op *op, void *context)
{
    (void)op;
    (void)context;
    CHECK_OK(san_close(victim));
    __atomic_fetch_add(&closes, 1, __ATOMIC_RELEASE);
}

/* Posts PENDING notified receives on `on`; the first one's upcall closes `close`. */
static void run(struct endpoint *on, struct endpoint *from, SOCKET close)
{
    struct area in = area_open(on->s, PENDING * LENGTH, MEM_WRITE);
    struct area out = area_open(from->s, LENGTH, MEM_READ);
    struct op recvs[PENDING], send;
    SOCKET own = on->s, other = from->s;
    double begun = now_seconds();

    victim = close;
    closes = 0;
    for (int i = 0; i < PENDING; i++) {
        op_init(&recvs[i], NOTIFY);
        if (i == 0)
            recvs[i].then = close_victim;
        CHECK_WSA(san_recv_bytes(on->s, in.base + i * LENGTH, LENGTH, &recvs[i]),
                  WSA_IO_PENDING);
    }
    op_init(&send, POLL);
    CHECK_POSTED(san_send_bytes(from->s, out.base, LENGTH, &send));
    while (__atomic_load_n(&closes, __ATOMIC_ACQUIRE) == 0) {
        sleep_ms(1);
        CHECK(now_seconds() - begun < WAIT_SECONDS);
    }
    CHECK_OK(op_wait_flushed(&recvs[0]));
    for (int i = 1; i < PENDING; i++)
        CHECK_WSA(op_wait_flushed(&recvs[i]),
                  close == own ? WSA_OPERATION_ABORTED : WSAECONNRESET);
    if (close == own) {
        endpoint_forget(on);
        endpoint_close(from);
    } else if (close == other) {
        endpoint_forget(from);
        endpoint_close(on);
    }
    area_forget(&in);
    area_forget(&out);
}

/* The peer is gone, and the upcall of the first receive that was flushed closes the last socket. */
static void run_last(struct endpoint *on, struct endpoint *from)
{
    struct area in = area_open(on->s, PENDING * LENGTH, MEM_WRITE);
    struct op recvs[PENDING];
    double begun = now_seconds();

    victim = on->s;
    closes = 0;
    for (int i = 0; i < PENDING; i++) {
        op_init(&recvs[i], NOTIFY);
        if (i == 0)
            recvs[i].then = close_victim;
        CHECK_WSA(san_recv_bytes(on->s, in.base + i * LENGTH, LENGTH, &recvs[i]),
                  WSA_IO_PENDING);
    }
    endpoint_close(from);
    while (__atomic_load_n(&closes, __ATOMIC_ACQUIRE) == 0) {
        sleep_ms(1);
        CHECK(now_seconds() - begun < WAIT_SECONDS);
    }
    CHECK_WSA(op_wait_flushed(&recvs[0]), WSAECONNRESET);
    for (int i = 1; i < PENDING; i++)
        CHECK_WSA_IN(op_wait_flushed(&recvs[i]), WSAECONNRESET, WSA_OPERATION_ABORTED);
    endpoint_forget(on);
    area_forget(&in);
}

static void everything(void)
{
    struct pair pair, bystander;

    pair_open(&bystander, AF_INET);
    phase("an upcall closes its own socket");
    pair_open(&pair, AF_INET);
    run(&pair.b, &pair.a, pair.b.s);
    phase("an upcall closes the peer of its socket");
    pair_open(&pair, AF_INET);
    run(&pair.b, &pair.a, pair.a.s);
    phase("the connecting side's upcall closes its own socket");
    pair_open(&pair, AF_INET);
    run(&pair.a, &pair.b, pair.a.s);
    pair_exchange(&bystander);
    pair_close(&bystander);

    phase("an upcall closes the last socket but one");
    pair_open(&pair, AF_INET);
    run(&pair.b, &pair.a, pair.b.s);
    phase("an upcall closes the last socket");
    pair_open(&pair, AF_INET);
    run_last(&pair.b, &pair.a);
    phase("and the provider goes on");
    pair_open(&pair, AF_INET);
    pair_exchange(&pair);
    pair_close(&pair);
}

int main(void)
{
    struct pair bystanders[BYSTANDERS];

    case_begin("close_in_upcall");
    provider_start();
    everything();
    /* The last socket is now the last of those that share. */
    pairs_open(bystanders, BYSTANDERS);
    everything();
    pairs_close(bystanders, BYSTANDERS);
    provider_stop();
    return 0;
}
