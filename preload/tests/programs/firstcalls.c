/* proof: bulk. The first call ever on a connection is a send that the kernel takes in pieces, or a
 * receive that waits for everything; each goes on with the same. */
#include "pair.h"

#define PIECE (1 << 20)
#define PIECES 60

static char out[PIECE];

static void *sends(void *arg)
{
    int fd = *(int *)arg;
    for (int i = 0; i < PIECES; i++) {
        out[0] = (char)i;
        CHECK(write(fd, out, PIECE) == PIECE);
        /* So that there is time to go over. */
        sleep_ms(5);
    }
    return NULL;
}

int main(void)
{
    static char in[PIECE];
    struct pair p = make_pair();
    pthread_t sender;
    CHECK(pthread_create(&sender, NULL, sends, &p.client) == 0);
    for (int i = 0; i < PIECES; i++) {
        CHECK(recv(p.server, in, PIECE, MSG_WAITALL) == PIECE);
        CHECK(in[0] == (char)i);
    }
    CHECK(pthread_join(sender, NULL) == 0);
    printf("all of %d pieces\n", PIECES);
    end_pair(p);
    return 0;
}
