/* proof: bulk. As bulk, with a client that goes to a server of IPv4 with a socket of IPv6. */
#define SERVER_AT here4()
#define CLIENT_AT clothed()
#define TOTAL (8ull << 20)
#include "ends.h"

#include "bulk.c"
