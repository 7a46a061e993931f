/* proof: mixed. stdio on a connection: fdopen, fgets, fprintf, dprintf, fclose; what has come and
 * is not read yet is found. */
#include "ends.h"

static void client(int fd)
{
    char b[256] = {0};
    put(fd, "raw|line one\nline two\n", 22);
    get(fd, b, 8);
    SAY("%s", b);
    put(fd, "line three\n", 11);
    FILE *from = fdopen(dup(fd), "r");
    NEED(from);
    for (int i = 0; i < 3 && fgets(b, sizeof b, from); i++)
        SAY("%s", b);
    SAY_CALL("fclose", fclose(from));
    put(fd, "end", 3);
    SAY_CALL("read", read(fd, b, 1));
}

static void server(int fd)
{
    char b[64] = {0}, *line = NULL;
    size_t room = 0;
    get(fd, b, 4);
    SAY("%s", b);
    pause_ms(200);
    SAY_CALL("dprintf", dprintf(fd, "%s %d %.1f", "got", 1, 2.5) > 0 ? 0 : -1);
    FILE *from = fdopen(dup(fd), "r"), *to = fdopen(fd, "w");
    NEED(from && to);
    for (int i = 0; i < 3; i++) {
        NEED(getline(&line, &room, from) > 0);
        SAY("%s", line);
        fprintf(to, "answer %d to %s", i, line);
        SAY_CALL("fflush", fflush(to));
    }
    NEED(fread(b, 1, 3, from) == 3);
    SAY("%.3s", b);
    SAY_CALL("fclose", fclose(to));
    SAY_CALL("fileno", fileno(from) >= 0 ? 0 : -1);
    /* The stream leads elsewhere, the connection ends. */
    NEED(freopen("/dev/null", "r", from));
    SAY("the end: %d", fgetc(from) == EOF);
    SAY_CALL("fclose", fclose(from));
    free(line);
}
