/* A connection is put on the numbers of the standard streams, and libc reads and writes there. */
#include "ends.h"

static void client(int fd)
{
    char b[64] = {0};
    put(fd, "word 12 rest\n", 13);
    get(fd, b, 20);
    SAY("%s", b);
    SAY_CALL("read", read(fd, b, 1));
}

static void server(int fd)
{
    char word[16];
    int number;
    fflush(stdout);
    int out = dup(1);
    pause_ms(200);
    NEED(dup2(fd, 0) == 0 && dup2(fd, 1) == 1);
    close(fd);
    NEED(scanf("%15s %d", word, &number) == 2);
    printf("printf: %s and %d\n", word, number);
    fflush(stdout);
    NEED(dup2(out, 1) == 1);
    NEED(close(0) == 0);
    SAY("read: %s %d", word, number);
}
