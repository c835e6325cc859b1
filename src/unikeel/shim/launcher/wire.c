#include "wire.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define HEADER 10

char trouble[1024];

void explain(const char *format, ...)
{
    va_list values;
    va_start(values, format);
    vsnprintf(trouble, sizeof trouble, format, values);
    va_end(values);
}

int64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * SECOND + time.tv_nsec;
}

void add(Bytes *to, const void *data, size_t size)
{
    if (to->failed || size > to->limit - to->size) {
        to->failed = true;
        return;
    }
    if (size > to->room - to->size) {
        size_t room = to->size + size + to->room / 2 + 256;
        uint8_t *grown = realloc(to->data, room);
        if (grown == NULL) {
            to->failed = true;
            return;
        }
        to->data = grown;
        to->room = room;
    }
    if (size > 0)
        memcpy(to->data + to->size, data, size);
    to->size += size;
}

static void add_varint(Bytes *to, uint64_t value)
{
    uint8_t bytes[10];
    size_t size = 0;
    do {
        bytes[size] = (uint8_t)(value & 0x7f);
        value >>= 7;
        if (value != 0)
            bytes[size] |= 0x80;
        size++;
    } while (value != 0);
    add(to, bytes, size);
}

void add_bytes(Bytes *to, uint32_t field, const void *data, size_t size)
{
    add_varint(to, (uint64_t)field << 3 | 2);
    add_varint(to, size);
    add(to, data, size);
}

void add_text(Bytes *to, uint32_t field, const char *text)
{
    if (text != NULL && *text != '\0')
        add_bytes(to, field, text, strlen(text));
}

void add_number(Bytes *to, uint32_t field, uint64_t value)
{
    if (value != 0) {
        add_varint(to, (uint64_t)field << 3);
        add_varint(to, value);
    }
}

static bool take_varint(Slice *rest, uint64_t *value)
{
    *value = 0;
    for (unsigned shift = 0; shift < 70 && rest->size > 0; shift += 7) {
        uint8_t byte = *rest->data++;
        rest->size--;
        if (shift == 63 && byte > 1)
            return false;
        *value |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80)
            return true;
    }
    return false;
}

static bool take_fixed(Slice *rest, size_t size, uint64_t *value)
{
    if (rest->size < size)
        return false;
    *value = 0;
    for (size_t index = 0; index < size; index++)
        *value |= (uint64_t)rest->data[index] << (8 * index);
    rest->data += size;
    rest->size -= size;
    return true;
}

int next_field(Slice *rest, Field *field)
{
    uint64_t key, size;
    if (rest->size == 0)
        return 0;
    memset(field, 0, sizeof *field);
    if (!take_varint(rest, &key) || key >> 3 == 0 || key >> 3 >= UINT64_C(1) << 29)
        return -1;
    field->number = (uint32_t)(key >> 3);
    field->type = (uint32_t)(key & 7);
    switch (field->type) {
    case 0:
        return take_varint(rest, &field->value) ? 1 : -1;
    case 1:
        return take_fixed(rest, 8, &field->value) ? 1 : -1;
    case 5:
        return take_fixed(rest, 4, &field->value) ? 1 : -1;
    case 2:
        if (!take_varint(rest, &size) || size > rest->size)
            return -1;
        field->bytes = (Slice){rest->data, (size_t)size};
        rest->data += size;
        rest->size -= (size_t)size;
        return 1;
    default: /* groups, which nobody sends */
        return -1;
    }
}

int dial(const char *path, int64_t deadline)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t size = strlen(path);
    if (size == 0 || size >= sizeof address.sun_path) {
        errno = ENAMETOOLONG;
        return -1;
    }
    memcpy(address.sun_path, path, size);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -1;
    while (connect(fd, (const struct sockaddr *)&address, sizeof address) != 0) {
        /* EAGAIN: the listener's queue is full, which is no reason to give up */
        if ((errno != EAGAIN && errno != EINTR) || now() >= deadline) {
            int error = errno;
            close(fd);
            errno = error;
            return -1;
        }
        poll(NULL, 0, 2);
    }
    return fd;
}

/* Wait until `fd` can be read from or written to; false when the time is up. */
static bool ready(int fd, short events, int64_t deadline)
{
    for (;;) {
        int64_t left = deadline - now();
        if (left <= 0)
            return false;
        struct pollfd wanted = {.fd = fd, .events = events};
        int count = poll(&wanted, 1, left > 60 * SECOND ? 60000 : (int)(left / 1000000) + 1);
        if (count > 0)
            return true;
        if (count < 0 && errno != EINTR)
            return false;
    }
}

static Outcome send_all(int fd, const uint8_t *data, size_t size, int64_t deadline)
{
    while (size > 0) {
        ssize_t done = send(fd, data, size, MSG_NOSIGNAL);
        if (done >= 0) {
            data += done;
            size -= (size_t)done;
        } else if (errno == EAGAIN) {
            if (!ready(fd, POLLOUT, deadline))
                return LATE;
        } else if (errno != EINTR) {
            return AWAY;
        }
    }
    return ANSWERED;
}

static Outcome receive_all(int fd, uint8_t *data, size_t size, int64_t deadline)
{
    while (size > 0) {
        ssize_t done = recv(fd, data, size, 0);
        if (done > 0) {
            data += done;
            size -= (size_t)done;
        } else if (done < 0 && errno == EAGAIN) {
            if (!ready(fd, POLLIN, deadline))
                return LATE;
        } else if (done == 0 || errno != EINTR) {
            return AWAY;
        }
    }
    return ANSWERED;
}

static uint32_t big_endian(const uint8_t *bytes)
{
    return (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | bytes[3];
}

static void put_big_endian(uint8_t *bytes, uint32_t value)
{
    for (int index = 3; index >= 0; index--, value >>= 8)
        bytes[index] = (uint8_t)value;
}

/* Read google.rpc.Status: REFUSED with its message in `trouble`, ANSWERED if its code is 0. */
static Outcome read_status(Slice rest)
{
    Field field;
    uint64_t code = 0;
    Slice message = {(const uint8_t *)"no reason given", 15};
    int more;
    while ((more = next_field(&rest, &field)) > 0) {
        if (field.number == 1 && field.type == 0)
            code = field.value;
        else if (field.number == 2 && field.type == 2)
            message = field.bytes;
    }
    if (more < 0) {
        explain("the daemon's answer is malformed");
        return BROKEN;
    }
    if (code == 0)
        return ANSWERED;
    explain("%.*s", (int)(message.size > 900 ? 900 : message.size), (const char *)message.data);
    return REFUSED;
}

static Outcome read_response(Slice rest, Bytes *answer)
{
    Field field;
    Outcome outcome = ANSWERED;
    int more;
    while ((more = next_field(&rest, &field)) > 0 && outcome == ANSWERED) {
        if (field.number == 1 && field.type == 2) {
            outcome = read_status(field.bytes);
        } else if (field.number == 2 && field.type == 2) {
            answer->size = 0;
            add(answer, field.bytes.data, field.bytes.size);
        }
    }
    if (outcome == ANSWERED && (more < 0 || answer->failed)) {
        explain("the daemon's answer is malformed");
        return BROKEN;
    }
    return outcome;
}

static Outcome receive(int fd, int64_t deadline, Bytes *answer)
{
    uint8_t header[HEADER];
    Outcome outcome = receive_all(fd, header, sizeof header, deadline);
    if (outcome != ANSWERED)
        return outcome;
    size_t size = big_endian(header);
    if (size > FRAME_MAX) {
        explain("the daemon's answer is too large: %zu bytes, where %zu are the limit", size, FRAME_MAX);
        return BROKEN;
    }
    if (header[8] != 2 || big_endian(header + 4) != 1) {
        explain("the daemon's answer is malformed: message type %u on stream %u, where 2 on 1 was expected", header[8], big_endian(header + 4));
        return BROKEN;
    }
    uint8_t *body = malloc(size + 1);
    if (body == NULL) {
        explain("there is not enough memory for an answer of %zu bytes", size);
        return BROKEN;
    }
    outcome = receive_all(fd, body, size, deadline);
    if (outcome == ANSWERED)
        outcome = read_response((Slice){body, size}, answer);
    free(body);
    return outcome;
}

Outcome call(int fd, const char *service, const char *method, const Bytes *request, int64_t deadline, Bytes *answer)
{
    Bytes frame = {.limit = FRAME_MAX + HEADER};
    uint8_t header[HEADER] = {[7] = 1, [8] = 1};
    int64_t left = deadline - now();
    add(&frame, header, sizeof header);
    add_text(&frame, 1, service);
    add_text(&frame, 2, method);
    add_bytes(&frame, 3, request->data, request->size);
    add_number(&frame, 4, (uint64_t)(left > 1 ? left : 1));
    if (frame.failed || request->failed) {
        free(frame.data);
        explain("arguments and standard input together are over the limit of 4 MiB");
        return BROKEN;
    }
    put_big_endian(frame.data, (uint32_t)(frame.size - HEADER));
    Outcome outcome = send_all(fd, frame.data, frame.size, deadline);
    free(frame.data);
    if (outcome == ANSWERED)
        outcome = receive(fd, deadline, answer);
    if (outcome == AWAY)
        explain("the daemon closed the connection before it had answered %s", method);
    else if (outcome == LATE)
        explain("the daemon did not answer %s in time", method);
    return outcome;
}
