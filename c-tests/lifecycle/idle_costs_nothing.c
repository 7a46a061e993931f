/*
 * Idle connections cost no processor time: with receives pending on many of them, the process
 * sleeps.
 * req: WSD-10
 */
#include <time.h>

#include "pair.h"

enum { PAIRS = 10, SECONDS = 2, LOOKS = 3 };

static double processor_seconds(void)
{
    struct timespec used;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
    return (double)used.tv_sec + (double)used.tv_nsec / 1e9;
}

int main(void)
{
    struct pair pairs[PAIRS];
    struct area in[PAIRS];
    struct op ops[PAIRS];
    double before, used, least = SECONDS;

    case_begin("idle_costs_nothing");
    provider_start();
    for (int i = 0; i < PAIRS; i++) {
        pair_open(&pairs[i], AF_INET);
        pair_exchange(&pairs[i]);
        in[i] = area_open(pairs[i].b.s, 64, MEM_WRITE);
        op_init(&ops[i], NOTIFY);
        CHECK_WSA(san_recv_bytes(pairs[i].b.s, in[i].base, 64, &ops[i]), WSA_IO_PENDING);
    }
    sleep_ms(300); /* what spins for a while has stopped */
    phase("idling");
    /* Who burns time does so at every look; a busy or emulated machine makes single ones dear. */
    for (int look = 0; look < LOOKS && least > SECONDS * 0.05; look++) {
        before = processor_seconds();
        sleep_ms(SECONDS * 1000);
        used = processor_seconds() - before;
        if (used < least)
            least = used;
    }
    if (least > SECONDS * 0.05)
        fail("%d idle connections used %.3f s of processor time in %d s", PAIRS, least, SECONDS);
    for (int i = 0; i < PAIRS; i++) {
        pair_close(&pairs[i]);
        area_forget(&in[i]);
    }
    provider_stop();
    return 0;
}
