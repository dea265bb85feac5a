/* Replaces recvmmsg(2): fails with the errno that the file $RECVMMSG_FAILS holds, if it is there. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

int recvmmsg(int fd, struct mmsghdr *messages, unsigned int count, int flags, struct timespec *timeout) {
    int (*real)(int, struct mmsghdr *, unsigned int, int, struct timespec *) = dlsym(RTLD_NEXT, "recvmmsg");
    FILE *file = fopen(getenv("RECVMMSG_FAILS"), "r");
    int code = 0;
    if (file != NULL) {
        if (fscanf(file, "%d", &code) != 1)
            code = 0;
        fclose(file);
    }
    if (code == 0)
        return real(fd, messages, count, flags, timeout);
    errno = code;
    return -1;
}
