/*
 * Connect and accept over IPv6.
 * req: WSD-07 WSD-08
 */
#include "connect_accept.h"

#include "pair.h"

int main(void)
{
    case_begin("connect_accept_v6");
    provider_start();
    connect_accept(AF_INET6);
    provider_stop();
    return 0;
}
