/* The address of this host at which the programs meet: WSD_TEST_ADDRESS (IPv6: WSD_TEST_ADDRESS6), or
 * the loopback. RDMA devices do not serve the loopback. */
#ifndef HERE_H
#define HERE_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>

static inline const char *here4(void)
{
    const char *named = getenv("WSD_TEST_ADDRESS");
    return named ? named : "127.0.0.1";
}

/* The same in IPv6 clothing. */
static inline const char *clothed(void)
{
    static char text[64];
    snprintf(text, sizeof text, "::ffff:%s", here4());
    return text;
}

static inline const char *here6(void)
{
    const char *named = getenv("WSD_TEST_ADDRESS6");
    return named ? named : "::1";
}

static inline struct sockaddr_in here(void)
{
    struct sockaddr_in at = {.sin_family = AF_INET};
    if (inet_pton(AF_INET, here4(), &at.sin_addr) != 1)
        abort();
    return at;
}
#endif
