/* proof: bulk mixed. As bulk, over IPv6. */
#define SERVER_AT "::1"
#define CLIENT_AT "::1"
#define TOTAL (8ull << 20)
#include "ends.h"

#include "bulk.c"
