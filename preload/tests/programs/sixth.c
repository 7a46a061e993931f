/* proof: bulk mixed. As bulk, over IPv6. */
#define SERVER_AT here6()
#define CLIENT_AT here6()
#define TOTAL (8ull << 20)
#include "ends.h"

#include "bulk.c"
