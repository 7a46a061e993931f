/* proof: bulk. As bulk, with a server for both families, which sees a client of IPv4 in IPv6 clothing. */
#define SERVER_AT "::"
#define CLIENT_AT here4()
#define TOTAL (8ull << 20)
#include "ends.h"

#include "bulk.c"
