/*
 * Connect and accept over IPv4.
 * req: WSD-07 WSD-08
 */
#include "connect_accept.h"

#include "pair.h"

int main(void)
{
    case_begin("connect_accept_v4");
    provider_start();
    connect_accept(AF_INET);
    provider_stop();
    return 0;
}
