/* Stands before recvmsg(2): fails with the errno that stands in the file $RECVMSG_FAILS. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

ssize_t recvmsg(int fd, struct msghdr *message, int flags) {
    ssize_t (*real)(int, struct msghdr *, int) = dlsym(RTLD_NEXT, "recvmsg");
    FILE *file = fopen(getenv("RECVMSG_FAILS"), "r");
    int code = 0;
    if (file != NULL) {
        if (fscanf(file, "%d", &code) != 1)
            code = 0;
        fclose(file);
    }
    if (code == 0)
        return real(fd, message, flags);
    errno = code;
    return -1;
}
