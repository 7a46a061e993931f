/*
 * A thousand connections open at once in one process, through one listener; each carries its
 * own messages, and all close. Fewer where WSD_TEST_DIVISOR says so.
 * req: WSD-07 WSD-08 WSD-11
 */
#include <stdlib.h>

#include "pair.h"

enum { ROUNDS = 3, LENGTH = 80 };

int main(void)
{
    struct endpoint listener;
    struct pair *pairs;
    int count = (int)divided(1000);

    case_begin("many_connections");
    case_limit(110);
    raise_descriptor_limit();
    provider_start();
    pairs = calloc((size_t)count, sizeof *pairs);
    CHECK(pairs != NULL);
    endpoint_listen(&listener, AF_INET, 64);
    for (int i = 0; i < count; i++) {
        pair_open_through(&pairs[i], &listener);
        phase("connection %d", i);
    }
    for (int round = 0; round < ROUNDS; round++)
        for (int i = 0; i < count; i++) {
            phase("round %d on connection %d", round, i);
            if ((round + i) % 2)
                message_pass(&pairs[i].a, &pairs[i].b, LENGTH, (uint32_t)(i * ROUNDS + round));
            else
                message_pass(&pairs[i].b, &pairs[i].a, LENGTH, (uint32_t)(i * ROUNDS + round));
        }
    for (int i = 0; i < count; i++)
        pair_close(&pairs[i]);
    endpoint_close(&listener);
    free(pairs);
    provider_stop();
    return 0;
}
