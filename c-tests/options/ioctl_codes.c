/*
 * Control codes that a SAN provider does not know are refused, with a code that says so, and do not
 * touch the output.
 * req: WSD-04 WSD-05
 */
#include <string.h>

#include "pair.h"

int main(void)
{
    static const DWORD codes[] = {SIO_FLUSH,
                                  SIO_TRANSLATE_HANDLE,
                                  SIO_ROUTING_INTERFACE_QUERY,
                                  SIO_ADDRESS_LIST_CHANGE,
                                  SIO_ADDRESS_LIST_SORT,
                                  SIO_GET_QOS,
                                  SIO_GET_GROUP_QOS,
                                  SIO_SET_QOS,
                                  SIO_SET_GROUP_QOS,
                                  0,
                                  0x12345678u,
                                  0xFFFFFFFFu};
    unsigned char in[128], out[128];
    struct pair pair;
    DWORD returned;

    case_begin("ioctl_codes");
    provider_start();
    pair_open(&pair, AF_INET);
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++) {
        phase("control code 0x%08x", codes[i]);
        memset(in, 0, sizeof in);
        memset(out, 0xAA, sizeof out);
        returned = 0;
        CHECK_WSA_IN(san_ioctl(pair.a.s, codes[i], in, sizeof in, out, sizeof out, &returned),
                     WSAEINVAL, WSAEOPNOTSUPP, WSAENOPROTOOPT);
        bytes_check(out, sizeof out, 0xAA, "the output");
        CHECK_WSA_IN(san_ioctl(pair.a.s, codes[i], NULL, 0, NULL, 0, &returned), WSAEINVAL,
                     WSAEOPNOTSUPP, WSAENOPROTOOPT, WSAEFAULT);
    }
    pair_exchange(&pair);
    pair_close(&pair);
    provider_stop();
    return 0;
}
