/* Threads that share a connection: small records stay whole, both directions go at once. */
#include "ends.h"

#define WRITERS 4
#define RECORDS 3000
#define LENGTH 48

static int connection;

static void *writing(void *which)
{
    unsigned char record[LENGTH];
    for (int i = 0; i < RECORDS; i++) {
        memset(record, (int)(intptr_t)which * 50 + i % 50, sizeof record);
        NEED(send(connection, record, sizeof record, 0) == sizeof record);
    }
    return NULL;
}

static void *reading(void *unused)
{
    (void)unused;
    int count[WRITERS] = {0};
    for (int i = 0; i < WRITERS * RECORDS; i++) {
        unsigned char record[LENGTH];
        NEED(recv(connection, record, sizeof record, MSG_WAITALL) == sizeof record);
        for (int j = 1; j < LENGTH; j++)
            NEED(record[j] == record[0]);
        int writer = record[0] / 50;
        NEED(writer < WRITERS && record[0] % 50 == count[writer] % 50);
        count[writer]++;
    }
    return NULL;
}

static void both(int fd)
{
    pthread_t reader, writers[WRITERS];
    connection = fd;
    NEED(pthread_create(&reader, NULL, reading, NULL) == 0);
    for (intptr_t i = 0; i < WRITERS; i++)
        NEED(pthread_create(&writers[i], NULL, writing, (void *)i) == 0);
    for (int i = 0; i < WRITERS; i++)
        NEED(pthread_join(writers[i], NULL) == 0);
    NEED(pthread_join(reader, NULL) == 0);
    SAY("all records were whole and in order");
}

static void client(int fd)
{
    both(fd);
    meet(fd);
}

static void server(int fd)
{
    both(fd);
    meet(fd);
}
