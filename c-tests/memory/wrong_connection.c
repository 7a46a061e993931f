/*
 * A descriptor means something only to the peer of the connection it was made for: over another
 * connection, even of the same two processes, and by the owner itself, it reaches nothing.
 * req: WSD-12 WSD-13
 */
#include "violate.h"

enum { LENGTH = 500 };

/* `turned` exchanges the roles of the sides of the second connection. */
static void run(bool write, bool turned)
{
    struct pair one, two, used;
    struct window window;

    pair_open(&one, AF_INET);
    pair_open(&two, AF_INET);
    used.a = turned ? two.b : two.a;
    used.b = turned ? two.a : two.b;
    window = window_open(one.b.s, LENGTH, MEM_READWRITE);
    memset(window.base, 0x11, LENGTH);
    if (write)
        violate_write(&used, &window, 0, LENGTH, POLL, "a write over another connection");
    else
        violate_read(&used, &window, 0, LENGTH, POLL, "a read over another connection");
    bytes_check(window.base, LENGTH, 0x11, "memory exposed on another connection");

    /* The connection it was made for is not harmed. */
    pair_exchange(&one);
    window_close(&window);
    pair_close(&one);
    pair_close(&two);
}

/* A window of the same shape on the second connection must not make it pass. */
static void twins(void)
{
    struct pair one, two;
    struct window window, twin;

    pair_open(&one, AF_INET);
    pair_open(&two, AF_INET);
    window = window_open(one.b.s, LENGTH, MEM_READWRITE);
    twin = window_open(two.b.s, LENGTH, MEM_READWRITE);
    memset(window.base, 0x11, LENGTH);
    memset(twin.base, 0x11, LENGTH);
    violate_write(&two, &window, 0, LENGTH, NOTIFY, "a write meant for a twin");
    bytes_check(window.base, LENGTH, 0x11, "the memory of the first connection");
    bytes_check(twin.base, LENGTH, 0x11, "the memory of the second connection");
    pair_close(&one);
    pair_close(&two);
    window_forget(&window);
    window_forget(&twin);
}

static void own(void)
{
    struct pair pair;
    struct window window;

    pair_open(&pair, AF_INET);
    window = window_open(pair.a.s, LENGTH, MEM_READWRITE);
    memset(window.base, 0x11, LENGTH);
    violate_write(&pair, &window, 0, LENGTH, POLL, "a write by the owner of the memory");
    bytes_check(window.base, LENGTH, 0x11, "the owner's memory");
    pair_close(&pair);
    window_forget(&window);
}

int main(void)
{
    case_begin("wrong_connection");
    provider_start();
    run(true, false);
    run(true, true);
    if (san.rdma_read != NULL) {
        run(false, false);
        run(false, true);
    }
    twins();
    own();
    provider_stop();
    return 0;
}
